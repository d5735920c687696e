//! Simple tokens: 16 random letters, a dot, and the index of the log entry that made the token known.
//!
//! Every member sees the entry, so every member knows the token; its lifetime is each member's own, from the last use
//! there. A restart forgets tokens that are not in the part of the log that is applied again: clients log in anew.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use member_state::{Auth, AuthOp, AuthRequest};

const PREFIX_LETTERS: usize = 16;
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

struct Token {
    user: String,
    ends: Instant,
}

/// The tokens that this member knows.
pub(crate) struct SimpleTokens {
    ttl: Duration,
    known: Mutex<HashMap<String, Token>>,
}

impl SimpleTokens {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            known: Mutex::default(),
        }
    }

    /// Takes note of an operation that the state has done at an index of the log.
    pub(crate) fn observe(&self, op: &AuthOp, index: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match &op.request {
            Some(AuthRequest::Authenticate(who)) => {
                let now = Instant::now();
                known.retain(|_, token| token.ends > now);
                let token = Token {
                    user: who.name.clone(),
                    ends: now + self.ttl,
                };
                known.insert(format!("{}.{index}", who.token_prefix), token);
            }
            Some(AuthRequest::UserDelete(user)) => {
                known.retain(|_, token| token.user != user.name);
            }
            Some(AuthRequest::UserChangePassword(user)) => {
                known.retain(|_, token| token.user != user.name);
            }
            Some(AuthRequest::Disable(_)) => known.clear(),
            _ => {}
        }
    }

    /// Another state took the place of the one before, with operations in between that nobody observed here: forgets
    /// the tokens of users that are not those of before, or may have another password.
    pub(crate) fn replaced(&self, before: &Auth, after: &Auth) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |name: &str| {
            let password = |auth: &Auth| auth.user(name).map(|user| user.password.clone());
            after.enabled() && password(after).is_some() && password(before) == password(after)
        };
        known.retain(|_, token| same(&token.user));
    }

    /// The user of a token, whose life starts again.
    pub(crate) fn user(&self, token: &str) -> Option<String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let found = known.get_mut(token)?;
        if found.ends <= now {
            known.remove(token);
            return None;
        }
        found.ends = now + self.ttl;
        Some(found.user.clone())
    }
}

/// The index of the entry that makes a token known.
pub(crate) fn index(token: &str) -> Option<u64> {
    let (_, index) = token.split_once('.')?;
    index.parse().ok()
}

/// The random part of a new token; fails when the system has no randomness.
pub(crate) fn new_prefix() -> Result<String, getrandom::Error> {
    let mut prefix = String::with_capacity(PREFIX_LETTERS);
    let mut bytes = [0; PREFIX_LETTERS];
    // Bytes from here on would make the first letters likelier than the others.
    let fair = 256 - 256 % LETTERS.len();
    while prefix.len() < PREFIX_LETTERS {
        getrandom::fill(&mut bytes)?;
        let letters = bytes
            .iter()
            .map(|byte| usize::from(*byte))
            .filter(|byte| *byte < fair)
            .map(|byte| char::from(LETTERS[byte % LETTERS.len()]));
        prefix.extend(letters.take(PREFIX_LETTERS - prefix.len()));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use member_state::{Authenticate, ChangePassword, Nothing, UserName};

    use super::*;

    fn login(name: &str, prefix: &str) -> AuthOp {
        AuthRequest::Authenticate(Authenticate {
            name: name.to_owned(),
            token_prefix: prefix.to_owned(),
        })
        .into()
    }

    #[test]
    fn tokens_end_with_their_user_password_and_authentication() {
        let tokens = SimpleTokens::new(Duration::from_secs(300));
        let ends = [
            (
                AuthRequest::UserChangePassword(ChangePassword {
                    name: "a".to_owned(),
                    ..Default::default()
                }),
                [None, Some("b")],
            ),
            (
                AuthRequest::UserDelete(UserName {
                    name: "b".to_owned(),
                }),
                [Some("a"), None],
            ),
            (AuthRequest::Disable(Nothing {}), [None, None]),
        ];
        for (end, left) in ends {
            tokens.observe(&login("a", "x"), 7);
            tokens.observe(&login("b", "y"), 8);
            assert_eq!(tokens.user("x.7").as_deref(), Some("a"));
            tokens.observe(&end.into(), 9);
            let found = [tokens.user("x.7"), tokens.user("y.8")];
            assert_eq!(found.each_ref().map(Option::as_deref), left);
        }
    }

    #[test]
    fn a_token_that_is_not_used_ends() {
        let tokens = SimpleTokens::new(Duration::ZERO);
        tokens.observe(&login("a", "x"), 7);
        assert_eq!(tokens.user("x.7"), None);
    }

    #[test]
    fn prefixes_are_letters_and_differ() {
        let (one, two) = (new_prefix().unwrap(), new_prefix().unwrap());
        assert_ne!(one, two);
        assert!(one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_alphabetic()));
        assert_eq!(index(&format!("{one}.12")), Some(12));
        assert_eq!(index("nonsense"), None);
    }
}
