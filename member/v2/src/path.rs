//! Keys as paths: absolute, clean, `/` between their parts.

/// Go's `path.Clean` of an absolute path: no empty parts, no `.`, no `..`, no slash at the end but for the root.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directories above a clean path, the root left out, the uppermost first.
pub(crate) fn above(path: &str) -> impl Iterator<Item = &str> {
    path.char_indices()
        .skip(1)
        .filter(|(_, character)| *character == '/')
        .map(|(at, _)| &path[..at])
}

/// What of `path` comes after `dir` and a slash; `None` when it does not lie below it.
pub(crate) fn relative<'a>(dir: &str, path: &'a str) -> Option<&'a str> {
    let dir = if dir == "/" { "" } else { dir };
    path.strip_prefix(dir)?
        .strip_prefix('/')
        .filter(|rest| !rest.is_empty())
}

/// Whether any part of a relative path hides it from those who look from above.
pub(crate) fn is_hidden(relative: &str) -> bool {
    relative.split('/').any(|part| part.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("", "/"),
            ("/", "/"),
            ("/a/", "/a"),
            ("//a//b/", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../..", "/"),
            ("/a/...", "/a/..."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    #[test]
    fn what_lies_below_is_told_from_what_only_begins_alike() {
        assert_eq!(relative("/a", "/a/b"), Some("b"));
        assert_eq!(relative("/a", "/ab"), None);
        assert_eq!(relative("/a", "/a"), None);
        assert_eq!(relative("/", "/a"), Some("a"));
        assert_eq!(relative("/", "/"), None);
        assert_eq!(above("/a/b/c").collect::<Vec<_>>(), ["/a", "/a/b"]);
        assert_eq!(above("/").count(), 0);
    }
}
