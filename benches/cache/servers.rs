//! The compared caches, each with one worker and its defaults, and their configurations.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{PROXY_CORE, Process, free_ports, wait_until_listening};

/// How long a server may take to listen. Varnish compiles its configuration.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);

/// A program with a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    L7lb,
    Nginx,
    Varnish,
    Haproxy,
}

/// A program, and what it does with the requests of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    /// The start of the paths.
    pub(crate) prefix: &'static str,
}

/// All measured subjects. The first one is l7lb without a cache.
pub(crate) const SUBJECTS: [Subject; 6] = [
    Subject { name: "l7lb, no cache", program: Program::L7lb, prefix: "/pass" },
    Subject { name: "l7lb, memory", program: Program::L7lb, prefix: "/memory" },
    Subject { name: "l7lb, disk", program: Program::L7lb, prefix: "/disk" },
    Subject { name: "nginx", program: Program::Nginx, prefix: "/any" },
    Subject { name: "Varnish", program: Program::Varnish, prefix: "/any" },
    Subject { name: "HAProxy", program: Program::Haproxy, prefix: "/any" },
];

/// A protocol of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    TlsHttp1,
    TlsHttp2,
    Http2,
}

impl Protocol {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::TlsHttp1 => "TLS, HTTP/1.1",
            Self::TlsHttp2 => "TLS, HTTP/2",
            Self::Http2 => "HTTP/2 without TLS",
        }
    }
}

impl Program {
    const fn command(self) -> &'static str {
        match self {
            Self::L7lb => env!("CARGO_BIN_EXE_l7lb"),
            Self::Nginx => "nginx",
            Self::Varnish => "varnishd",
            Self::Haproxy => "haproxy",
        }
    }

    /// Whether it can be started on this machine.
    pub(crate) fn is_installed(self) -> bool {
        let mut command = Command::new(self.command());
        command.arg(match self {
            Self::L7lb => "--version",
            Self::Varnish => "-V",
            Self::Nginx | Self::Haproxy => "-v",
        });
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }
}

/// A running server. Dropping it ends it.
pub(crate) struct Server {
    pub(crate) program: Program,
    plain: SocketAddr,
    tls: SocketAddr,
    process: Process,
}

impl Server {
    /// Starts a server whose caches hold `size` bytes. Its files are in `folder`, which has a certificate.
    pub(crate) fn start(program: Program, origin: SocketAddr, folder: &Path, size: u64) -> io::Result<Self> {
        let ports: [u16; 2] = free_ports(2)?.try_into().map_err(|_| io::Error::other("two ports were requested"))?;
        let [plain, tls] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let own = folder.join(program.command().rsplit('/').next().unwrap_or_default());
        std::fs::create_dir_all(&own)?;
        let text = match program {
            Program::L7lb => l7lb([plain, tls], origin, (folder, &own), size),
            Program::Nginx => nginx([plain, tls], origin, (folder, &own), size),
            Program::Haproxy => haproxy([plain, tls], origin, folder, size),
            Program::Varnish => String::new(),
        };
        let file = own.join("configuration");
        std::fs::write(&file, text)?;
        let mut command = Command::new(program.command());
        match program {
            Program::L7lb => command.arg("-c").arg(&file),
            Program::Nginx => command.arg("-p").arg(&own).arg("-c").arg(&file),
            Program::Haproxy => command.arg("-db").arg("-f").arg(&file),
            Program::Varnish => command
                .args(["-F", "-j", "none", "-p", "feature=+http2", "-p", "thread_pools=1", "-t", "3600"])
                .args(["-a", &plain.to_string(), "-b", &origin.to_string(), "-s", &format!("malloc,{size}")])
                .arg("-n")
                .arg(&own),
        };
        let process = Process::start(&mut command, PROXY_CORE)?;
        wait_until_listening(plain, LISTENS_WITHIN)?;
        Ok(Self { program, plain, tls, process })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The listener without TLS.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.plain
    }

    /// Where the server has this protocol.
    pub(crate) fn url(&self, protocol: Protocol) -> Option<String> {
        match (self.program, protocol) {
            (Program::Varnish, Protocol::TlsHttp1 | Protocol::TlsHttp2) => None,
            // It needs a listener of its own.
            (Program::Nginx, Protocol::Http2) => None,
            (_, Protocol::Http1 | Protocol::Http2) => Some(format!("http://{}", self.plain)),
            (_, Protocol::TlsHttp1 | Protocol::TlsHttp2) => Some(format!("https://{}", self.tls)),
        }
    }
}

fn l7lb([plain, tls]: [SocketAddr; 2], origin: SocketAddr, (folder, own): (&Path, &Path), size: u64) -> String {
    let (files, own) = (folder.display(), own.display());
    format!(
        "server: {{ threads: 1, pid_file: {own}/pid, upgrade_sock: {own}/upgrade, error_log: {own}/error.log }}
listeners:
  - {{ address: '{plain}' }}
  - {{ address: '{tls}', tls: {{ certificates: [{{ certificate: {files}/cert.pem, key: {files}/key.pem }}] }} }}
connection_limits: {{ per_client: 8192 }}
access_log: {{ file: {own}/access.log }}
cache: {{ memory: {{ size: {size} }}, disk: {{ path: {own}/cache, size: {size} }} }}
routes:
  - {{ path: /pass, pool: origin }}
  - {{ path: /memory, pool: origin, cache: {{}} }}
  - {{ path: /disk, pool: origin, cache: {{ store: disk }} }}
pools: {{ origin: {{ health_check: {{ type: tcp, interval: 1h }}, backends: [{{ address: '{origin}' }}] }} }}
"
    )
}

fn nginx([plain, tls]: [SocketAddr; 2], origin: SocketAddr, (folder, own): (&Path, &Path), size: u64) -> String {
    let (files, own) = (folder.display(), own.display());
    // As root it would otherwise use an account that cannot enter the folder.
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user} daemon off; worker_processes 1; pid {own}/pid; error_log {own}/error.log;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log {own}/access.log;
  keepalive_requests 100000000;
  client_body_temp_path {own}/body; proxy_temp_path {own}/proxy; fastcgi_temp_path {own}/fastcgi;
  uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;
  sendfile on; tcp_nopush on;
  proxy_cache_path {own}/cache levels=1:2 keys_zone=c:64m max_size={size} inactive=1h use_temp_path=off;
  upstream origin {{ server {origin}; keepalive 64; }}
  server {{
    listen {plain};
    listen {tls} ssl http2;
    ssl_certificate {files}/cert.pem; ssl_certificate_key {files}/key.pem;
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_cache c; proxy_cache_lock on;
    }}
  }}
}}
"
    )
}

fn haproxy([plain, tls]: [SocketAddr; 2], origin: SocketAddr, folder: &Path, size: u64) -> String {
    let (files, megabytes) = (folder.display(), (size >> 20).clamp(4, 4095));
    format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 50s
  timeout server 50s
cache objects
  total-max-size {megabytes}
  max-object-size 2000000
  max-age 3600
frontend clients
  bind {plain}
  bind {tls} ssl crt {files}/both.pem alpn h2,http/1.1
  http-request cache-use objects
  http-response cache-store objects
  default_backend origin
backend origin
  server origin {origin}
"
    )
}
