//! Pools that are given more than they may work on.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::{Moody, pool};
use crate::lab::client::{Answer, get, read_head};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

/// So many requests at once; the answers as they come.
fn ask(port: u16, count: usize) -> mpsc::Receiver<Answer> {
    let (sender, answers) = mpsc::channel();
    for _ in 0..count {
        let sender = sender.clone();
        thread::spawn(move || sender.send(get(port, "/")).ok());
    }
    answers
}

fn keys(bounds: &str) -> String {
    format!("health_check: {{ type: none }}, {bounds}")
}

#[test]
fn who_finds_the_queue_full_is_refused_at_once_and_who_waits_is_served() {
    for bound in ["per_backend", "total"] {
        let backend = Moody::start(0);
        let port = free_port();
        let bounds = format!("max_in_flight: {{ {bound}: 1 }}, queue: {{ length: 1, timeout: 1h }}");
        let lab = Lab::start(&pool(port, &[backend.port()], &keys(&bounds)));
        let first = ask(port, 1);
        eventually("the first is at the backend", PATIENCE, || backend.backend.connections() == 1);
        let others = ask(port, 2);
        let refused = others.recv_timeout(PATIENCE).unwrap();
        assert_eq!(refused.status, 503);
        assert!(refused.body.contains("queue_full"), "{refused:?}");
        assert_eq!(refused.header("retry-after"), "3600");
        assert!(others.try_recv().is_err(), "one waits");
        backend.set(200);
        assert_eq!(first.recv_timeout(PATIENCE).unwrap().status, 200);
        assert_eq!(others.recv_timeout(PATIENCE).unwrap().status, 200);
        lab.wait_for_access("cause=queue_full");
    }
}

#[test]
fn who_waits_too_long_is_told() {
    let backend = Moody::start(0);
    let port = free_port();
    let bounds = "max_in_flight: { total: 1 }, queue: { timeout: 100ms }";
    let _lab = Lab::start(&pool(port, &[backend.port()], &keys(bounds)));
    let first = ask(port, 1);
    eventually("the first is at the backend", PATIENCE, || backend.backend.connections() == 1);
    let late = get(port, "/");
    assert_eq!((late.status, late.header("retry-after")), (503, "1"));
    assert!(late.body.contains("queue_timeout"), "{late:?}");
    backend.set(200);
    assert_eq!(first.recv_timeout(PATIENCE).unwrap().status, 200);
    assert_eq!(get(port, "/").status, 200, "the place is free again");
}

#[test]
fn a_busy_backend_does_not_hold_up_a_free_one() {
    let (busy, free) = (Moody::start(0), Moody::start(200));
    let port = free_port();
    let bounds = "max_in_flight: { per_backend: 1 }, queue: { timeout: 1h }";
    let _lab = Lab::start(&pool(port, &[busy.port(), free.port()], &keys(bounds)));
    let mut asked = Vec::new();
    eventually("one is held", PATIENCE, || {
        asked.push(ask(port, 1));
        busy.backend.connections() == 1
    });
    assert!((0..10).all(|_| get(port, "/").status == 200));
    busy.set(200);
    assert!(asked.iter().all(|answer| answer.recv_timeout(PATIENCE).is_ok()));
}

#[test]
fn who_waits_goes_to_a_backend_that_comes_up() {
    // Two that are well for the health check, until one is not, and hold what they are asked.
    let start = || {
        let (well, answers) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (healthy, answering) = (Arc::clone(&well), Arc::clone(&answers));
        let backend = Scripted::start(move |mut stream| {
            let head = read_head(&mut stream);
            let health = head.starts_with("GET /health ");
            while !health && !head.is_empty() && !answering.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(5));
            }
            let status = if health && !healthy.load(Ordering::SeqCst) { 503 } else { 200 };
            write!(stream, "HTTP/1.1 {status} Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok();
        });
        (backend, well, answers)
    };
    let ((first, _, first_answers), (second, well, second_answers)) = (start(), start());
    well.store(false, Ordering::SeqCst);
    let port = free_port();
    let keys = "health_check: { type: http, path: /health, interval: 100ms, unhealthy_interval: 100ms, fall: 3, rise: 1 }, \
                max_in_flight: { per_backend: 1 }, queue: { timeout: 1h }";
    let lab = Lab::start(&pool(port, &[first.port, second.port], keys));
    lab.wait_for_log(&format!("backend down: pool=a backend=127.0.0.1:{}", second.port));
    second_answers.store(true, Ordering::SeqCst);
    let answers = ask(port, 2);
    assert!(answers.recv_timeout(Duration::from_millis(300)).is_err(), "one is held, one waits");
    well.store(true, Ordering::SeqCst);
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().status, 200, "the first has not answered");
    first_answers.store(true, Ordering::SeqCst);
    assert_eq!(answers.recv_timeout(PATIENCE).unwrap().status, 200);
}

#[test]
fn adaptive_concurrency_refuses_beyond_its_limit_or_only_says_so() {
    let backend = Moody::start(0);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port()], &keys("adaptive_concurrency: { mode: enforce }")));
    let answers = ask(port, 60);
    for _ in 0..10 {
        let refused = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
        assert!(refused.body.contains("overloaded"), "{refused:?}");
    }
    lab.wait_for_log("overload: pool=a limit=50 refused=");
    backend.set(200);
    assert!((0..50).all(|_| answers.recv_timeout(PATIENCE).unwrap().status == 200));

    backend.set(0);
    let port = free_port();
    let lab = Lab::start(&pool(port, &[backend.port()], &keys("adaptive_concurrency: { mode: observe }")));
    let answers = ask(port, 60);
    lab.wait_for_log("overload: pool=a limit=50 would_refuse=");
    backend.set(200);
    assert!((0..60).all(|_| answers.recv_timeout(PATIENCE).unwrap().status == 200));
}
