//! etcd's gRPC services over the member.

mod auth;
mod caller;
mod cluster;
mod convert;
mod election;
mod health;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod queue;
mod watch;

pub(crate) use auth::AuthService;
pub(crate) use cluster::ClusterService;
pub(crate) use election::ElectionService;
pub(crate) use health::HealthService;
pub(crate) use kv::KvService;
pub(crate) use lease::LeaseService;
pub(crate) use lock::LockService;
pub(crate) use maintenance::MaintenanceService;
pub(crate) use watch::WatchService;

use member_state::AuthError;
use tonic::{Code, Status};

use crate::write::WriteError;

/// etcd's code for a refusal by the state. Sources: etcd 3.6, `rpctypes/error.go`.
fn code(error: &member_state::Error) -> Code {
    use member_state::Error;
    match error {
        Error::EmptyKey
        | Error::KeyNotFound
        | Error::ValueProvided
        | Error::LeaseProvided
        | Error::TooManyOps
        | Error::DuplicateKey
        | Error::InvalidSortOption => Code::InvalidArgument,
        Error::Compacted | Error::FutureRevision | Error::LeaseTtlTooLarge => Code::OutOfRange,
        Error::LeaseExist => Code::FailedPrecondition,
        Error::LeaseNotFound => Code::NotFound,
        Error::NoSpace => Code::ResourceExhausted,
        Error::Auth(error) => auth_code(*error),
        Error::CorruptAlarm | Error::Corrupt(_) => Code::DataLoss,
        Error::Backend(_) => Code::Unknown,
    }
}

fn auth_code(error: AuthError) -> Code {
    match error {
        AuthError::UserEmpty
        | AuthError::RoleEmpty
        | AuthError::AuthFailed
        | AuthError::PermissionNotGiven
        | AuthError::OldRevision
        | AuthError::InvalidManagement => Code::InvalidArgument,
        AuthError::PermissionDenied => Code::PermissionDenied,
        AuthError::RootUserNotExist
        | AuthError::RootRoleNotExist
        | AuthError::UserAlreadyExists
        | AuthError::UserNotFound
        | AuthError::RoleAlreadyExists
        | AuthError::RoleNotFound
        | AuthError::RoleNotGranted
        | AuthError::PermissionNotGranted
        | AuthError::NotEnabled => Code::FailedPrecondition,
        AuthError::NoPasswordUser => Code::Unknown,
    }
}

/// The state answered a request of one kind with the answer of another: a bug.
fn mismatch() -> Status {
    Status::internal("etcdserver: the state gave an answer of another kind")
}

/// What a learner answers to everything but status, snapshot and serializable ranges.
pub(crate) fn not_for_learners() -> Status {
    Status::failed_precondition("etcdserver: rpc not supported for learner")
}

pub(crate) fn refused(error: &member_state::Error) -> Status {
    Status::new(code(error), error.text())
}

pub(crate) fn not_written(error: &WriteError) -> Status {
    match error {
        WriteError::State(error) => refused(error),
        WriteError::TooLarge => Status::invalid_argument(error.to_string()),
        WriteError::TooManyRequests => Status::resource_exhausted(error.to_string()),
        WriteError::TimedOut | WriteError::LeaderLost | WriteError::Stopped => {
            Status::unavailable(error.to_string())
        }
    }
}
