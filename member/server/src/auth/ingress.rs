//! From a request's metadata to the caller, and the checks that services make where requests come in.
//!
//! A service takes the [`Credentials`] from the request and hands them to one call: `write_as` for what goes through the
//! log, `begin_read` and `end_read` around a read, `authorize_admin`, `authorize_user` or `authorize_read` for the rest.

use std::sync::Arc;

use member_state::{Auth, AuthError, Caller, Error, Op, Response};
use tonic::{Request, Status};

use super::{Tokens, simple};
use crate::engine::Engine;
use crate::grpc::refused;
use crate::node::Node;

/// The common name of the certificate that a connection's client showed.
#[derive(Clone, Debug)]
pub(crate) struct ClientName(pub(crate) Arc<str>);

/// What a request says of its sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    token: Option<String>,
    name: Option<ClientName>,
}

impl Credentials {
    /// Source: etcd 3.6, `auth/store.go`. A request of the JSON gateway comes over a connection of its own, whose
    /// certificate is the server's.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let metadata = request.metadata();
        let token = metadata
            .get("token")
            .or_else(|| metadata.get("authorization"))
            .map(|value| String::from_utf8_lossy(value.as_encoded_bytes()).into_owned());
        let by_gateway = metadata.contains_key("grpcgateway-accept");
        let name = request.extensions().get::<ClientName>();
        Self {
            token,
            name: name.filter(|_| !by_gateway).cloned(),
        }
    }
}

/// A read under way: its answer counts if the users are still those that it was checked against.
#[must_use]
pub(crate) struct Reading {
    /// The auth revision it was checked at; 0 when it was not.
    revision: u64,
}

fn denied(error: AuthError) -> Status {
    refused(&Error::Auth(error))
}

fn invalid_token() -> Status {
    Status::unauthenticated("etcdserver: invalid auth token")
}

impl<E: Engine> Node<E> {
    /// Whether calls are checked.
    pub(crate) fn auth_enabled(&self) -> bool {
        self.replica.auth_enabled()
    }

    /// What a request says of its sender; nothing while nobody asks.
    pub(crate) fn credentials<T>(&self, request: &Request<T>) -> Option<Credentials> {
        self.auth_enabled().then(|| Credentials::of(request))
    }

    /// Who sent a request: nobody while authentication is off, or when it does not say.
    pub(crate) async fn caller(&self, credentials: Option<&Credentials>) -> Result<Caller, Status> {
        let Some(credentials) = credentials.filter(|_| self.auth_enabled()) else {
            return Ok(Caller::default());
        };
        if let Some(token) = &credentials.token {
            return self.caller_by_token(token).await.ok_or_else(invalid_token);
        }
        match &credentials.name {
            Some(name) if self.callers.by_certificate => Ok(Caller {
                user: name.0.to_string(),
                revision: self.store().auth().revision(),
            }),
            _ => Ok(Caller::default()),
        }
    }

    async fn caller_by_token(&self, token: &str) -> Option<Caller> {
        match &self.callers.tokens {
            Tokens::None => None,
            Tokens::Jwt(jwt) => jwt.caller(token),
            Tokens::Simple => {
                // The entry that made it known may be on its way here.
                let known = self.replica.wait_applied(simple::index(token)?);
                tokio::time::timeout(self.patience, known).await.ok()?;
                Some(Caller {
                    user: self.replica.tokens.user(token)?,
                    revision: self.store().auth().revision(),
                })
            }
        }
    }

    /// Writes in the name of a request's sender.
    pub(crate) async fn write_as(
        &self,
        op: Op,
        credentials: Option<Credentials>,
    ) -> Result<Response, Status> {
        let caller = self.caller(credentials.as_ref()).await?;
        self.write_by(op, caller)
            .await
            .map_err(|error| crate::grpc::not_written(&error))
    }

    /// Checks a read before it is done. Linearizable reads pass the barrier first, so that they see the users of their
    /// moment too.
    pub(crate) async fn begin_read(
        &self,
        credentials: Option<Credentials>,
        check: impl FnOnce(&Auth, &Caller) -> Result<(), Error>,
    ) -> Result<Reading, Status> {
        if !self.auth_enabled() {
            return Ok(Reading { revision: 0 });
        }
        let caller = self.caller(credentials.as_ref()).await?;
        check(&self.store().auth(), &caller).map_err(|error| refused(&error))?;
        Ok(Reading {
            revision: caller.revision,
        })
    }

    /// Refuses what was read if users or roles changed meanwhile; clients ask again. The sender of a token whose
    /// rights were taken away must not see what was written since.
    pub(crate) fn end_read(&self, reading: &Reading) -> Result<(), Status> {
        if reading.revision != 0 && reading.revision != self.store().auth().revision() {
            return Err(denied(AuthError::OldRevision));
        }
        Ok(())
    }

    /// Refuses all but users with the role `root`.
    pub(crate) async fn authorize_admin(
        &self,
        credentials: Option<Credentials>,
    ) -> Result<(), Status> {
        if !self.auth_enabled() {
            return Ok(());
        }
        let caller = self.caller(credentials.as_ref()).await?;
        self.store().auth().may_manage(&caller).map_err(denied)
    }

    /// Refuses those who do not say who they are.
    pub(crate) async fn authorize_user(
        &self,
        credentials: Option<Credentials>,
    ) -> Result<(), Status> {
        if !self.auth_enabled() {
            return Ok(());
        }
        let caller = self.caller(credentials.as_ref()).await?;
        if caller.revision == 0 {
            return Err(denied(AuthError::UserEmpty));
        }
        Ok(())
    }
}
