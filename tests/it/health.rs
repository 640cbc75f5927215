//! Health checks: who is used, and since when.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lab::client::get;
use crate::lab::scripted::Scripted;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port};
use crate::one_pool;

#[test]
fn a_backend_that_calls_itself_ill_is_not_used_and_the_reason_is_logged_once() {
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
fn without_a_healthy_backend_the_answer_is_503_with_retry_after() {
    let backend = Backend::start("one");
    let port = free_port();
    let lab = Lab::start(&one_pool(port, &[&backend], ""));
    backend.set_health(false);
    lab.wait_for_log("backend down");
    let answer = get(port, "/apiA");
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"));
    assert!(answer.body.contains("no_healthy_backend"), "{answer:?}");
}

#[test]
fn a_backend_is_not_used_before_its_first_pass_and_a_start_takes_no_interval() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    // Answers health checks with 500 until the gate opens; counts what else it gets as a fault.
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
    assert!(started.elapsed() < PATIENCE, "an interval of an hour was not waited for");
    assert!((0..10).all(|_| get(port, "/apiA").status == 200));
    open.store(true, Ordering::SeqCst);
    eventually("the late backend is used", PATIENCE, || get(port, "/apiA").status == 299);
}
