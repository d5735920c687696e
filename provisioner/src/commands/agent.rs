//! `agent`: the far end of an ssh connection that another `provision` has made.

use bytes::Bytes;

use crate::error::{Error, ExitCode};
use crate::host::local::{
    AwaitEnd, Clock, ClosePorts, Disable, EnsureUser, KeepCopy, MakeDirs, OpenPorts, Reach,
    ReadCopy, Remove, Resolve, RestoreSnapshot, SetAside, StartMember, StopMember, Survey, Tail,
    TakeLock,
};
use crate::host::remote::{Ask, answer, serve};
use crate::observe::MemberSight;
use crate::preflight::AskRecords;
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
        AskRecords::NAME => answer::<AskRecords>(&body).await,
        Clock::NAME => answer::<Clock>(&body).await,
        ClosePorts::NAME => answer::<ClosePorts>(&body).await,
        EnsureUser::NAME => answer::<EnsureUser>(&body).await,
        KeepCopy::NAME => answer::<KeepCopy>(&body).await,
        MakeDirs::NAME => answer::<MakeDirs>(&body).await,
        MemberSight::NAME => answer::<MemberSight>(&body).await,
        ReadCopy::NAME => answer::<ReadCopy>(&body).await,
        Remove::NAME => answer::<Remove>(&body).await,
        RestoreSnapshot::NAME => answer::<RestoreSnapshot>(&body).await,
        OpenPorts::NAME => answer::<OpenPorts>(&body).await,
        Reach::NAME => answer::<Reach>(&body).await,
        Resolve::NAME => answer::<Resolve>(&body).await,
        SetAside::NAME => answer::<SetAside>(&body).await,
        StartMember::NAME => answer::<StartMember>(&body).await,
        StopMember::NAME => answer::<StopMember>(&body).await,
        Survey::NAME => answer::<Survey>(&body).await,
        Tail::NAME => answer::<Tail>(&body).await,
        TakeLock::NAME => answer::<TakeLock>(&body).await,
        _ => Err(Error::because("there is no such question", name)),
    }
}
