//! The `provision` program.

use clap::Parser;
use provisioner::{cli::Cli, commands, context::Context, output::Output};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.global.format, cli.global.quiet, cli.global.verbose);
    let result = Context::new(&cli.global, output.clone())
        .and_then(|context| commands::run(&cli.verb, &context));
    match result {
        Ok(code) => code.into(),
        Err(error) => {
            output.error(&error);
            error.exit_code().into()
        }
    }
}
