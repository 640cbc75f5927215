//! `l7lb run`: serves a configuration file.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::{check, logging};
use crate::control::reload::Source;
use crate::server::{self, Start};

/// Options for serving. The flags are those of Pingora.
#[derive(Args)]
pub(super) struct Arguments {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// Run in the background.
    #[arg(short, long)]
    daemon: bool,
    /// Take over the listening sockets of the running process. Send that process SIGQUIT to start the handover.
    #[arg(short, long)]
    upgrade: bool,
    /// Check the configuration and exit.
    #[arg(short, long)]
    test: bool,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let Some(file) = &arguments.conf else {
        return Err(Failure::usage(
            "no configuration file is given: `l7lb run --conf FILE`, or `l7lb demo` to run a demo without one",
        ));
    };
    if arguments.test {
        return check::test(file);
    }
    // Before it is read, so that a change meanwhile is noticed.
    let source = Source::of(file);
    let loaded = check::load(file)?;
    let log = logging::start()?;
    let start = Start { daemon: arguments.daemon, upgrade: arguments.upgrade, source: Some(source), log };
    server::run(loaded, start).map_err(Failure::runtime)
}
