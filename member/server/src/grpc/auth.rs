//! The Auth service.
//!
//! As in etcd, passwords are checked and hashed on the member that takes the request in, and only hashes go through
//! the log.

use std::sync::Arc;

use member_proto::etcdserverpb as pb;
use member_proto::etcdserverpb::auth_server::Auth;
use member_state::{
    AuthError, AuthRequest, Authenticate, ChangePassword, Error, Nothing, Op, Response as Applied,
    RoleName, UserAdd, UserName, UserRole,
};
use tonic::{Request, Response, Status};

use super::{convert, mismatch, not_written, refused};
use crate::auth::{Credentials, PasswordError, Tokens};
use crate::engine::Engine;
use crate::node::Node;

/// The Auth service.
pub(crate) struct AuthService<E: Engine>(pub(crate) Arc<Node<E>>);

fn denied(error: AuthError) -> Status {
    refused(&Error::Auth(error))
}

fn not_hashed(error: &PasswordError) -> Status {
    Status::unknown(error.to_string())
}

impl<E: Engine> AuthService<E> {
    /// Runs a change in the name of the sender; the header of its answer.
    async fn change(
        &self,
        credentials: Option<Credentials>,
        request: AuthRequest,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        match self
            .0
            .write_as(Op::Auth(request.into()), credentials)
            .await?
        {
            Applied::Auth { revision, .. } => Ok(Some(self.0.header(revision))),
            _ => Err(mismatch()),
        }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.0.header(self.0.store().revision()))
    }

    /// Whether a password is the user's, and the auth revision at which it was.
    async fn check_password(&self, name: &str, password: &str) -> Result<u64, Status> {
        let auth = self.0.store().auth();
        if !auth.enabled() {
            return Err(denied(AuthError::NotEnabled));
        }
        let user = auth
            .user(name)
            .ok_or_else(|| denied(AuthError::AuthFailed))?;
        if user.no_password {
            return Err(denied(AuthError::NoPasswordUser));
        }
        let passwords = &self.0.callers.passwords;
        if passwords.check(password.to_owned(), &user.password).await {
            Ok(auth.revision())
        } else {
            tracing::info!("user-name" = name, "invalid password");
            Err(denied(AuthError::AuthFailed))
        }
    }

    async fn token(&self, name: &str, revision: u64) -> Result<String, Status> {
        match &self.0.callers.tokens {
            Tokens::None => Err(denied(AuthError::AuthFailed)),
            Tokens::Jwt(jwt) => jwt.sign(name, revision).ok_or_else(|| {
                Status::unknown("auth: token signing attempted with verify-only key")
            }),
            Tokens::Simple => {
                let token_prefix = crate::auth::new_token_prefix()
                    .map_err(|_| Status::internal("etcdserver: the system has no randomness"))?;
                let request = AuthRequest::Authenticate(Authenticate {
                    name: name.to_owned(),
                    token_prefix,
                });
                let answer = self.0.write(Op::Auth(request.into())).await;
                match answer.map_err(|error| not_written(&error))? {
                    Applied::Auth { token, .. } => Ok(token),
                    _ => Err(mismatch()),
                }
            }
        }
    }
}

#[tonic::async_trait]
impl<E: Engine> Auth for AuthService<E> {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let header = self
            .change(credentials, AuthRequest::Enable(Nothing {}))
            .await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let header = self
            .change(credentials, AuthRequest::Disable(Nothing {}))
            .await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        _: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        self.0.linearize().await?;
        let auth = self.0.store().auth();
        Ok(Response::new(pb::AuthStatusResponse {
            header: self.header(),
            enabled: auth.enabled(),
            auth_revision: auth.revision(),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        self.0.linearize().await?;
        loop {
            let revision = self.check_password(&name, &password).await?;
            let token = self.token(&name, revision).await?;
            // The password may have changed since it was checked.
            if self.0.store().auth().revision() == revision {
                return Ok(Response::new(pb::AuthenticateResponse {
                    header: self.header(),
                    token,
                }));
            }
        }
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let credentials = self.0.credentials(&request);
        // Before a core is spent on the hash.
        self.0.authorize_admin(credentials.clone()).await?;
        let request = request.into_inner();
        let no_password = request.options.is_some_and(|options| options.no_password);
        let password = if no_password {
            Default::default()
        } else {
            let hashed = self.0.callers.passwords.hash(request.password).await;
            hashed.map_err(|error| not_hashed(&error))?
        };
        let add = AuthRequest::UserAdd(UserAdd {
            name: request.name,
            password,
            no_password,
        });
        let header = self.change(credentials, add).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let name = request.into_inner().name;
        self.0.linearize().await?;
        let own = |auth: &member_state::Auth, caller: &member_state::Caller| {
            let allowed = auth.may_manage(caller);
            if caller.user == name {
                Ok(())
            } else {
                Ok(allowed?)
            }
        };
        let reading = self.0.begin_read(credentials, own).await?;
        let auth = self.0.store().auth();
        let user = auth
            .user(&name)
            .ok_or_else(|| denied(AuthError::UserNotFound))?;
        self.0.end_read(&reading)?;
        Ok(Response::new(pb::AuthUserGetResponse {
            header: self.header(),
            roles: user.roles.clone(),
        }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.linearize().await?;
        self.0.authorize_admin(credentials).await?;
        let auth = self.0.store().auth();
        Ok(Response::new(pb::AuthUserListResponse {
            header: self.header(),
            users: auth.users().map(|(name, _)| name.to_owned()).collect(),
        }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let name = request.into_inner().name;
        let header = self
            .change(credentials, AuthRequest::UserDelete(UserName { name }))
            .await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.authorize_admin(credentials.clone()).await?;
        let request = request.into_inner();
        // As in etcd, an empty password locks the user out.
        let password = if request.password.is_empty() {
            Default::default()
        } else {
            let hashed = self.0.callers.passwords.hash(request.password).await;
            hashed.map_err(|error| not_hashed(&error))?
        };
        let change = AuthRequest::UserChangePassword(ChangePassword {
            name: request.name,
            password,
        });
        let header = self.change(credentials, change).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let pb::AuthUserGrantRoleRequest { user: name, role } = request.into_inner();
        let grant = AuthRequest::UserGrantRole(UserRole { name, role });
        let header = self.change(credentials, grant).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let pb::AuthUserRevokeRoleRequest { name, role } = request.into_inner();
        let revoke = AuthRequest::UserRevokeRole(UserRole { name, role });
        let header = self.change(credentials, revoke).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let role = request.into_inner().name;
        let header = self
            .change(credentials, AuthRequest::RoleAdd(RoleName { role }))
            .await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let name = request.into_inner().role;
        self.0.linearize().await?;
        let own = |auth: &member_state::Auth, caller: &member_state::Caller| {
            let allowed = auth.may_manage(caller);
            if auth.has_role(&caller.user, &name) {
                Ok(())
            } else {
                Ok(allowed?)
            }
        };
        let reading = self.0.begin_read(credentials, own).await?;
        let auth = self.0.store().auth();
        let role = auth
            .role(&name)
            .ok_or_else(|| denied(AuthError::RoleNotFound))?;
        self.0.end_read(&reading)?;
        Ok(Response::new(pb::AuthRoleGetResponse {
            header: self.header(),
            perm: convert::permissions(&name, role),
        }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let credentials = self.0.credentials(&request);
        self.0.linearize().await?;
        self.0.authorize_admin(credentials).await?;
        let auth = self.0.store().auth();
        Ok(Response::new(pb::AuthRoleListResponse {
            header: self.header(),
            roles: auth.roles().map(|(name, _)| name.to_owned()).collect(),
        }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let role = request.into_inner().role;
        let header = self
            .change(credentials, AuthRequest::RoleDelete(RoleName { role }))
            .await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let grant = convert::grant_permission(request.into_inner());
        let header = self
            .change(credentials, AuthRequest::RoleGrantPermission(grant))
            .await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse {
            header,
        }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let credentials = self.0.credentials(&request);
        let revoke = convert::revoke_permission(request.into_inner());
        let header = self
            .change(credentials, AuthRequest::RoleRevokePermission(revoke))
            .await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse {
            header,
        }))
    }
}
