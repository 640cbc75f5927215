//! `l7lb explain`: shows route, pool and backend of a request, and why, without sending it.

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use clap::Args;
use http::Method;

use super::failure::Failure;
use super::process::ProcessArguments;
use super::{check, table};
use crate::decision::example::ExampleQuery;
use crate::decision::explanation::Explanation;
use crate::decision::snapshot::Snapshot;

/// The request and the source of the decision.
#[derive(Args)]
pub(super) struct Arguments {
    /// The request: a method (default GET) and a URL, such as `GET https://example.com/api`.
    request: String,
    /// A header, such as 'Cookie: a=b'; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The address of the peer.
    #[arg(long, value_name = "ADDRESS", default_value_t = crate::decision::example::EXAMPLE_CLIENT)]
    from: IpAddr,
    /// Query the running process, with the state of limits and backends and the likely pick. Without it the file
    /// at `--conf` is used.
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    process: ProcessArguments,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let mut headers = Vec::with_capacity(arguments.headers.len());
    for field in &arguments.headers {
        let (name, value) =
            field.split_once(':').ok_or_else(|| Failure::usage(format!("`{field}` is not `Name: value`")))?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let question = ExampleQuery { request: arguments.request.clone(), headers, from: Some(arguments.from) };
    let explanation = match arguments.process.conf() {
        _ if arguments.live || arguments.process.has_server() => {
            arguments.process.client()?.send(Method::POST, "/explain", &question)?
        }
        Some(conf) => by_file(&question, conf)?,
        None => {
            return Err(Failure::usage("specify a file with `--conf`, or use `--live` for the running process"));
        }
    };
    if arguments.process.json { table::json(&explanation) } else { table::print(&explanation.to_string()) }
}

#[expect(clippy::disallowed_methods, reason = "limits need a start time; none is evaluated")]
fn by_file(question: &ExampleQuery, conf: &Path) -> Result<Explanation, Failure> {
    let example = question.example().map_err(Failure::usage)?;
    let checked = check::load(conf)?.checked;
    let snapshot = Snapshot::build(&checked, None, Instant::now()).map_err(Failure::usage)?;
    Ok(Explanation::new(example.outcome(&snapshot, &checked.listeners), &snapshot))
}
