//! `l7lb why`, `slow`, `errors` and `tap`: single requests of a running process.

use std::fmt::Write;
use std::net::IpAddr;

use clap::Args;

use super::failure::Failure;
use super::process::ProcessArguments;
use super::table::{self, Table, or_dash};
use crate::base::units::Period;
use crate::control::api::client::segment;
use crate::control::api::requests::{LiveRequest, RequestQuery, RequestStory, Requests, TAP};
use crate::observe::recorder::{EndedBy, Kept, Timeline};

/// A request.
#[derive(Args)]
pub(super) struct WhyArguments {
    /// The request id: in the access log, in `X-Request-Id`, and on error pages.
    request_id: String,
    #[command(flatten)]
    process: ProcessArguments,
}

/// A selection of requests.
#[derive(Args)]
struct Selection {
    /// Of this route.
    #[arg(long)]
    route: Option<String>,
    /// With this status code or class, such as `503` or `5xx`.
    #[arg(long)]
    status: Option<String>,
    /// With this cause.
    #[arg(long)]
    cause: Option<String>,
    /// Of this client.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// That took longer, such as `200ms`.
    #[arg(long, value_name = "PERIOD", value_parser = period)]
    slower: Option<Period>,
}

/// Which kept requests are listed.
#[derive(Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    selection: Selection,
    /// That arrived in this last period, such as `10m`.
    #[arg(long, value_name = "PERIOD", value_parser = period)]
    since: Option<Period>,
    /// How many.
    #[arg(short, value_name = "NUMBER", default_value_t = 20)]
    n: usize,
    #[command(flatten)]
    process: ProcessArguments,
}

/// Which live requests are shown.
#[derive(Args)]
pub(super) struct TapArguments {
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    process: ProcessArguments,
}

fn period(text: &str) -> Result<Period, String> {
    humantime::parse_duration(text).map(Period).map_err(|e| e.to_string())
}

impl Selection {
    fn query(&self) -> RequestQuery {
        RequestQuery {
            route: self.route.clone(),
            status: self.status.clone(),
            cause: self.cause.clone(),
            client: self.client,
            slower: self.slower,
            ..RequestQuery::default()
        }
    }
}

/// The query of a path.
fn query(query: &RequestQuery) -> Result<String, Failure> {
    let fields = serde_json::to_value(query).map_err(|e| Failure::runtime(e.to_string()))?;
    let fields = fields.as_object().into_iter().flatten();
    let text = fields.map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={}", segment(&value))
    });
    Ok(text.collect::<Vec<_>>().join("&"))
}

pub(super) fn why(arguments: &WhyArguments) -> Result<(), Failure> {
    let story: RequestStory =
        arguments.process.client()?.get(&format!("/requests/{}", segment(&arguments.request_id)))?;
    if arguments.process.json {
        return table::json(&story);
    }
    let mut text = timeline(&story.timeline);
    let since = if story.replaced { "it has replaced the one of then" } else { "the same as then" };
    writeln!(text, "\nconfiguration  generation {} since {}: {since}", story.generation, story.applied).ok();
    match &story.now {
        Some(now) => write!(text, "\nnow, without its query, headers and body:\n{now}").ok(),
        None => writeln!(text, "\nwhat would happen now is not known: the request cannot be repeated").ok(),
    };
    table::print(&text)
}

pub(super) fn slow(arguments: &ListArguments) -> Result<(), Failure> {
    list(arguments, RequestQuery { slowest: true, ..arguments.selection.query() })
}

pub(super) fn errors(arguments: &ListArguments) -> Result<(), Failure> {
    list(arguments, RequestQuery { kept: Some(Kept::Failed), ..arguments.selection.query() })
}

fn list(arguments: &ListArguments, wanted: RequestQuery) -> Result<(), Failure> {
    let wanted = RequestQuery { since: arguments.since, n: Some(arguments.n), ..wanted };
    let found: Requests = arguments.process.client()?.get(&format!("/requests?{}", query(&wanted)?))?;
    if arguments.process.json {
        return table::json(&found);
    }
    let mut table = Table::new(["time", "status", "ms", "route", "backend", "cause", "request", "request id"]);
    for request in &found.requests {
        table.row([
            request.time.to_string(),
            status(request),
            format!("{:.3}", request.duration_ms),
            or_dash(request.route.as_ref()),
            or_dash(request.attempts.last().map(|attempt| &attempt.backend)),
            or_dash(Some(&request.cause).filter(|cause| !cause.is_empty())),
            format!("{} {}{}", request.method, request.host, request.path),
            request.request_id.clone(),
        ]);
    }
    table.print()
}

pub(super) fn tap(arguments: &TapArguments) -> Result<(), Failure> {
    let path = format!("{TAP}?{}", query(&arguments.selection.query())?);
    let mut failed = None;
    arguments.process.client()?.lines(&path, |line| {
        let shown = show_live(line, arguments.process.json);
        shown.unwrap_or_else(|failure| {
            failed = Some(failure);
            false
        })
    })?;
    failed.map_or(Ok(()), Err)
}

/// Shows a live request. Returns whether the output is still read.
fn show_live(line: &[u8], json: bool) -> Result<bool, Failure> {
    if line.is_empty() {
        return Ok(true);
    }
    if json {
        return table::is_read(&format!("{}\n", String::from_utf8_lossy(line)));
    }
    let LiveRequest { timeline, lost } = serde_json::from_slice(line).map_err(|e| Failure::runtime(e.to_string()))?;
    if lost > 0 {
        eprintln!("l7lb: {lost} requests are not shown, because they arrived faster than they were printed");
    }
    let backend = timeline.attempts.last().map_or("-", |attempt| &attempt.backend);
    let cause = if timeline.cause.is_empty() { String::new() } else { format!("  {}", timeline.cause) };
    table::is_read(&format!(
        "{}  {:>4}  {:>10.3} ms  {}  {} {}{}  {backend}{cause}  {}\n",
        timeline.time,
        status(&timeline),
        timeline.duration_ms,
        timeline.client,
        timeline.method,
        timeline.host,
        timeline.path,
        timeline.request_id,
    ))
}

fn status(request: &Timeline) -> String {
    if request.status == 0 { "-".to_owned() } else { request.status.to_string() }
}

/// A timeline as text.
fn timeline(request: &Timeline) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let Timeline { method, host, path, protocol, client, listener, .. } = request;
    writeln!(text, "request        {method} {host}{path} ({protocol}), id {}", request.request_id).ok();
    writeln!(text, "arrived        {} from {client} at listener {listener}", request.time).ok();
    if let Some(connection) = &request.connection {
        let tls = connection.tls.as_ref().map_or_else(
            || "without TLS".to_owned(),
            |version| format!("TLS {version}, handshake {:.3} ms", connection.handshake_ms.unwrap_or_default()),
        );
        writeln!(text, "connection     open for {:.3} ms, {tls}", connection.age_ms).ok();
    }
    let (route, pool) = (or_dash(request.route.as_ref()), or_dash(request.pool.as_ref()));
    writeln!(text, "route          {route}, pool {pool}").ok();
    if !request.cache.is_empty() {
        writeln!(text, "cache          {}", request.cache).ok();
    }
    let cause = if request.cause.is_empty() { String::new() } else { format!(", cause {}", request.cause) };
    let detail = if request.detail.is_empty() { String::new() } else { format!(" ({})", request.detail) };
    let by = match request.ended_by {
        EndedBy::Response => "the response was complete",
        EndedBy::Client => "the client closed the connection or reset the stream",
        EndedBy::L7lb => "l7lb responded itself",
        EndedBy::Backend => "the backend failed",
    };
    writeln!(text, "outcome        {}{cause}{detail}; {by}", status(request)).ok();
    writeln!(text, "bytes          {} received, {} sent\n", request.received, request.sent).ok();
    let mut step = |ms: f64, what: String| writeln!(text, "{ms:>12.3} ms  {what}").ok();
    step(0.0, "the request arrived".to_owned());
    if let Some(queued) = request.queued_ms {
        step(
            request.attempts.first().map_or(queued, |first| first.chosen_ms),
            format!("waited {queued:.3} ms in the queue"),
        );
    }
    for (number, attempt) in request.attempts.iter().enumerate() {
        step(attempt.chosen_ms, format!("attempt {}: backend {} chosen", number + 1, attempt.backend));
        if let Some(connected) = attempt.connected_ms {
            step(connected, "  a new connection was established".to_owned());
        }
        if let Some(ended) = attempt.outcome_ms {
            step(ended, format!("  {}", attempt.outcome));
        }
    }
    step(request.duration_ms, format!("the request ended: {}", status(request)));
    text
}
