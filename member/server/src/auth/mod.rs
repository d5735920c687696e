//! Who calls: tokens, passwords, and certificates' names.
//!
//! Owns how a request's metadata becomes a [`member_state::Caller`], and how a password becomes a token. What a caller
//! may do is the state's to say ([`member_state::Auth`]): services ask it through the calls on [`crate::node::Node`] in
//! `ingress`, and writes are asked again where they are applied.
//!
//! Invariant: while authentication is off, a request costs one test of a flag here.

mod ingress;
mod jwt;
mod passwords;
mod simple;

pub(crate) use ingress::{ClientName, Credentials};
pub(crate) use passwords::{PasswordError, Passwords};
pub(crate) use simple::{SimpleTokens, new_prefix as new_token_prefix};

use member_flags::{AuthToken, FlagError, Flags};

use jwt::Jwt;
pub use jwt::TokenKeyError;

/// What tokens are made of.
pub(crate) enum Tokens {
    /// There are none: nobody can log in by password.
    None,
    /// Random ones, which the log makes known to all members; see [`SimpleTokens`].
    Simple,
    /// Signed ones, which any member can check by itself.
    Jwt(Box<Jwt>),
}

/// A member's means of telling who calls.
pub(crate) struct Callers {
    pub(crate) tokens: Tokens,
    pub(crate) passwords: Passwords,
    /// Whether the common name of a client's certificate names the user when no token does.
    by_certificate: bool,
}

/// Why the flags allow no means of telling who calls.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    /// The flag is malformed.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// Its keys cannot be used.
    #[error(transparent)]
    Keys(#[from] TokenKeyError),
}

impl Callers {
    pub(crate) fn new(flags: &Flags) -> Result<Self, CallersError> {
        let tokens = match AuthToken::parse(&flags.auth_token)? {
            AuthToken::None => Tokens::None,
            AuthToken::Simple => Tokens::Simple,
            AuthToken::Jwt(options) => Tokens::Jwt(Box::new(Jwt::load(&options)?)),
        };
        Ok(Self {
            tokens,
            passwords: Passwords::new(flags.effective_bcrypt_cost()),
            by_certificate: flags.client_cert_auth,
        })
    }
}
