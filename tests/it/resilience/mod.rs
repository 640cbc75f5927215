//! Passive health, circuit breakers and admission control.

mod truncated_responses;
mod admission;
mod circuit_breaker;
mod passive_health;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::lab::scripted::Scripted;

/// A configuration with one pool at `/`, with these backend ports and keys. Responses are passed on, whatever
/// their status.
fn pool(port: u16, ports: &[u16], keys: &str) -> String {
    let backends: Vec<String> = ports.iter().map(|port| format!("{{ address: '127.0.0.1:{port}' }}")).collect();
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools: {{ a: {{ balance: round_robin, slow_start: 0s, {keys}, backends: [{}] }} }}\n\
         routes: [{{ path: /, pool: a, retry: {{ on: [connect, reset] }} }}]\n",
        backends.join(", ")
    )
}

/// The same without retries, so that clients see each failure.
fn pool_without_retries(port: u16, ports: &[u16], keys: &str) -> String {
    pool(port, ports, keys).replace("on: [connect, reset]", "attempts: 1")
}

/// A backend that responds to each request with the current status. With status 0, it holds requests until another
/// status is set.
struct StatusBackend {
    backend: Scripted,
    status: Arc<AtomicU16>,
}

impl StatusBackend {
    fn start(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let current = Arc::clone(&status);
        let backend = Scripted::start(move |stream| respond(stream, &current));
        Self { backend, status }
    }

    fn port(&self) -> u16 {
        self.backend.port
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

fn respond(mut stream: TcpStream, current: &AtomicU16) {
    let mut request = [0; 1024];
    while let Ok(1..) = stream.read(&mut request) {
        let mut status = current.load(Ordering::SeqCst);
        while status == 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            status = current.load(Ordering::SeqCst);
        }
        let port = stream.local_addr().unwrap().port();
        let fields = if status == 101 { "Connection: upgrade\r\nUpgrade: websocket" } else { "Content-Length: 0" };
        write!(stream, "HTTP/1.1 {status} Scripted\r\nX-Backend: {port}\r\n{fields}\r\n\r\n").ok();
    }
}
