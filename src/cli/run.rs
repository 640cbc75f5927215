//! `l7lb run`: serve as a file says.

use super::check::{load, summary};
use super::{Failure, RunArguments, logging};
use crate::reload::Source;
use crate::server::{self, Start};

pub(super) fn main(arguments: &RunArguments) -> Result<(), Failure> {
    let Some(file) = &arguments.conf else {
        return Err(Failure::usage(
            "no configuration file is given: `l7lb run --conf FILE`, or `l7lb demo` to try it without one",
        ));
    };
    let source = Source::of(file);
    let checked = load(file)?;
    if arguments.test {
        eprintln!("{}", summary(file, &checked));
        return Ok(());
    }
    logging::start();
    let start = Start { daemon: arguments.daemon, upgrade: arguments.upgrade, source: Some(source) };
    server::run(checked, start).map_err(Failure::runtime)
}
