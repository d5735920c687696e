//! JSON web tokens: claims `username`, `revision` and `exp`, as etcd's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation, decode, encode,
    get_current_timestamp,
};
use member_flags::JwtOptions;
use member_state::Caller;
use serde::{Deserialize, Serialize};

/// Why the keys of `--auth-token` cannot be used. etcd's sentences, then what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// A key file cannot be read.
    #[error("auth: invalid auth options: open {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The signing method is unknown to the library.
    #[error("auth: invalid auth options: auth: invalid auth signature method {method}")]
    Method {
        /// The method.
        method: String,
    },
    /// A file does not hold a key for the method.
    #[error(
        "auth: invalid auth options: {} holds no {what} key for {method}; EC and EdDSA keys must be PEM in PKCS#8 form",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// `public` or `private`.
        what: &'static str,
        /// The method.
        method: String,
        /// The library's reason.
        source: jsonwebtoken::errors::Error,
    },
    /// The private key is not that of the public one.
    #[error("auth: public and private keys don't match")]
    Mismatch,
    /// Tokens can be signed, but there is nothing to check them with.
    #[error(
        "auth: missing key data: pub-key is needed beside priv-key for the signing method {method}"
    )]
    NoPublicKey {
        /// The method.
        method: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Claims {
    username: String,
    revision: u64,
    exp: u64,
}

/// Signs and checks tokens.
pub(crate) struct Jwt {
    header: Header,
    validation: Validation,
    sign: Option<EncodingKey>,
    check: DecodingKey,
    ttl: Duration,
}

fn read(path: &Path) -> Result<Vec<u8>, TokenKeyError> {
    std::fs::read(path).map_err(|source| TokenKeyError::Open {
        path: path.to_owned(),
        source,
    })
}

impl Jwt {
    /// Loads the keys, and signs once to see that they fit.
    pub(crate) fn load(options: &JwtOptions) -> Result<Self, TokenKeyError> {
        let method = &options.sign_method;
        let algorithm: Algorithm = method.parse().map_err(|_| TokenKeyError::Method {
            method: method.clone(),
        })?;
        let bad_key = |path: &Path, what, source| TokenKeyError::Key {
            path: path.to_owned(),
            what,
            method: method.clone(),
            source,
        };
        let family = algorithm.family();
        let sign = match &options.priv_key {
            None => None,
            Some(path) => {
                let pem = read(path)?;
                let key = match family {
                    AlgorithmFamily::Hmac => Ok(EncodingKey::from_secret(&pem)),
                    AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&pem),
                    AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&pem),
                    AlgorithmFamily::Ed => EncodingKey::from_ed_pem(&pem),
                };
                Some(key.map_err(|source| bad_key(path, "private", source))?)
            }
        };
        // A shared secret may stand in either option.
        let secret = options.priv_key.as_ref();
        let public = match (family, &options.pub_key) {
            (AlgorithmFamily::Hmac, own) => secret.or(own.as_ref()),
            (_, own) => own.as_ref(),
        };
        let path = public.ok_or_else(|| TokenKeyError::NoPublicKey {
            method: method.clone(),
        })?;
        let pem = read(path)?;
        let check = match family {
            AlgorithmFamily::Hmac => Ok(DecodingKey::from_secret(&pem)),
            AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(&pem),
            AlgorithmFamily::Ec => DecodingKey::from_ec_pem(&pem),
            AlgorithmFamily::Ed => DecodingKey::from_ed_pem(&pem),
        };
        let check = check.map_err(|source| bad_key(path, "public", source))?;
        let sign = match (family, sign) {
            (AlgorithmFamily::Hmac, None) => Some(EncodingKey::from_secret(&pem)),
            (_, sign) => sign,
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_aud = false;
        let jwt = Self {
            header: Header::new(algorithm),
            validation,
            sign,
            check,
            ttl: options.ttl,
        };
        match jwt.encode(String::new(), 0, Duration::from_secs(60)) {
            Some(trial) if jwt.caller(&trial).is_none() => Err(TokenKeyError::Mismatch),
            None if jwt.sign.is_some() => Err(TokenKeyError::Mismatch),
            _ => Ok(jwt),
        }
    }

    fn encode(&self, username: String, revision: u64, ttl: Duration) -> Option<String> {
        let claims = Claims {
            username,
            revision,
            exp: get_current_timestamp().saturating_add(ttl.as_secs()),
        };
        encode(&self.header, &claims, self.sign.as_ref()?).ok()
    }

    /// A token for a user; `None` when this member holds no key to sign it with.
    pub(crate) fn sign(&self, user: &str, revision: u64) -> Option<String> {
        self.encode(user.to_owned(), revision, self.ttl)
    }

    /// Whom a token names; `None` when it is forged, malformed or over.
    pub(crate) fn caller(&self, token: &str) -> Option<Caller> {
        let claims = decode::<Claims>(token, &self.check, &self.validation)
            .ok()?
            .claims;
        Some(Caller {
            user: claims.username,
            revision: claims.revision,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str, ttl: u64) -> (tempfile::TempDir, Jwt) {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, text).unwrap();
        let jwt = Jwt::load(&JwtOptions {
            sign_method: "HS256".to_owned(),
            pub_key: None,
            priv_key: Some(path),
            ttl: Duration::from_secs(ttl),
        });
        (dir, jwt.unwrap())
    }

    #[test]
    fn a_token_names_its_user_until_it_ends() {
        let (_one, jwt) = secret("one secret", 300);
        let token = jwt.sign("alice", 7).unwrap();
        let alice = Caller {
            user: "alice".to_owned(),
            revision: 7,
        };
        assert_eq!(jwt.caller(&token), Some(alice));
        assert_eq!(jwt.caller("x.y.z"), None);
        let (_two, other) = secret("another secret", 300);
        assert_eq!(other.caller(&token), None, "signed by another key");
        let claims = Claims {
            username: "alice".to_owned(),
            revision: 7,
            exp: get_current_timestamp() - 1,
        };
        let past = encode(&jwt.header, &claims, jwt.sign.as_ref().unwrap()).unwrap();
        assert_eq!(jwt.caller(&past), None, "over");
    }
}
