//! `l7lb plan`: shows what a configuration would change in a running process.

use std::path::PathBuf;

use clap::Args;
use http::Method;

use super::failure::Failure;
use super::process::ProcessArguments;
use super::table;
use crate::base::text_file;
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
    let text = text_file::read(&arguments.file).map_err(|problem| Failure::usage(format!("{file}: {problem}")))?;
    let plan: Plan = arguments.process.client()?.send(Method::POST, "/plan", &Draft { file, text })?;
    if arguments.process.json { table::json(&plan) } else { table::print(&plan.to_string()) }
}
