//! Asking before data are lost.

use std::io::{IsTerminal, Write};

use crate::error::Error;

/// Has the cluster's name typed by somebody who can see what is asked. `doing` and `done` name the action; `effect` is a sentence.
pub(super) fn confirm(name: &str, doing: &str, done: &str, effect: &str) -> Result<(), Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::refused(
            format!(
                "{doing} cluster {name} needs a confirmation, and standard input is not a terminal"
            ),
            format!("pass --yes to be not asked: {effect}"),
        ));
    }
    let mut stderr = std::io::stderr().lock();
    let ask = || Error::io("ask on", std::path::Path::new("the terminal"));
    write!(stderr, "This {effect}. Type its name to go on: ").map_err(ask())?;
    stderr.flush().map_err(ask())?;
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).map_err(ask())?;
    if typed.trim() == name {
        return Ok(());
    }
    Err(Error::refused(
        format!("cluster {name} was not {done}: the typed name differs"),
        "type the cluster's name exactly, or pass --yes",
    ))
}
