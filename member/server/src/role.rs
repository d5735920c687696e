//! What a process is: a member of a cluster, or a v2 proxy in front of one.
//!
//! Its flags and its data directory say so together. etcd goes by the directory alone once there is one, and passes
//! over the flags that ask for the other in silence; here that is an error.

use std::io;

use member_flags::{Flags, ProxyMode};

use crate::engine::Engine;
use crate::member::{Member, MemberError};
use crate::proxy::{self, Proxy};

/// A running process of either kind.
pub enum Server<E: Engine> {
    /// A member.
    Member(Box<Member<E>>),
    /// A proxy.
    Proxy(Proxy),
}

impl<E: Engine> Server<E> {
    /// Starts what the flags and the data directory ask for. A member that finds the discovery cluster full becomes a
    /// proxy of it, if the flags say so.
    ///
    /// # Errors
    /// Those of [`Member::start`] and [`Proxy::start`], and a directory of the other kind.
    pub async fn start(
        flags: &Flags,
        open_engine: impl FnOnce() -> io::Result<E>,
    ) -> Result<Self, MemberError> {
        flags.check_settings().map_err(MemberError::Settings)?;
        let role = Role::of(flags)?;
        if role == Role::Proxy {
            return Proxy::start(flags).await.map(Self::Proxy);
        }
        match Member::start(flags, open_engine).await {
            Err(MemberError::Discovery(error))
                if error.is_full() && role == Role::Newcomer && flags.falls_back_to_proxy() =>
            {
                tracing::warn!("fallback-proxy" = "proxy", %error, "discovery cluster is full, falling back to proxy");
                Proxy::start(flags).await.map(Self::Proxy)
            }
            started => started.map(|member| Self::Member(Box::new(member))),
        }
    }

    /// Waits until it cannot go on; why. A proxy always can.
    pub async fn failed(&self) -> MemberError {
        match self {
            Self::Member(member) => member.failed().await,
            Self::Proxy(_) => std::future::pending().await,
        }
    }

    /// Stops, and lets requests in flight finish.
    pub async fn stop(self) {
        match self {
            Self::Member(member) => member.stop().await,
            Self::Proxy(proxy) => proxy.stop().await,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Member,
    Proxy,
    /// A member to be.
    Newcomer,
}

impl Role {
    fn of(flags: &Flags) -> Result<Self, MemberError> {
        let dir = flags.effective_data_dir();
        let wants_proxy = flags.proxy.mode != ProxyMode::Off;
        match (dir.join("member").exists(), proxy::dir(flags).exists()) {
            (true, true) => Err(MemberError::BothRoles { dir }),
            (true, false) if wants_proxy => Err(MemberError::NotAProxy { dir }),
            (true, false) => Ok(Self::Member),
            (false, true) if !flags.may_be_proxy() => Err(MemberError::NotAMember { dir }),
            (false, true) => Ok(Self::Proxy),
            (false, false) if wants_proxy => Ok(Self::Proxy),
            (false, false) => Ok(Self::Newcomer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn role(made: &[&str], set: &[(&str, &str)]) -> Result<Role, String> {
        let dir = tempfile::TempDir::new().unwrap();
        for name in made {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let mut flags = Flags {
            data_dir: Some(dir.path().to_owned()),
            ..Flags::default()
        };
        for (name, value) in set {
            flags.set(name, value).unwrap();
        }
        Role::of(&flags).map_err(|error| error.to_string())
    }

    #[test]
    fn the_directory_and_the_flags_agree_on_what_it_is() {
        let on = [("proxy", "on")];
        let falls_back = [
            ("discovery", "http://127.0.0.1:1/t"),
            ("discovery-fallback", "proxy"),
        ];
        assert_eq!(role(&[], &[]), Ok(Role::Newcomer));
        assert_eq!(role(&[], &on), Ok(Role::Proxy));
        assert_eq!(role(&[], &falls_back), Ok(Role::Newcomer));
        assert_eq!(role(&["member"], &[]), Ok(Role::Member));
        assert_eq!(role(&["member"], &falls_back), Ok(Role::Member));
        assert_eq!(role(&["proxy"], &[("proxy", "readonly")]), Ok(Role::Proxy));
        assert_eq!(role(&["proxy"], &falls_back), Ok(Role::Proxy));
        for (made, set, text) in [
            (["member"].as_slice(), on.as_slice(), "is a member's"),
            (&["proxy"], &[], "is a proxy's"),
            (
                &["member", "proxy"],
                &[],
                "invalid datadir; both member and proxy directories exist",
            ),
        ] {
            let error = role(made, set).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
