//! `l7lb plan`: what a configuration would do in a running process, before it is in force.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use http::Method;

use super::Failure;
use super::process::Asked;
use crate::plan::Plan;
use crate::reload::Draft;

/// Which configuration, and which process.
#[derive(Args)]
pub(super) struct Arguments {
    /// The file with the new configuration.
    file: PathBuf,
    #[command(flatten)]
    asked: Asked,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let file = arguments.file.display().to_string();
    let text =
        std::fs::read_to_string(&arguments.file).map_err(|e| Failure::usage(format!("cannot read {file}: {e}")))?;
    let plan: Plan = arguments.asked.client()?.send(Method::POST, "/plan", &Draft { file, text })?;
    let mut output = std::io::stdout().lock();
    let written = match arguments.asked.json {
        true => serde_json::to_string_pretty(&plan)
            .map_err(std::io::Error::other)
            .and_then(|text| writeln!(output, "{text}")),
        false => write!(output, "{plan}"),
    };
    written.map_err(|e| Failure::runtime(e.to_string()))
}
