//! Many slow clients at once: each is disconnected when its timeout expires, and a normal client is served
//! meanwhile.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::slow::large;
use crate::lab::recorder::Recorder;
use crate::lab::{Lab, client, eventually, free_port};

/// The part of an exchange in which a client is slow.
#[derive(Clone, Copy)]
enum Slow {
    Head,
    Body,
    Read,
}

/// Running slow clients, a third of each kind. Dropping it stops them.
struct Crowd(#[expect(dead_code, reason = "held until the end")] tokio::runtime::Runtime);

impl Crowd {
    /// `again`: disconnected clients connect again.
    fn start(port: u16, count: usize, again: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        for number in 0..count {
            let slow = [Slow::Head, Slow::Body, Slow::Read][number % 3];
            runtime.spawn(async move {
                // An error means that the balancer closed the connection.
                while visit(port, slow).await.is_ok() || again {}
            });
        }
        Self(runtime)
    }
}

/// One slow connection, until the balancer closes it.
async fn visit(port: u16, slow: Slow) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await?;
    match slow {
        Slow::Head => {
            stream.write_all(b"GET /slow-head HTTP/1.1\r\nHost: a\r\nX: ").await?;
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                stream.write_all(b"x").await?;
            }
        }
        Slow::Body => {
            stream.write_all(b"POST /slow-body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx").await?;
            let mut response = Vec::new();
            stream.read_to_end(&mut response).await?;
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
        Slow::Read => {
            stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await?;
            // Reads nothing until the balancer has closed the connection.
            stream.readable().await?;
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                stream.write_all(b"\r\n").await?;
            }
        }
    }
}

/// Sends requests on one connection and returns the time of each response. Every status must be 200.
fn ask(port: u16, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut stream = client::connect(port);
    stream.set_nodelay(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        stream.write_all(b"GET /normal HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let response = client::read_response(&mut stream);
        assert_eq!(response.status, 200);
        took.push(began.elapsed());
        if response.header("connection") == "close" {
            // The limit of requests per connection.
            stream = client::connect(port);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    took
}

/// A balancer whose limits allow many connections from one address, in a process with enough file descriptors.
fn lab(port: u16, timeouts: &str, [normal, large]: [u16; 2]) -> Lab {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\nconnection_limits: {{ per_client: 5000 }}\n{timeouts}\npools:\n  \
         normal: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{normal}' }}] }}\n  \
         large: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{large}' }}] }}\n\
         routes: [{{ path: /, pool: normal }}, {{ path: /large, pool: large }}]\n"
    ))
}

/// Sends requests as a normal client while `act` runs.
fn beside(port: u16, act: impl FnOnce()) -> Vec<Duration> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let normal = std::thread::spawn(move || ask(port, &stopped));
    act();
    stop.store(true, Ordering::Relaxed);
    normal.join().unwrap()
}

#[test]
fn normal_client_is_served_beside_500_slow_clients() {
    let (normal, large) = (Recorder::start(), large());
    let port = free_port();
    let timeouts = "client_timeouts: { header: 2s, body: 2s, write: 2s, keepalive: 2s }";
    let lab = lab(port, timeouts, [normal.port, large.port]);
    let took = beside(port, || {
        let _crowd = Crowd::start(port, 501, false);
        for (path, cause) in
            [("/slow-head", "cause=header_timeout"), ("/slow-body", "cause=body_timeout"), ("/large", "cause=")]
        {
            let fits = |line: &&String| line.contains(&format!("path={path} ")) && line.contains(cause);
            eventually(path, Duration::from_secs(12), || lab.access().iter().filter(fits).count() == 167);
        }
    });
    assert!(took.len() > 100, "{}", took.len());
}

/// Prints the latency of a normal client beside many slow clients, with the default timeouts.
#[test]
#[ignore = "takes a minute; for figures, by hand"]
fn latency_of_a_normal_client_beside_slow_clients_is_printed() {
    let (normal, large) = (Recorder::start(), large());
    let port = free_port();
    let lab = lab(port, "", [normal.port, large.port]);
    let figures = |name: &str, mut took: Vec<Duration>| {
        took.sort();
        let at = |share: usize| took[took.len() * share / 1000];
        eprintln!(
            "{name}: {} requests, median {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
            took.len(),
            at(500),
            at(990),
            at(999),
            took[took.len() - 1]
        );
    };
    figures("alone", beside(port, || std::thread::sleep(Duration::from_secs(10))));
    figures(
        "beside 501 slow clients",
        beside(port, || {
            let _crowd = Crowd::start(port, 501, true);
            std::thread::sleep(Duration::from_secs(60));
        }),
    );
    let count = |word: &str| lab.access().iter().filter(|line| line.contains(word)).count();
    eprintln!(
        "disconnected: {} slow heads, {} slow bodies, {} slow readers",
        count("cause=header_timeout"),
        count("cause=body_timeout"),
        count("path=/large ")
    );
}
