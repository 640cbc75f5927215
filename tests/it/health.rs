//! Health checks: which backends get requests, and from when.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lab::client::{get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

#[test]
fn failing_health_check_removes_the_backend_and_logs_the_reason_once() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&one, &two], ""));
    two.set_health(false);
    let down = lab.wait_for_log(&format!("backend down: pool=a backend=127.0.0.1:{}", two.port));
    assert!(down.contains("status 503"), "{down}");
    assert!((0..6).all(|_| get(port, "/apiA").header("x-backend") == "one"));
    two.set_health(true);
    eventually("it is used again", PATIENCE, || get(port, "/apiA").header("x-backend") == "two");
    assert_eq!(lab.log().matches("backend down").count(), 1, "{}", lab.log());
}

#[test]
fn pool_without_a_healthy_backend_responds_503_with_retry_after() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], ""));
    backend.set_health(false);
    // On a busy machine, the first check may time out, which is another such line.
    lab.wait_for_log("reason=\"status 503\"");
    let answer = get(port, "/apiA");
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.body.contains("no_healthy_backend"), "{answer:?}");
}

#[test]
fn backend_gets_no_request_before_its_first_passed_check() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    // Responds to health checks with 500 until the gate opens; any other request is counted as a fault.
    let late = Scripted::start(move |mut stream| {
        let mut request = [0; 1024];
        while let Ok(bytes @ 1..) = stream.read(&mut request) {
            let text = String::from_utf8_lossy(&request[..bytes]).into_owned();
            let status = match (text.starts_with("GET /health"), gate.load(Ordering::SeqCst)) {
                (true, true) => "200 OK",
                (true, false) => "500 No",
                (false, true) => "299 Open",
                (false, false) => "298 Early",
            };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").ok();
        }
    });
    let steady = Backend::start("steady");
    let port = free_port();
    let yaml = one_pool(port, &[&steady], "")
        .replace("interval: 200ms, unhealthy_interval: 100ms", "interval: 1h, unhealthy_interval: 100ms");
    let yaml = yaml.replace("backends: [", &format!("backends: [{{ address: '127.0.0.1:{}' }}, ", late.port));
    let started = std::time::Instant::now();
    let _lab = Lab::start(&yaml);
    assert!(started.elapsed() < PATIENCE, "the first check does not wait for the interval of an hour");
    assert!((0..10).all(|_| get(port, "/apiA").status == 200));
    open.store(true, Ordering::SeqCst);
    eventually("the late backend is used", PATIENCE, || get(port, "/apiA").status == 299);
}

#[test]
fn request_waiting_at_a_backend_that_stops_responding_to_checks_is_retried() {
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    let backend = Scripted::start(move |mut stream| {
        while !read_head(&mut stream).is_empty() {
            while stopped.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let backup = Backend::start("backup");
    let port = free_port();
    let yaml = one_pool(port, &[&backup], "");
    let both = format!("backends: [{{ address: '127.0.0.1:{}' }}, ", backend.port);
    let yaml = yaml.replace("backends: [", &both).replace(
        &format!("{{ address: '127.0.0.1:{}' }}]", backup.port),
        &format!("{{ address: '127.0.0.1:{}', backup: true }}]", backup.port),
    );
    let lab = Lab::start(&yaml);
    assert_eq!(get(port, "/apiA").header("x-backend"), "", "the backup is not used yet");
    stop.store(true, Ordering::SeqCst);
    assert_eq!(get(port, "/apiA").header("x-backend"), "backup");
    lab.wait_for_access("attempts=2");
    stop.store(false, Ordering::SeqCst);
}
