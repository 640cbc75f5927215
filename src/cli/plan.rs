//! `l7lb plan`: shows what a configuration would change in a running process.

use std::path::PathBuf;

use clap::Args;
use http::Method;

use super::failure::Failure;
use super::process::ProcessArguments;
use super::table;
use crate::control::plan::Plan;
use crate::control::reload::Draft;

/// The configuration and the process.
#[derive(Args)]
pub(super) struct Arguments {
    /// The file with the new configuration.
    file: PathBuf,
    #[command(flatten)]
    process: ProcessArguments,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let file = arguments.file.display().to_string();
    let text =
        std::fs::read_to_string(&arguments.file).map_err(|e| Failure::usage(format!("cannot read {file}: {e}")))?;
    let plan: Plan = arguments.process.client()?.send(Method::POST, "/plan", &Draft { file, text })?;
    if arguments.process.json { table::json(&plan) } else { table::print(&plan.to_string()) }
}
