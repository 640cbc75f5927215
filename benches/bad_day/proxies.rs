//! The compared proxies and their configurations.
//!
//! Each has one worker thread, writes no access log to a terminal, and allows as many connections as the
//! benchmark opens. All other settings are the proxy's defaults, unless documented below.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{PROXY_CORE, Process};

/// One proxy with one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proxy {
    /// l7lb; without a policy it uses its default.
    L7lb {
        balance: Option<String>,
    },
    Nginx {
        least_conn: bool,
        tuned: bool,
    },
    Haproxy {
        balance: &'static str,
    },
}

impl Proxy {
    /// All compared proxies; `policies` are balancing policies of l7lb in addition to its default.
    pub(crate) fn all(policies: &[String]) -> Vec<Self> {
        let mut all = vec![Self::L7lb { balance: None }];
        all.extend(policies.iter().map(|policy| Self::L7lb { balance: Some(policy.clone()) }));
        for tuned in [false, true] {
            all.extend([false, true].map(|least_conn| Self::Nginx { least_conn, tuned }));
        }
        all.extend(["roundrobin", "leastconn"].map(|balance| Self::Haproxy { balance }));
        all
    }

    /// The name in the table.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::L7lb { balance: None } => "l7lb".to_owned(),
            Self::L7lb { balance: Some(policy) } => format!("l7lb {policy}"),
            Self::Nginx { least_conn, tuned } => {
                let balance = if *least_conn { "least_conn" } else { "round robin" };
                format!("nginx {balance}{}", if *tuned { " tuned" } else { "" })
            }
            Self::Haproxy { balance } => format!("HAProxy {balance}"),
        }
    }

    fn program(&self) -> &'static str {
        match self {
            Self::L7lb { .. } => env!("CARGO_BIN_EXE_l7lb"),
            Self::Nginx { .. } => "nginx",
            Self::Haproxy { .. } => "haproxy",
        }
    }

    /// Whether its program can be started on this machine.
    pub(crate) fn is_installed(&self) -> bool {
        let mut command = Command::new(self.program());
        command.arg(if matches!(self, Self::L7lb { .. }) { "--version" } else { "-v" });
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// Starts it on the proxy core. Its files are in `folder`.
    pub(crate) fn start(&self, address: SocketAddr, backends: &[u16], folder: &Path) -> io::Result<Process> {
        let file = folder.join("proxy.conf");
        let text = match self {
            Self::L7lb { balance } => l7lb(address, backends, balance.as_deref(), folder),
            Self::Nginx { least_conn, tuned } => nginx(address, backends, (*least_conn, *tuned), folder),
            Self::Haproxy { balance } => haproxy(address, backends, balance),
        };
        std::fs::write(&file, text)?;
        let mut command = Command::new(self.program());
        match self {
            Self::L7lb { .. } => command.arg("-c").arg(&file),
            Self::Nginx { .. } => command.arg("-p").arg(folder).arg("-c").arg(&file),
            Self::Haproxy { .. } => command.arg("-db").arg("-f").arg(&file),
        };
        Process::start(&mut command, PROXY_CORE)
    }
}

/// One configuration line for each backend, from its number and port.
fn lines(backends: &[u16], line: impl Fn(usize, u16) -> String) -> String {
    backends.iter().enumerate().fold(String::new(), |mut text, (number, port)| {
        writeln!(text, "{}", line(number, *port)).ok();
        text
    })
}

/// The defaults, except for `connection_limits.per_client`: all requests come from one address, and the other
/// proxies have no such limit by default.
fn l7lb(address: SocketAddr, backends: &[u16], balance: Option<&str>, folder: &Path) -> String {
    let folder = folder.display();
    let balance = balance.map(|policy| format!("    balance: {policy}\n")).unwrap_or_default();
    let backends = lines(backends, |_, port| format!("      - address: 127.0.0.1:{port}"));
    format!(
        "server: {{ threads: 1, pid_file: {folder}/pid, upgrade_sock: {folder}/upgrade, error_log: {folder}/error.log }}
listeners: [{{ address: {address} }}]
connection_limits: {{ per_client: 8192 }}
access_log: {{ file: {folder}/access.log }}
routes: [{{ path: /, pool: benchmark }}]
pools:
  benchmark:
{balance}    backends:
{backends}"
    )
}

/// Tuned: `max_fails=3 fail_timeout=5s`, short timeouts, retries on 5xx, and upstream keep-alive.
fn nginx(address: SocketAddr, backends: &[u16], (least_conn, tuned): (bool, bool), folder: &Path) -> String {
    let folder = folder.display();
    let least_conn = if least_conn { "least_conn;" } else { "" };
    let parameters = if tuned { " max_fails=3 fail_timeout=5s" } else { "" };
    let servers = lines(backends, |_, port| format!("    server 127.0.0.1:{port}{parameters};"));
    let keepalive = if tuned { "keepalive 64;" } else { "" };
    let tuning = if tuned {
        "proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_connect_timeout 1s; proxy_read_timeout 2s; proxy_next_upstream_tries 2;
      proxy_next_upstream error timeout http_500 http_502 http_503 http_504;"
    } else {
        ""
    };
    format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream benchmark {{
    {least_conn}
{servers}    {keepalive}
  }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://benchmark;
      {tuning}
    }}
  }}
}}
"
    )
}

/// With HTTP health checks, redispatch, the retries that its manual recommends for safe requests, and the
/// timeouts of Debian's default configuration.
fn haproxy(address: SocketAddr, backends: &[u16], balance: &str) -> String {
    let servers = lines(backends, |number, port| format!("  server backend-{number} 127.0.0.1:{port}"));
    format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 50s
  timeout server 50s
  retries 3
  option redispatch 1
  retry-on conn-failure empty-response
frontend benchmark
  bind {address}
  default_backend servers
backend servers
  balance {balance}
  option httpchk GET /health
  default-server check inter 2s fall 3 rise 2
{servers}"
    )
}
