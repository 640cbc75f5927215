//! `l7lb register`: starts a service, registers it as a backend, and drains it before it stops.
//!
//! The service is a child process. Its registration has a time to live and is renewed, so it ends even if this process is
//! killed. SIGTERM and SIGINT end the registration, wait until no request is in flight, and are then passed on.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use clap::Args;
use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::failure::{EXIT_RUNTIME, Failure};
use super::process::ProcessSelector;
use crate::base::backend_address::BackendAddress;
use crate::base::units::{Period, Zone};
use crate::control::api::Client;
use crate::control::api::client::{CallError, segment};
use crate::control::api::registrations::{Deregistered, RegisteredBackend};
use crate::discovery::labels::Labels;
use crate::discovery::source::api::Settings;

/// How often the service is examined before it is registered.
const POLL: Duration = Duration::from_millis(100);
/// The longest wait for one connection or response of the service.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a failed registration is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// A service and its registration.
#[derive(Args)]
pub(super) struct Arguments {
    /// The pool, which has `discover: api`.
    #[arg(long)]
    pool: String,
    /// The address of the service for the balancer: IP and port, or `unix:` and the path of its socket.
    #[arg(long)]
    address: BackendAddress,
    #[command(flatten)]
    settings: SettingArguments,
    /// The registration ends unless it is renewed within this time; it is renewed three times as often.
    #[arg(long, value_name = "PERIOD", default_value = "15s", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Register the service once GET of this path has a status from 200 to 399; without it, once it accepts a connection.
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    /// The longest wait for the service to become healthy.
    #[arg(long, value_name = "PERIOD", default_value = "60s", value_parser = humantime::parse_duration)]
    start_timeout: Duration,
    /// The longest wait for requests in flight before the service is stopped.
    #[arg(long, value_name = "PERIOD", default_value = "30s", value_parser = humantime::parse_duration)]
    drain_timeout: Duration,
    #[command(flatten)]
    process: ProcessSelector,
    /// The service and its arguments.
    #[arg(last = true, required = true)]
    service: Vec<String>,
}

/// The settings of a registration.
#[derive(Args)]
pub(super) struct SettingArguments {
    /// Its share relative to the other backends, 0 to 1000.
    #[arg(long, default_value_t = 1)]
    weight: u32,
    /// It takes traffic only when too few primary backends are available.
    #[arg(long)]
    backup: bool,
    /// Its zone.
    #[arg(long)]
    zone: Option<Zone>,
    /// A label. May be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl SettingArguments {
    /// The settings with a time to live.
    pub(super) fn settings(&self, ttl: Option<Duration>) -> Result<Settings, Failure> {
        let labels: BTreeMap<String, String> = self.labels.iter().cloned().collect();
        let labels = Labels::try_from(labels).map_err(|e| Failure::usage(e.to_string()))?;
        let Self { weight, backup, zone, .. } = self;
        Ok(Settings { weight: *weight, backup: *backup, zone: zone.clone(), labels, ttl: ttl.map(Period) })
    }
}

pub(super) fn main(arguments: &Arguments) -> Result<(), Failure> {
    let settings = arguments.settings.settings(Some(arguments.ttl))?;
    let path = format!("/pools/{}/backends/{}", segment(&arguments.pool), segment(&arguments.address.to_string()));
    let registration = Registration { client: arguments.process.client()?, path, settings };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::runtime(e.to_string()))?;
    runtime.block_on(supervise(arguments, registration))
}

/// Runs the service until it ends.
async fn supervise(arguments: &Arguments, registration: Registration) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::runtime(e.to_string());
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut service = start(&arguments.service)?;
    let serving = async {
        wait_until_healthy(arguments).await?;
        registration.keep(arguments.ttl).await
    };
    let stopping = tokio::select! {
        status = service.wait() => {
            // It cannot be drained any more; the end of the registration still saves requests.
            registration.end(Duration::ZERO).await;
            return exit(status.map_err(failed)?);
        }
        failure = serving => Err(failure.err().unwrap_or_else(|| Failure::runtime("the registration has ended"))),
        _ = terminate.recv() => Ok(Signal::SIGTERM),
        _ = interrupt.recv() => Ok(Signal::SIGINT),
    };
    tokio::select! {
        () = registration.end(arguments.drain_timeout) => {}
        status = service.wait() => return exit(status.map_err(failed)?),
    }
    stop(&service, stopping.as_ref().copied().unwrap_or(Signal::SIGTERM));
    let status = service.wait().await.map_err(failed)?;
    match stopping {
        Ok(_) => exit(status),
        Err(failure) => Err(failure),
    }
}

fn start(service: &[String]) -> Result<Child, Failure> {
    let Some((program, arguments)) = service.split_first() else {
        return Err(Failure::usage("the service is missing"));
    };
    // A terminal sends its signals to this process only, which drains first.
    let child = Command::new(program).args(arguments).process_group(0).kill_on_drop(true).spawn();
    child.map_err(|e| Failure::runtime(format!("cannot start {program}: {e}")))
}

fn stop(service: &Child, with: Signal) {
    let pid = service.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid {
        // It may have ended already.
        kill(Pid::from_raw(pid), with).ok();
    }
}

/// The exit code of the service; 128 and the signal, as of a shell, if a signal ended it.
fn exit(status: ExitStatus) -> Result<(), Failure> {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or_default();
    match u8::try_from(code).unwrap_or(EXIT_RUNTIME) {
        0 => Ok(()),
        code => Err(Failure { code, message: String::new() }),
    }
}

async fn wait_until_healthy(arguments: &Arguments) -> Result<(), Failure> {
    let until = Instant::now() + arguments.start_timeout;
    loop {
        let reason = match timeout(CHECK_TIMEOUT, check(arguments.address, arguments.health.as_deref())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(_) => format!("no response within {CHECK_TIMEOUT:?}"),
        };
        if Instant::now() >= until {
            let period = Period(arguments.start_timeout);
            return Err(Failure::runtime(format!("the service is not healthy after {period}: {reason}")));
        }
        sleep(POLL).await;
    }
}

async fn check(address: BackendAddress, path: Option<&str>) -> Result<(), String> {
    let failed = |e: std::io::Error| e.to_string();
    match address {
        BackendAddress::Inet(inet) => {
            let stream = TcpStream::connect(inet).await.map_err(failed)?;
            get(stream, &inet.to_string(), path).await
        }
        BackendAddress::Unix(socket) => {
            let stream = tokio::net::UnixStream::connect(socket.as_str()).await.map_err(failed)?;
            get(stream, "localhost", path).await
        }
    }
}

async fn get<S>(stream: S, host: &str, path: Option<&str>) -> Result<(), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let Some(path) = path else { return Ok(()) };
    let failed = |e: hyper::Error| e.to_string();
    let stream = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(failed)?;
    tokio::spawn(connection);
    let request = http::Request::get(path).header(http::header::HOST, host);
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).map_err(|e| e.to_string())?;
    let status = sender.send_request(request).await.map_err(failed)?.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("status {status}")) }
}

/// The registration of the service.
#[derive(Clone)]
struct Registration {
    client: Client,
    path: String,
    settings: Settings,
}

impl Registration {
    /// Registers the service, and renews the registration until it is rejected.
    async fn keep(&self, ttl: Duration) -> Result<(), Failure> {
        let mut reported = false;
        loop {
            // The same call registers and renews. It also registers again after a balancer has lost its state.
            let pause = match self.put().await {
                Ok(registered) => {
                    if !std::mem::replace(&mut reported, true) {
                        eprintln!("l7lb: registered {} in the pool {}", registered.address, registered.pool);
                    }
                    ttl / 3
                }
                Err(CallError::Problem(problem)) if (400..500).contains(&problem.status) => {
                    return Err(CallError::Problem(problem).into());
                }
                Err(error) => {
                    eprintln!("l7lb: cannot register, trying again: {error}");
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    async fn put(&self) -> Result<RegisteredBackend, CallError> {
        self.call(|this| this.client.send(Method::PUT, &this.path, &this.settings)).await
    }

    /// Ends the registration, and waits for the requests in flight.
    async fn end(&self, longest: Duration) {
        let path = format!("{}?wait={}", self.path, segment(&Period(longest).to_string()));
        let client = self.client.clone().with_timeout(longest + CHECK_TIMEOUT);
        let ended = self.call(move |_| client.delete::<Deregistered>(&path)).await;
        match ended {
            Ok(Deregistered { in_flight: 0, .. }) => eprintln!("l7lb: drained"),
            Ok(Deregistered { in_flight, .. }) => eprintln!("l7lb: {in_flight} requests are still in flight"),
            // It was not registered yet.
            Err(CallError::Problem(problem)) if problem.status == 404 => {}
            Err(error) => eprintln!("l7lb: cannot end the registration: {error}"),
        }
    }

    /// A call on a thread for blocking work.
    async fn call<A: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> Result<A, CallError> + Send + 'static,
    ) -> Result<A, CallError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || call(&this)).await;
        done.unwrap_or_else(|e| Err(CallError::InvalidResponse(e.to_string())))
    }
}
