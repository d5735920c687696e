//! "Did you mean": the nearest of the known words.

/// The candidate nearest to `word`, if it is near enough to be a slip of the keyboard.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let wanted = word.to_lowercase().replace('_', "-");
    // A third of the letters wrong is another word.
    let most = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::osa_distance(&wanted, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let keys = ["name", "address", "client-port", "peer-port", "zone"];
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("nmae", keys), Some("name"));
        assert_eq!(nearest("client_port", keys), Some("client-port"));
        assert_eq!(nearest("Zone", keys), Some("zone"));
        assert_eq!(nearest("quorum", keys), None);
    }
}
