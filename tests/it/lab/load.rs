//! Load generator without retries: a request without a response counts as failed, unless the server announced
//! by the rules of HTTP that it would not process it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::client;

/// The result of a load run.
#[derive(Debug, Default)]
pub struct Report {
    pub statuses: BTreeMap<u16, usize>,
    pub failed: Vec<String>,
}

impl Report {
    pub fn answered(&self) -> usize {
        self.statuses.values().sum()
    }
}

/// A running load; [`Load::stop`] ends it.
pub struct Load {
    stop: Arc<AtomicBool>,
    report: Arc<Mutex<Report>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// HTTP/1.1 on `connections` kept-alive connections and HTTP/2 on `h2` connections; each sends its requests
    /// sequentially.
    pub fn start(port: u16, path: &str, connections: usize, h2: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let report = Arc::new(Mutex::new(Report::default()));
        let mut threads = Vec::new();
        for number in 0..connections + h2 {
            let (stop, report, path) = (Arc::clone(&stop), Arc::clone(&report), path.to_owned());
            threads.push(std::thread::spawn(move || {
                if number < connections {
                    http1(port, &path, &stop, &report)
                } else {
                    http2(port, &path, &stop, &report)
                }
            }));
        }
        Self { stop, report, threads }
    }

    pub fn answered(&self) -> usize {
        self.report.lock().unwrap().answered()
    }

    /// Waits until `count` more requests have got responses.
    pub fn wait_for_more(&self, count: usize) {
        let until = self.answered() + count;
        super::eventually("more requests are answered", super::PATIENCE, || self.answered() >= until);
    }

    /// Stops; every request has got a response with status 200.
    pub fn stop_without_failure(self) -> Report {
        let report = self.stop();
        assert!(report.failed.is_empty() && report.statuses.keys().eq([&200]), "{report:?}");
        report
    }

    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        Arc::into_inner(self.report).unwrap().into_inner().unwrap()
    }
}

fn http1(port: u16, path: &str, stop: &AtomicBool, report: &Mutex<Report>) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut connection: Option<TcpStream> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => stream,
                Err(e) => {
                    report.lock().unwrap().failed.push(format!("connect: {e}"));
                    continue;
                }
            },
        };
        stream.set_nodelay(true).unwrap();
        // A request that hangs counts as failed and does not block the test.
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        match ask(&mut stream, request.as_bytes()) {
            Ok((status, keep)) => {
                *report.lock().unwrap().statuses.entry(status).or_default() += 1;
                connection = keep.then_some(stream);
            }
            Err(e) => report.lock().unwrap().failed.push(e),
        }
    }
}

/// One request; returns the status code and whether the connection stays open.
fn ask(stream: &mut TcpStream, request: &[u8]) -> Result<(u16, bool), String> {
    stream.write_all(request).map_err(|e| format!("write: {e}"))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(format!("closed after {:?}", String::from_utf8_lossy(&answer))),
            Ok(bytes) => answer.extend_from_slice(&buffer[..bytes]),
            Err(e) => return Err(format!("read: {e}")),
        }
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.trim().parse().unwrap());
        if answer.len() >= end + 4 + length {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return Ok((status, !head.contains("connection: close")));
        }
    }
}

fn http2(port: u16, path: &str, stop: &AtomicBool, report: &Mutex<Report>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        while !stop.load(Ordering::Relaxed) {
            let stream = match tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => stream,
                Err(e) => {
                    report.lock().unwrap().failed.push(format!("h2 connect: {e}"));
                    continue;
                }
            };
            let (sender, connection) = match h2::client::handshake(stream).await {
                Ok(opened) => opened,
                Err(e) => {
                    report.lock().unwrap().failed.push(format!("h2 handshake: {e}"));
                    continue;
                }
            };
            tokio::spawn(connection);
            h2_requests(sender, path, stop, report).await;
        }
    });
}

/// Sends requests on one connection until it ends.
async fn h2_requests(
    mut sender: h2::client::SendRequest<bytes::Bytes>,
    path: &str,
    stop: &AtomicBool,
    report: &Mutex<Report>,
) {
    while !stop.load(Ordering::Relaxed) {
        // Not ready: the server sent GOAWAY before this request was sent.
        let Ok(ready) = sender.ready().await else { return };
        sender = ready;
        let request = http::Request::get(format!("http://localhost{path}")).body(()).unwrap();
        let Ok((response, _)) = sender.send_request(request, true) else { return };
        match response.await {
            Ok(response) => *report.lock().unwrap().statuses.entry(response.status().as_u16()).or_default() += 1,
            // Above the last stream of GOAWAY, or REFUSED_STREAM: not processed, by the protocol.
            Err(e) if e.is_go_away() && e.is_remote() || e.reason() == Some(h2::Reason::REFUSED_STREAM) => return,
            Err(e) => {
                report.lock().unwrap().failed.push(format!("h2: {e}"));
                return;
            }
        }
    }
}

/// Sends `count` requests sequentially and returns the status codes.
pub fn burst(port: u16, path: &str, count: usize) -> BTreeMap<u16, usize> {
    let mut statuses = BTreeMap::new();
    for _ in 0..count {
        *statuses.entry(client::get(port, path).status).or_default() += 1;
    }
    statuses
}
