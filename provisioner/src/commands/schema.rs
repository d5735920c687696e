//! `schema`: prints the JSON Schema of topology files.

use crate::context::Context;
use crate::error::{Error, ExitCode};
use crate::topology;

/// Runs `schema`.
///
/// # Errors
/// Standard output is full.
pub fn run(context: &Context) -> Result<ExitCode, Error> {
    let text = serde_json::to_string_pretty(&topology::json_schema())
        .map_err(|error| Error::because("cannot encode the schema", error))?;
    context.output.raw(format!("{text}\n").as_bytes())?;
    Ok(ExitCode::Ok)
}
