//! One file per verb: arguments in, exit code out.

pub mod adopt;
pub mod agent;
pub mod audit;
pub mod backup;
pub mod bench;
pub mod change;
pub mod check;
pub mod completions;
mod confirm;
pub mod down;
pub mod env;
pub mod exec;
pub mod init;
pub mod lab;
pub mod list;
pub mod logs;
pub mod man;
pub mod plan;
pub mod recover;
pub mod render;
pub mod restore;
pub mod rotate;
pub mod run;
pub mod schema;
pub mod serve;
pub mod ssh;
pub mod status;
pub mod test;
pub mod up;
pub mod validate;

use crate::cli::Verb;
use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Runs a verb.
///
/// # Errors
/// What the verb could not do; the exit code is [`Error::exit_code`].
pub fn run(verb: &Verb, context: &Context) -> Result<ExitCode, Error> {
    match verb {
        Verb::Init(args) => init::run(args, context),
        Verb::Validate(args) => validate::run(args, context),
        Verb::Render(args) => render::run(args, context),
        Verb::Check(args) => check::run(args, context),
        Verb::Schema => schema::run(context),
        Verb::Plan(args) => plan::run(args, context),
        Verb::Up(args) => up::run(args, context),
        Verb::Restart(args) => change::restart(args, context),
        Verb::Replace(args) => change::replace(args, context),
        Verb::MoveLeader(args) => change::move_leader(args, context),
        Verb::Audit(args) => audit::run(args, context),
        Verb::Adopt(args) => adopt::run(args, context),
        Verb::Recover(args) => recover::run(args, context),
        Verb::Upgrade(args) => change::upgrade(args, context),
        Verb::Rotate(args) => rotate::run(args, context),
        Verb::Backup(args) => backup::run(args, context),
        Verb::Restore(args) => restore::run(args, context),
        Verb::Status(args) => status::run(args, context),
        Verb::Env(args) => env::run(args, context),
        Verb::List => list::run(context),
        Verb::Logs(args) => logs::run(args, context),
        Verb::Exec(args) => exec::run(args, context),
        Verb::Ssh(args) => ssh::run(args, context),
        Verb::Run(args) => self::run::run(args, context),
        Verb::Down(args) => down::run(args, context),
        Verb::Test(args) => test::run(args, context),
        Verb::Bench(args) => bench::run(args, context),
        Verb::Lab(args) => lab::run(args, context),
        Verb::Serve(args) => serve::run(args),
        Verb::Agent => agent::run(),
        Verb::Completions(args) => completions::run(args, context),
        Verb::Man => man::run(context),
    }
}
