//! `l7lb run`: serves a configuration file.

use super::{Failure, RunArguments, check, logging};
use crate::control::reload::Source;
use crate::server::{self, Start};

pub(super) fn main(arguments: &RunArguments) -> Result<(), Failure> {
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
