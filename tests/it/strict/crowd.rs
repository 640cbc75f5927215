//! A crowd of slow clients at once: each is gone when its time is up, and a normal client beside them
//! is served all along.

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

/// What a slow client is slow in.
#[derive(Clone, Copy)]
enum Slow {
    Head,
    Body,
    Read,
}

/// A running crowd of a third each; dropping it ends it.
struct Crowd(#[expect(dead_code, reason = "held until the end")] tokio::runtime::Runtime);

impl Crowd {
    /// `again`: those who were thrown out come back.
    fn start(port: u16, count: usize, again: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        for number in 0..count {
            let slow = [Slow::Head, Slow::Body, Slow::Read][number % 3];
            runtime.spawn(async move {
                // An error means that the balancer had enough.
                while visit(port, slow).await.is_ok() || again {}
            });
        }
        Self(runtime)
    }
}

/// One slow visit, until the balancer ends it.
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
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
        Slow::Read => {
            stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await?;
            // Nothing is read before the balancer has given up.
            stream.readable().await?;
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                stream.write_all(b"\r\n").await?;
            }
        }
    }
}

/// Asks again and again on one connection; how long each answer took. Every one must be 200.
fn ask(port: u16, stop: &AtomicBool) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut stream = client::connect(port);
    stream.set_nodelay(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        stream.write_all(b"GET /normal HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = client::read_answer(&mut stream);
        assert_eq!(answer.status, 200);
        took.push(began.elapsed());
        if answer.header("connection") == "close" {
            // As many requests as one connection may have.
            stream = client::connect(port);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    took
}

/// A balancer with room for a crowd from one address, in a process with room for its sockets.
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

/// Asks as a normal client while `act` does something.
fn beside(port: u16, act: impl FnOnce()) -> Vec<Duration> {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let normal = std::thread::spawn(move || ask(port, &stopped));
    act();
    stop.store(true, Ordering::Relaxed);
    normal.join().unwrap()
}

#[test]
fn five_hundred_slow_clients_hold_nobody_up() {
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

/// Prints what a crowd costs a normal client under the default limits of time.
#[test]
#[ignore = "takes a minute; for figures, by hand"]
fn a_minute_beside_slow_clients() {
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
        "thrown out: {} heads, {} bodies, {} answers",
        count("cause=header_timeout"),
        count("cause=body_timeout"),
        count("path=/large ")
    );
}
