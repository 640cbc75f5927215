//! CPU time per cache hit, with h2load as the client.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::process::{Command, Stdio};

use crate::report::{Cell, median};
use crate::servers::{Protocol, SUBJECTS, Server, Subject};
use crate::usage;

/// A protocol, a size of the body, and the arguments of h2load.
struct Scenario {
    protocol: Protocol,
    size: &'static str,
    path: &'static str,
    load: &'static [&'static str],
}

const SMALL: &str = "/o/0/1024";
const LARGE: &str = "/o/0/1048576";
const MANY: &[&str] = &["--h1", "-c", "64"];
const FEW: &[&str] = &["--h1", "-c", "16"];
const STREAMS: &[&str] = &["-c", "16", "-m", "16"];

const SCENARIOS: [Scenario; 8] = [
    Scenario { protocol: Protocol::Http1, size: "1 KiB", path: SMALL, load: MANY },
    Scenario { protocol: Protocol::TlsHttp1, size: "1 KiB", path: SMALL, load: MANY },
    Scenario { protocol: Protocol::TlsHttp2, size: "1 KiB", path: SMALL, load: STREAMS },
    Scenario { protocol: Protocol::Http2, size: "1 KiB", path: SMALL, load: STREAMS },
    Scenario { protocol: Protocol::Http1, size: "1 MiB", path: LARGE, load: FEW },
    Scenario { protocol: Protocol::TlsHttp1, size: "1 MiB", path: LARGE, load: FEW },
    Scenario { protocol: Protocol::TlsHttp2, size: "1 MiB", path: LARGE, load: &["-c", "16", "-m", "1"] },
    Scenario { protocol: Protocol::Http2, size: "1 MiB", path: LARGE, load: &["-c", "16", "-m", "1"] },
];

/// Whether h2load can be started.
pub(crate) fn is_available() -> bool {
    Command::new("h2load").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// Measures all scenarios; the subjects take turns. Returns a Markdown table.
pub(crate) fn compare(servers: &[Server], rounds: u32, seconds: u32) -> io::Result<String> {
    let mut table = String::from("| hit, body |");
    let shown: Vec<&Subject> = SUBJECTS.iter().filter(|subject| server(servers, subject).is_some()).collect();
    for subject in &shown {
        write!(table, " {} |", subject.name).ok();
    }
    writeln!(table, " memory / no cache | memory / Varnish |\n|---|{}---|---|", "---|".repeat(shown.len())).ok();
    for scenario in &SCENARIOS {
        let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for round in 0..=rounds {
            for subject in &shown {
                let measured =
                    server(servers, subject).map(|server| measure(server, subject, scenario, seconds, round));
                if let Some(Some(micros)) = measured.transpose()? {
                    all.entry(subject.name).or_default().push(micros);
                }
            }
        }
        let cost = |name: &str| all.get(name).map(|values| median(values));
        write!(table, "| {}, {} |", scenario.protocol.name(), scenario.size).ok();
        for subject in &shown {
            write!(table, " {} |", Cell(cost(subject.name), " µs")).ok();
        }
        let ratio = |other: &str| Some(cost("l7lb, memory")? / cost(other)?);
        let (pass, varnish) = (ratio("l7lb, no cache"), ratio("Varnish"));
        writeln!(table, " {} | {} |", Cell(pass, ""), Cell(varnish, "")).ok();
        eprintln!("{}", table.lines().last().unwrap_or_default());
    }
    Ok(table)
}

/// The server of a subject.
pub(crate) fn server<'a>(servers: &'a [Server], subject: &Subject) -> Option<&'a Server> {
    servers.iter().find(|server| server.program == subject.program)
}

/// Microseconds of CPU time per request. Round 0 fills the cache, and is not measured.
fn measure(
    server: &Server,
    subject: &Subject,
    scenario: &Scenario,
    seconds: u32,
    round: u32,
) -> io::Result<Option<f64>> {
    let Some(url) = server.url(scenario.protocol) else { return Ok(None) };
    let mut command = Command::new("h2load");
    command.args(["-t", "1"]).args(scenario.load);
    let length = if round == 0 { ["-n".to_owned(), "256".to_owned()] } else { ["-D".to_owned(), seconds.to_string()] };
    command.args(length).arg(format!("{url}{}{}", subject.prefix, scenario.path));
    let before = usage::cpu_time(server.id());
    let output = command.stdin(Stdio::null()).output()?;
    let used = usage::cpu_time(server.id()).saturating_sub(before);
    let text = String::from_utf8_lossy(&output.stdout);
    let responses = text.lines().find_map(|line| line.strip_prefix("status codes: ")?.split(' ').next()?.parse().ok());
    let responses: f64 = responses
        .filter(|count| *count > 0.0)
        .ok_or_else(|| io::Error::other(format!("{} sends no response at {url}: {text}", subject.name)))?;
    Ok((round > 0).then(|| used.as_secs_f64() * 1e6 / responses))
}
