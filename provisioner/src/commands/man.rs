//! `man`: prints the manual page, with a section for each verb.

use clap::CommandFactory;

use crate::cli::Cli;
use crate::context::Context;
use crate::error::{Error, ExitCode};

/// Runs `man`.
///
/// # Errors
/// Standard output is full.
pub fn run(context: &Context) -> Result<ExitCode, Error> {
    let fault = |error| Error::because("cannot make the manual page", error);
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .map_err(fault)?;
    for verb in command
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help")
    {
        let man = clap_mangen::Man::new(verb.clone());
        page.extend_from_slice(format!(".SH {}\n", verb.get_name().to_uppercase()).as_bytes());
        man.render_synopsis_section(&mut page).map_err(fault)?;
        man.render_description_section(&mut page).map_err(fault)?;
        man.render_options_section(&mut page).map_err(fault)?;
    }
    context.output.raw(&page)?;
    Ok(ExitCode::Ok)
}
