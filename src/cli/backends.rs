//! `l7lb backends`: lists the backends of a running process, and sets overrides.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use http::Method;

use super::failure::{EXIT_TIMEOUT, Failure};
use super::process::ProcessArguments;
use super::register::SettingArguments;
use super::table::{self, Table, or_dash};
use crate::base::backend_address::BackendAddress;
use crate::base::units::Period;
use crate::control::api::client::{CallError, segment};
use crate::control::api::overrides::{NewState, NewWeight};
use crate::control::api::pools::{AcceptedLists, Backend, Backends, CircuitState};
use crate::control::api::registrations::{Deregistered, RegisteredBackend};
use crate::control::api::{Cause, Client};
use crate::pool::operator::overrides::{Override, State};

/// The polling interval while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How much longer than its wait a call may take.
const RESPONSE_TIME: Duration = Duration::from_secs(10);

/// The command for backends.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: List,
}

#[derive(Args)]
struct List {
    /// Only the backends of this pool.
    #[arg(long)]
    pool: Option<String>,
    #[command(flatten)]
    process: ProcessArguments,
}

#[derive(Subcommand)]
enum Action {
    /// List all backends, or those of a pool.
    List(List),
    /// Register a backend in a pool with `discover: api`, change its registration, or renew it.
    Add {
        #[command(flatten)]
        backend: BackendArguments,
        #[command(flatten)]
        settings: SettingArguments,
        /// The registration ends unless it is renewed within this time; without it, it does not end.
        #[arg(long, value_name = "PERIOD", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
        #[command(flatten)]
        process: ProcessArguments,
    },
    /// Renew the registration of a backend.
    Renew {
        #[command(flatten)]
        backend: BackendArguments,
        #[command(flatten)]
        process: ProcessArguments,
    },
    /// End the registration of a backend: it gets no new requests, and leaves the pool once it has none in flight.
    Remove(Change),
    /// Let the lists of the sources of a pool take effect that `hold` or `max_moved` hold back.
    Accept {
        /// The pool.
        pool: String,
        #[command(flatten)]
        process: ProcessArguments,
    },
    /// Send a backend no new requests; requests in flight finish. Its health is still checked.
    Drain(Change),
    /// As drain, and stop its health checks: for maintenance.
    Disable(Change),
    /// Send a backend requests again.
    Enable(Change),
    /// Change the weight of a backend.
    Weight {
        #[command(flatten)]
        backend: BackendArguments,
        /// Its share relative to the other backends, 0 to 1000; 0 gets none.
        weight: u32,
        #[command(flatten)]
        process: ProcessArguments,
    },
    /// Remove the override of a backend.
    Reset {
        #[command(flatten)]
        backend: BackendArguments,
        #[command(flatten)]
        process: ProcessArguments,
    },
}

#[derive(Args)]
struct BackendArguments {
    /// Its pool.
    pool: String,
    /// Its address: IP and port, or `unix:` and the path of its socket.
    address: BackendAddress,
}

#[derive(Args)]
struct Change {
    #[command(flatten)]
    backend: BackendArguments,
    /// Wait until it has no requests in flight; with `enable`, until it is available.
    #[arg(long)]
    wait: bool,
    /// The longest wait; then the exit code is 3. The change stays.
    #[arg(long, value_name = "PERIOD", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    process: ProcessArguments,
}

impl BackendArguments {
    fn path(&self) -> String {
        format!("/pools/{}/backends/{}", segment(&self.pool), segment(&self.address.to_string()))
    }
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    match arguments.action.as_ref() {
        None => list(&arguments.list),
        Some(Action::List(arguments)) => list(arguments),
        Some(Action::Add { backend, settings, ttl, process }) => {
            let settings = settings.settings(*ttl)?;
            show_registered(&process.client()?.send(Method::PUT, &backend.path(), &settings)?, process)
        }
        Some(Action::Renew { backend, process }) => {
            show_registered(&process.client()?.post(&format!("{}/renew", backend.path()))?, process)
        }
        Some(Action::Remove(change)) => remove(change),
        Some(Action::Accept { pool, process }) => accept(pool, process),
        Some(Action::Drain(change)) => set(change, State::Draining),
        Some(Action::Disable(change)) => set(change, State::Disabled),
        Some(Action::Enable(change)) => set(change, State::Enabled),
        Some(Action::Weight { backend, weight, process }) => {
            let path = format!("{}/weight", backend.path());
            show(&process.client()?.send(Method::PUT, &path, &NewWeight { weight: *weight })?, process)
        }
        Some(Action::Reset { backend, process }) => {
            show(&process.client()?.delete(&format!("{}/override", backend.path()))?, process)
        }
    }
}

fn accept(pool: &str, process: &ProcessArguments) -> Result<(), Failure> {
    let accepted: AcceptedLists = process.client()?.post(&format!("/pools/{}/sources/accept", segment(pool)))?;
    if process.json {
        return table::json(&accepted);
    }
    match accepted.sources.as_slice() {
        [] => table::print("no list is held back\n"),
        sources => table::print(&format!("accepted: {}\n", sources.join(", "))),
    }
}

fn list(arguments: &List) -> Result<(), Failure> {
    let query = arguments.pool.as_ref().map(|pool| format!("?pool={}", segment(pool))).unwrap_or_default();
    let response: Backends = arguments.process.client()?.get(&format!("/backends{query}"))?;
    if arguments.process.json { table::json(&response) } else { rows(&response.backends).print() }
}

#[expect(clippy::disallowed_methods, reason = "the timeout starts with the command")]
fn set(change: &Change, state: State) -> Result<(), Failure> {
    let until = Instant::now() + change.timeout;
    let client = change.process.client()?;
    let path = change.backend.path();
    let mut backend: Backend = client.send(Method::PUT, &format!("{path}/state"), &NewState { state })?;
    while change.wait && !is_reached(&backend, state) {
        if Instant::now() >= until {
            return Err(Failure { code: EXIT_TIMEOUT, message: timeout_message(&backend, state, change.timeout) });
        }
        std::thread::sleep(POLL_INTERVAL);
        backend = fetch(&client, &path)?;
    }
    show(&backend, &change.process)
}

/// Ends a registration. A backend that is not registered is removed already.
fn remove(Change { backend, wait, timeout, process }: &Change) -> Result<(), Failure> {
    let longest = if *wait { *timeout } else { Duration::ZERO };
    let query = format!("?wait={}", segment(&Period(longest).to_string()));
    let client = process.client()?.with_timeout(longest + RESPONSE_TIME);
    let removed: Deregistered = match client.delete(&format!("{}{query}", backend.path())) {
        Err(CallError::Problem(problem)) if problem.cause == Cause::UnknownBackend => {
            return table::print(&format!("{}\n", problem.detail));
        }
        removed => removed?,
    };
    if process.json {
        table::json(&removed)?;
    } else {
        let in_flight = table::count(removed.in_flight as usize, "request");
        table::print(&format!("{} is removed from {}, {in_flight} in flight\n", removed.address, removed.pool))?;
    }
    if *wait && removed.in_flight > 0 {
        let message = format!("{} still has requests in flight after {}", removed.address, Period(longest));
        return Err(Failure { code: EXIT_TIMEOUT, message });
    }
    Ok(())
}

fn show_registered(registered: &RegisteredBackend, process: &ProcessArguments) -> Result<(), Failure> {
    if process.json {
        return table::json(registered);
    }
    let mut table = Table::new(["pool", "backend", "weight", "backup", "zone", "labels", "expires", "revision"]);
    let labels = registered.settings.labels.to_string();
    table.row([
        registered.pool.to_string(),
        registered.address.to_string(),
        registered.settings.weight.to_string(),
        if registered.settings.backup { "yes" } else { "no" }.to_owned(),
        or_dash(registered.settings.zone.as_ref()),
        or_dash((!labels.is_empty()).then_some(labels)),
        or_dash(registered.expires),
        registered.revision.to_string(),
    ]);
    table.print()
}

fn fetch(client: &Client, path: &str) -> Result<Backend, Failure> {
    client.get(path).map_err(|error| match error {
        CallError::Problem(problem) if matches!(problem.cause, Cause::UnknownPool | Cause::UnknownBackend) => {
            Failure::runtime(format!("the backend was removed from the configuration: {problem}"))
        }
        other => other.into(),
    })
}

/// Whether the requested state is reached.
fn is_reached(backend: &Backend, state: State) -> bool {
    if state == State::Enabled { backend.available } else { backend.in_flight == 0 }
}

fn timeout_message(backend: &Backend, state: State, timeout: Duration) -> String {
    let (address, timeout) = (backend.address, Period(timeout));
    if state == State::Enabled {
        format!("{address} is enabled, but not available after {timeout}: {}", condition(backend))
    } else {
        let in_flight = table::count(backend.in_flight as usize, "request");
        format!("{address} is {state}, but still has {in_flight} in flight after {timeout}")
    }
}

fn show(backend: &Backend, process: &ProcessArguments) -> Result<(), Failure> {
    if process.json { table::json(backend) } else { rows(std::slice::from_ref(backend)).print() }
}

fn rows(backends: &[Backend]) -> Table {
    let heading =
        ["pool", "backend", "condition", "zone", "weight", "in flight", "latency", "idle limit", "source", "override"];
    let mut table = Table::new(heading);
    for backend in backends {
        let slow = (backend.effective_weight - f64::from(backend.weight)).abs() > f64::EPSILON;
        let weight = backend.weight.to_string();
        table.row([
            backend.pool.to_string(),
            backend.address.to_string(),
            condition(backend),
            or_dash(backend.zone.as_ref()),
            if slow { format!("{weight} (now {})", backend.effective_weight) } else { weight },
            backend.in_flight.to_string(),
            or_dash(backend.latency_ms.map(|latency| format!("{latency:.1} ms"))),
            or_dash(backend.idle_limit_ms.map(|limit| Period(Duration::from_millis(limit)))),
            or_dash(backend.source.as_ref()),
            or_dash(backend.overridden.map(|overridden| override_words(&overridden))),
        ]);
    }
    table
}

/// All reasons why it gets no requests, or `up`.
fn condition(backend: &Backend) -> String {
    let mut words = Vec::new();
    if backend.state != State::Enabled {
        words.push(backend.state.to_string());
    }
    if backend.state != State::Disabled {
        words.push(backend.health.to_string());
    }
    if let Some(until) = backend.ejected_until {
        words.push(format!("ejected until {until}"));
    }
    match backend.circuit.as_ref().map(|circuit| (circuit.state, circuit.open_until)) {
        Some((CircuitState::Open, until)) => words.push(format!("circuit open until {}", or_dash(until))),
        Some((CircuitState::HalfOpen, _)) => words.push("circuit half-open".to_owned()),
        Some((CircuitState::Closed, _)) | None => {}
    }
    if backend.backup {
        words.push("backup".to_owned());
    }
    words.join(", ")
}

fn override_words(overridden: &Override) -> String {
    let state = overridden.state.map(|state| state.to_string());
    let weight = overridden.weight.map(|weight| format!("weight {weight}"));
    let what: Vec<String> = state.into_iter().chain(weight).collect();
    format!("{} since {}", what.join(", "), overridden.since)
}
