//! `--cipher-suites`: Go's names, as far as the TLS library has what they name.

/// The suites of TLS 1.2 that can be chosen, with Go's names.
const SUITES: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// Go's older names of some of them.
const SHORT: [&str; 2] = [
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
];

/// Reads a list; empty for all.
pub(crate) fn parse(value: &str) -> Result<Vec<String>, String> {
    let names = value.split(',').filter(|_| !value.is_empty());
    names.map(suite).collect()
}

fn suite(name: &str) -> Result<String, String> {
    if SHORT.contains(&name) {
        return Ok(format!("{name}_SHA256"));
    }
    if SUITES.contains(&name) {
        return Ok(name.to_owned());
    }
    let unexpected = format!("unexpected TLS cipher suite {name:?}");
    Err(if name.starts_with("TLS_") {
        format!(
            "{unexpected}: this release of member has {}",
            SUITES.join(", ")
        )
    } else {
        unexpected
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_those_of_the_library_by_gos_names() {
        assert_eq!(parse("").unwrap(), Vec::<String>::new());
        assert_eq!(
            parse("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
                .unwrap(),
            [
                "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
            ]
        );
        assert_eq!(
            parse("bogus").unwrap_err(),
            "unexpected TLS cipher suite \"bogus\""
        );
        let weak = parse("TLS_RSA_WITH_AES_128_CBC_SHA").unwrap_err();
        assert!(
            weak.contains("CBC_SHA\": this release of member has"),
            "{weak}"
        );
    }
}
