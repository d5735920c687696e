//! `--auth-token`: which tokens members hand out, and how JSON web tokens are signed. Whether key files exist and fit
//! shows when they are loaded.

use std::path::PathBuf;
use std::time::Duration;

use crate::{FlagError, go::parse_duration};

/// How long a JSON web token is good without `ttl`; etcd's default.
const DEFAULT_JWT_TTL: Duration = Duration::from_secs(300);

/// etcd's signing methods that this release can use.
const METHODS: [&str; 12] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "HS256", "HS384",
    "HS512", "EdDSA",
];

/// The kind of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthToken {
    /// None: nobody can log in by password.
    None,
    /// Random ones, known to the members.
    Simple,
    /// Signed ones.
    Jwt(JwtOptions),
}

/// How JSON web tokens are signed and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtOptions {
    /// Such as `RS256`.
    pub sign_method: String,
    /// The key that checks.
    pub pub_key: Option<PathBuf>,
    /// The key that signs; without it, tokens are only checked.
    pub priv_key: Option<PathBuf>,
    /// How long a token is good.
    pub ttl: Duration,
}

fn invalid(reason: String) -> FlagError {
    FlagError::AuthToken { reason }
}

impl AuthToken {
    /// Reads the flag's value: `simple`, or `jwt` and options as `name=value`, all separated by commas.
    ///
    /// # Errors
    ///
    /// The type or the signing method is unknown, an option malformed, given twice, or missing.
    pub fn parse(text: &str) -> Result<Self, FlagError> {
        let mut parts = text.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options: Vec<(&str, &str)> = Vec::new();
        for part in parts {
            let (name, value) = part
                .split_once('=')
                .filter(|(_, value)| !value.contains('='))
                .ok_or_else(|| invalid(format!("option {part:?} is not NAME=VALUE")))?;
            if options.iter().any(|(known, _)| *known == name) {
                return Err(invalid(format!("option {name} is given twice")));
            }
            options.push((name, value));
        }
        match kind {
            "" => Ok(Self::None),
            "simple" => Ok(Self::Simple),
            "jwt" => Ok(Self::Jwt(JwtOptions::from_options(&options)?)),
            _ => Err(invalid(format!("unknown token type {kind:?}"))),
        }
    }
}

impl JwtOptions {
    fn from_options(options: &[(&str, &str)]) -> Result<Self, FlagError> {
        let option = |name: &str| {
            options
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| *value)
                .filter(|value| !value.is_empty())
        };
        let method = option("sign-method")
            .filter(|method| METHODS.contains(method))
            .ok_or_else(|| {
                invalid(format!(
                    "auth: invalid auth signature method; sign-method is one of {}",
                    METHODS.join(", ")
                ))
            })?;
        let ttl = match option("ttl") {
            None => DEFAULT_JWT_TTL,
            Some(text) => parse_duration(text).map_err(invalid)?,
        };
        let path = |name| option(name).map(PathBuf::from);
        let (pub_key, priv_key) = (path("pub-key"), path("priv-key"));
        if pub_key.is_none() && priv_key.is_none() {
            return Err(FlagError::AuthTokenKeys);
        }
        Ok(Self {
            sign_method: method.to_owned(),
            pub_key,
            priv_key,
            ttl,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_etcd_reads_them() {
        assert_eq!(AuthToken::parse("simple"), Ok(AuthToken::Simple));
        assert_eq!(AuthToken::parse(""), Ok(AuthToken::None));
        let Ok(AuthToken::Jwt(options)) =
            AuthToken::parse("jwt,pub-key=/p,priv-key=/q,sign-method=RS256,ttl=10m")
        else {
            panic!("valid");
        };
        assert_eq!(options.ttl, Duration::from_secs(600));
        assert_eq!(options.pub_key, Some(PathBuf::from("/p")));
        for text in [
            "foo",
            "simple,a",
            "jwt",
            "jwt,sign-method=none,pub-key=/p",
            "jwt,sign-method=RS256,pub-key=/p,ttl=zz",
            "jwt,sign-method=RS256,pub-key=/p,pub-key=/q",
        ] {
            let error = AuthToken::parse(text).unwrap_err().to_string();
            assert!(error.starts_with("auth: invalid auth options"), "{error}");
        }
        assert_eq!(
            AuthToken::parse("jwt,sign-method=RS256")
                .unwrap_err()
                .to_string(),
            "auth: missing key data"
        );
    }
}
