//! `agent`: the far end of an ssh connection that another `provision` has made.

use bytes::Bytes;

use crate::error::{Error, ExitCode};
use crate::host::local::{
    AwaitEnd, Disable, EnsureUser, KeepCopy, MakeDirs, ReadCopy, Remove, RestoreSnapshot, SetAside,
    StartMember, StopMember, Tail, TakeLock,
};
use crate::host::remote::{Ask, answer, serve};
use crate::observe::MemberSight;
use crate::runtime::runtime;

/// Runs `agent`.
///
/// # Errors
/// The connection broke.
pub fn run() -> Result<ExitCode, Error> {
    runtime()?.block_on(serve(route))?;
    Ok(ExitCode::Ok)
}

async fn route(name: String, body: Bytes) -> Result<Vec<u8>, Error> {
    match name.as_str() {
        AwaitEnd::NAME => answer::<AwaitEnd>(&body).await,
        Disable::NAME => answer::<Disable>(&body).await,
        EnsureUser::NAME => answer::<EnsureUser>(&body).await,
        KeepCopy::NAME => answer::<KeepCopy>(&body).await,
        MakeDirs::NAME => answer::<MakeDirs>(&body).await,
        MemberSight::NAME => answer::<MemberSight>(&body).await,
        ReadCopy::NAME => answer::<ReadCopy>(&body).await,
        Remove::NAME => answer::<Remove>(&body).await,
        RestoreSnapshot::NAME => answer::<RestoreSnapshot>(&body).await,
        SetAside::NAME => answer::<SetAside>(&body).await,
        StartMember::NAME => answer::<StartMember>(&body).await,
        StopMember::NAME => answer::<StopMember>(&body).await,
        Tail::NAME => answer::<Tail>(&body).await,
        TakeLock::NAME => answer::<TakeLock>(&body).await,
        _ => Err(Error::because("there is no such question", name)),
    }
}
