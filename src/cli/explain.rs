//! `l7lb explain`: where a request would go, and why, without sending it.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::{Failure, check};
use crate::decision::example::Example;
use crate::decision::explanation::Explanation;
use crate::snapshot::Snapshot;

/// The request, and the file that decides.
#[derive(Args)]
pub(super) struct Arguments {
    /// The request: a method (GET unless told) and a URL, such as `GET https://example.com/api`.
    request: String,
    /// A header field, such as 'Cookie: a=b'; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The address of the peer that sends it.
    #[arg(long, value_name = "ADDRESS", default_value_t = crate::decision::example::SOMEBODY)]
    from: IpAddr,
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    conf: PathBuf,
    /// For programs: one object.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::disallowed_methods, reason = "limits begin at some instant; none is asked")]
pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let mut example = Example::parse(&arguments.request).map_err(Failure::usage)?.from(arguments.from);
    for field in &arguments.headers {
        let (name, value) =
            field.split_once(':').ok_or_else(|| Failure::usage(format!("`{field}` is not `Name: value`")))?;
        example = example.with_header(name.trim(), value).map_err(Failure::usage)?;
    }
    let checked = check::load(&arguments.conf)?.checked;
    let snapshot = Snapshot::build(&checked, None, Instant::now()).map_err(Failure::usage)?;
    let outcome = example.outcome(&snapshot, &checked.listeners);
    let explanation = Explanation::new(outcome, &snapshot, &checked);
    let mut output = std::io::stdout().lock();
    let written = match arguments.json {
        true => writeln!(output, "{:#}", explanation.to_json()),
        false => write!(output, "{explanation}"),
    };
    written.map_err(|e| Failure::runtime(e.to_string()))
}
