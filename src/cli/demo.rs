//! `l7lb demo`: five sample backends behind a TLS listener, without a file or privileges.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::failure::Failure;
use super::logging;
use crate::config::load::{self, Loaded};
use crate::control::api::socket_path;
use crate::server::{self, Start};
use crate::tls::{Settings, development};

/// The preferred ports; if one is in use, a free port is used.
const TLS_PORT: u16 = 8443;
const PLAIN_PORT: u16 = 8080;
const BACKEND_PORTS: [u16; 5] = [8081, 8082, 8083, 8084, 8085];

pub(super) fn main() -> Result<(), Failure> {
    let backends = BACKEND_PORTS
        .iter()
        .zip(1..)
        .map(|(port, number)| Backend::start(*port, number))
        .collect::<Result<Vec<_>, _>>()?;
    let (tls, plain) = (port_or_free(TLS_PORT)?, port_or_free(PLAIN_PORT)?);
    let ports: Vec<u16> = backends.iter().map(|backend| backend.port).collect();
    let [one, two, three, four, five] = ports.as_slice() else {
        return Err(Failure::runtime("the demo has five backends"));
    };
    let mut loaded = configuration(&format!(
        "listeners: [{{ address: '127.0.0.1:{tls}' }}, {{ address: '127.0.0.1:{plain}' }}]\n\
         pools:\n  \
           api-a: {{ {POOL}, backends: [{{ address: '127.0.0.1:{one}' }}, {{ address: '127.0.0.1:{three}' }}] }}\n  \
           api-b: {{ {POOL}, backends: [{{ address: '127.0.0.1:{two}' }}, {{ address: '127.0.0.1:{four}' }}, {{ address: '127.0.0.1:{five}' }}] }}\n\
         routes: [{{ path: /apiA, pool: api-a }}, {{ path: /apiB, pool: api-b }}]\n"
    ))?;
    // A separate folder, so that it does not replace another process.
    let sockets = Path::new(&loaded.checked.server.upgrade_sock).with_file_name("demo").join("upgrade.sock");
    loaded.checked.server.upgrade_sock = sockets.display().to_string();
    loaded.checked.state_file = None;
    explain(tls, plain, &backends, &socket_path(&loaded.checked.server.upgrade_sock));
    let log = logging::start()?;
    server::run(loaded, Start { log, ..Start::default() }).map_err(Failure::runtime)
}

/// Settings of the demo pools, with short intervals.
const POOL: &str = "balance: round_robin, slow_start: 2s, \
    health_check: { type: http, path: /health, interval: 5s, unhealthy_interval: 1s, rise: 1, fall: 2 }";

/// The configuration of the demo, with a certificate in memory.
fn configuration(yaml: &str) -> Result<Loaded, Failure> {
    let mut loaded = load::read(yaml, "demo", &|_| None)
        .map_err(|diagnostics| Failure::runtime(diagnostics.iter().map(ToString::to_string).collect::<String>()))?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let (_, certificate) = development::certificate(&names).map_err(Failure::runtime)?;
    if let Some(listener) = loaded.checked.listeners.first_mut() {
        listener.tls = Some(Settings::in_memory(certificate));
    }
    Ok(loaded)
}

/// A backend of the demo; it is stopped with the demo.
struct Backend {
    process: Child,
    port: u16,
    number: u16,
}

impl Backend {
    fn start(port: u16, number: u16) -> Result<Self, Failure> {
        let failed = |e: std::io::Error| Failure::runtime(format!("cannot start sample backend {number}: {e}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut process = Command::new(program)
            .args([
                "sample-backend",
                "--port",
                &port_or_free(port)?.to_string(),
                "--name",
                &format!("backend-{number}"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(stderr) = process.stderr.take() {
            BufReader::new(stderr).read_line(&mut line).map_err(failed)?;
        }
        let port =
            line.trim().parse().map_err(|_| Failure::runtime(format!("sample backend {number}: {}", line.trim())))?;
        Ok(Self { process, port, number })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // An error means that it has already stopped.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn port_or_free(port: u16) -> Result<u16, Failure> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let address = bound.and_then(|listener| listener.local_addr());
    Ok(address.map_err(|e| Failure::runtime(format!("no port is free: {e}")))?.port())
}

fn explain(tls: u16, plain: u16, backends: &[Backend], control: &Path) {
    eprintln!("l7lb demo: https://localhost:{tls} and http://localhost:{plain}, in front of");
    for Backend { process, port, number } in backends {
        let route = if matches!(number, 1 | 3) { "/apiA" } else { "/apiB" };
        eprintln!("  backend-{number}  127.0.0.1:{port}  {route}  (pid {})", process.id());
    }
    let (Some(first), Some(third)) = (backends.first(), backends.get(2)) else {
        return;
    };
    let (pid, port, control) = (third.process.id(), first.port, control.display());
    eprintln!(
        "\nTry in another terminal:\n  \
         curl -k https://localhost:{tls}/apiA          # twice: backend-1 and backend-3 in turn\n  \
         curl http://localhost:{plain}/apiB            # backends 2, 4 and 5, in plain HTTP\n  \
         curl -i http://localhost:{plain}/elsewhere    # no route: 404, with the cause\n  \
         kill {pid}; curl -k https://localhost:{tls}/apiA   # backend-3 is down: no request fails\n  \
         curl -X POST http://127.0.0.1:{port}/health/down  # backend-1 reports failed health checks: /apiA soon returns 503\n  \
         curl -X POST http://127.0.0.1:{port}/health/up    # backend-1 passes health checks again\n  \
         l7lb backends --socket {control}   # the state of each backend; see `l7lb backends --help`\n\
         Ctrl-C stops the demo. One access log line per request follows.\n"
    );
}
