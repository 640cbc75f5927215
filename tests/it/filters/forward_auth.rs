//! The filter `forward_auth`.

use std::io::Write as _;
use std::time::Duration;

use crate::lab::client::{connect, get, get_with, read_response};
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::{Held, Scripted};
use crate::lab::{Lab, free_port, lacks_own_engine, run};
use crate::reload::{UNWATCHED, reloaded};

fn text(port: u16, (backend, auth): (u16, u16), keys: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\npools:\n  \
           a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }}\n  \
           auth: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{auth}' }}] }}\n\
         routes: [{{ path: /, pool: a }}]\nfilters: [{{ forward_auth: {{ pool: auth, path: '/verify?x=1', {keys} }} }}]\n{UNWATCHED}"
    )
}

const APPROVAL: &[u8] = b"HTTP/1.1 200 OK\r\nRemote-User: alice\r\nX-Other: 1\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn approved_request_reaches_the_backend_with_the_fields_of_the_service_over_both_versions_of_http() {
    if lacks_own_engine() {
        return;
    }
    let (backend, auth, port) = (Recorder::start(), Recorder::answering(APPROVAL), free_port());
    let lab = Lab::start(&text(port, (backend.port, auth.port), "copy_headers: [Remote-User, Remote-Groups]"));
    let forged = "Cookie: s=1\r\nRemote-User: root\r\nRemote-Groups: admin\r\nX-Forwarded-Uri: /public\r\n";
    assert_eq!(get_with(port, "/x?y=2", forged).status, 200);
    let mut frames = Frames::connect(port);
    let fields: [(&[u8], &[u8]); 3] = [(b"cookie", b"s=1"), (b"remote-user", b"root"), (b"remote-groups", b"admin")];
    frames.headers(1, true, &[&request(b"GET", b"/x?y=2")[..], &fields[..]].concat());
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 200);
    let (asked, received) = (auth.take(), backend.take());
    assert_eq!((asked.len(), received.len()), (2, 2));
    for asked in asked {
        assert_eq!(asked.brief(), "GET /verify?x=1");
        for (name, value) in [
            ("x-forwarded-method", "GET"),
            ("x-forwarded-uri", "/x?y=2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-for", "127.0.0.1"),
            ("cookie", "s=1"),
        ] {
            assert_eq!(asked.values(name), [value], "{name}: {asked:?}");
        }
        assert!(asked.values("remote-user").is_empty(), "{asked:?}");
    }
    for received in received {
        assert_eq!(received.values("remote-user"), ["alice"]);
        assert!(received.values("remote-groups").is_empty() && received.values("x-other").is_empty(), "{received:?}");
    }
    let file = lab.folder().join("l7lb.yaml");
    let explained = run(&["explain", "--conf", file.to_str().unwrap(), "http://a/"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("waits: asks pool auth at /verify?x=1"), "{explained}");
    assert_eq!(get_with(port, "/", "Connection: Remote-User\r\n").status, 400);
}

#[test]
fn denial_goes_to_the_client_with_its_body_and_no_backend_sees_the_request() {
    if lacks_own_engine() {
        return;
    }
    let backend = Recorder::start();
    for (answer, status) in [
        (&b"HTTP/1.1 302 Found\r\nLocation: https://login.test/\r\nSet-Cookie: a=b\r\nX-Secret: 1\r\nContent-Length: 5\r\n\r\nlogin"[..], 302),
        (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nX-Secret: 1\r\nContent-Length: 5\r\n\r\nlogin", 401),
    ] {
        let (auth, port) = (Recorder::answering(answer), free_port());
        let lab = Lab::start(&text(port, (backend.port, auth.port), ""));
        let response = get(port, "/");
        assert_eq!((response.status, response.body.as_str()), (status, "login"));
        let names = ["location", "set-cookie", "www-authenticate"];
        assert!(names.iter().any(|name| !response.header(name).is_empty()), "{response:?}");
        assert_eq!((response.header("x-secret"), response.header("cache-control")), ("", "no-store"));
        lab.wait_for_access("cause=forward_auth");
    }
    assert!(backend.take().is_empty());
}

#[test]
fn failure_of_the_service_denies_the_request_unless_configured_otherwise() {
    if lacks_own_engine() {
        return;
    }
    let backend = Recorder::start();
    let broken = Recorder::answering(b"HTTP/1.1 500 Broken\r\nRemote-User: root\r\nContent-Length: 0\r\n\r\n");
    // Its response never ends.
    let trickling = Scripted::start(|mut stream| {
        let head = b"HTTP/1.1 200 OK\r\nRemote-User: root\r\nContent-Length: 1000\r\n\r\n";
        if stream.write_all(head).is_ok() {
            while stream.write_all(b".").is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let large = Scripted::start(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n").ok();
        while stream.write_all(&[b'.'; 10_000]).is_ok() {}
    });
    for (auth, detail) in [
        (broken.port, "another status code"),
        (trickling.port, "no response in time"),
        (large.port, "too large"),
        (free_port(), "no backend responded"),
    ] {
        for (on_error, status) in [("deny", 503), ("allow", 200)] {
            let port = free_port();
            let keys = format!("copy_headers: [Remote-User], timeout: 700ms, on_error: {on_error}");
            let lab = Lab::start(&text(port, (backend.port, auth), &keys));
            assert_eq!(get_with(port, "/", "Remote-User: root\r\n").status, status, "{detail} {on_error}");
            if status == 503 {
                let line = lab.wait_for_access("cause=auth_unavailable");
                assert!(line.contains(detail), "{line}");
            }
        }
    }
    let received = backend.take();
    assert_eq!(received.len(), 4);
    assert!(received.iter().all(|received| received.values("remote-user").is_empty()), "{received:?}");
}

#[test]
fn approval_is_remembered_for_equal_requests_only_and_a_denial_is_not() {
    if lacks_own_engine() {
        return;
    }
    let (backend, auth, port) = (Recorder::start(), Recorder::answering(APPROVAL), free_port());
    let keys = "copy_headers: [Remote-User], remember: 1h";
    let _lab = Lab::start(&text(port, (backend.port, auth.port), keys));
    for (path, fields) in
        [("/", ""), ("/", ""), ("/a", ""), ("/", "Cookie: s=1\r\n"), ("/", "Cookie: s=1\r\n"), ("/", "X-A: 1\r\n")]
    {
        assert_eq!(get_with(port, path, fields).status, 200);
    }
    assert_eq!(auth.take().len(), 3);
    assert!(backend.take().iter().all(|received| received.values("remote-user") == ["alice"]));
    let (denying, other) = (Recorder::answering(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), free_port());
    let _other = Lab::start(&text(other, (backend.port, denying.port), keys));
    assert_eq!([get(other, "/").status, get(other, "/").status], [403, 403]);
    assert_eq!(denying.take().len(), 2);
}

#[test]
fn request_that_waits_for_the_service_keeps_its_filters_when_a_reload_replaces_them() {
    if lacks_own_engine() {
        return;
    }
    let (backend, held, port) = (Recorder::start(), Held::start(), free_port());
    let lab = Lab::start(&text(port, (backend.port, held.port), "timeout: 60s"));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    held.arrived();
    let denying = Recorder::answering(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    crate::reload::replace(&lab, &text(port, (backend.port, denying.port), "timeout: 60s"));
    reloaded(&lab);
    assert_eq!(get(port, "/").status, 403);
    held.release();
    assert_eq!(read_response(&mut stream).status, 200);
}
