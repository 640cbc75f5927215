//! The filter `buffer`.

use std::io::{Read as _, Write as _};

use crate::lab::client::{connect, exchange, read_head, read_response};
use crate::lab::frames::{DATA, END_STREAM, Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, free_port, lacks_own_engine, yaml};
use crate::reload::{UNWATCHED, reloaded, replace};

#[test]
fn slow_upload_holds_no_backend_until_it_is_complete() {
    if lacks_own_engine() {
        return;
    }
    let (backend, port) = (Recorder::start(), free_port());
    let text = yaml(port, backend.port, "max_in_flight: { per_backend: 1 }, queue: { length: 4 },", "");
    let _lab = Lab::start(&format!("{text}filters: [{{ buffer: {{}} }}]\n"));
    let mut slow = connect(port);
    slow.write_all(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").unwrap();
    let mut frames = Frames::connect(port);
    frames.headers(1, false, &request(b"POST", b"/frames"));
    frames.send(DATA, 0, 1, b"hel");
    for _ in 0..3 {
        let quick =
            exchange(port, b"POST /quick HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        assert_eq!(quick.status, 200, "the only place at the backend is free");
    }
    slow.write_all(b"world").unwrap();
    assert_eq!(read_response(&mut slow).status, 200);
    frames.send(DATA, END_STREAM, 1, b"lo");
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
    let received: Vec<_> = backend.take().iter().map(|received| received.brief()).collect();
    let quick = "POST /quick|ok".to_owned();
    assert_eq!(received[..4], [quick.clone(), quick.clone(), quick, "POST /slow|helloworld".to_owned()]);
    assert!(received[4].starts_with("POST /frames|") && received[4].ends_with("hello"), "{received:?}");
}

#[test]
fn client_that_waits_for_100_gets_it_before_a_backend_is_chosen() {
    if lacks_own_engine() {
        return;
    }
    let (backend, port) = (Recorder::start(), free_port());
    let _lab = Lab::start(&yaml(port, backend.port, "", "filters: [{ buffer: {} }]\n"));
    let mut stream = connect(port);
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 100"));
    assert!(backend.take().is_empty());
    stream.write_all(b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").unwrap();
    assert_eq!(read_response(&mut stream).status, 200);
    assert_eq!(backend.take().len(), 1);
}

#[test]
fn buffered_body_is_sent_again_to_another_backend() {
    if lacks_own_engine() {
        return;
    }
    let broken = Scripted::start(|mut stream| {
        read_head(&mut stream);
        let mut body = [0; 1000];
        stream.read_exact(&mut body).ok();
    });
    let (backend, port) = (Recorder::start(), free_port());
    let two = format!(
        "balance: round_robin, backends: [{{ address: '127.0.0.1:{}' }}, {{ address: '127.0.0.1:{}' }}] }}",
        broken.port, backend.port
    );
    let text = yaml(port, backend.port, "", "filters: [{ buffer: { size: 200KiB } }]\n");
    let text = text.replace(&format!(" backends: [{{ address: '127.0.0.1:{}' }}] }}", backend.port), &two);
    let text = text.replace("pool: a }]", "pool: a, retry: { attempts: 2, methods: any } }]");
    let _lab = Lab::start(&text);
    let body = "x".repeat(200 << 10);
    let request =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    for _ in 0..2 {
        assert_eq!(exchange(port, request.as_bytes()).status, 200, "larger than what is kept without the filter");
    }
    let received = backend.take();
    assert_eq!(received.len(), 2);
    assert!(received.iter().all(|received| received.body == body.as_bytes()));
}

#[test]
fn body_larger_than_the_buffer_is_rejected() {
    if lacks_own_engine() {
        return;
    }
    let (backend, port) = (Recorder::start(), free_port());
    let filters = "filters: [{ buffer: { size: 10 } }, { body_limit: { size: 1MiB } }]\n";
    let lab = Lab::start(&yaml(port, backend.port, "", &format!("{filters}access_log: {{ format: json }}\n")));
    let chunked = |length: usize| {
        let body = "x".repeat(length);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        exchange(port, format!("{head}{length:x}\r\n{body}\r\n0\r\n\r\n").as_bytes()).status
    };
    assert_eq!((chunked(10), chunked(11), chunked(100_000)), (200, 413, 413));
    lab.wait_for_access("\"cause\":\"body_too_large\"");
    assert_eq!(backend.take().len(), 1);
}

#[test]
fn upload_continues_when_a_reload_removes_the_filter_meanwhile() {
    if lacks_own_engine() {
        return;
    }
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, "", &format!("filters: [{{ buffer: {{}} }}]\n{UNWATCHED}")));
    let mut slow = connect(port);
    slow.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab").unwrap();
    crate::lab::eventually("the request has arrived", crate::lab::PATIENCE, || {
        exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").status == 200
    });
    replace(&lab, &yaml(port, backend.port, "", UNWATCHED));
    reloaded(&lab);
    slow.write_all(b"cd").unwrap();
    assert_eq!(read_response(&mut slow).status, 200);
    assert_eq!(backend.take().last().unwrap().brief(), "POST /|abcd");
}
