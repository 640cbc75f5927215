//! The filter `error_pages`.

use std::io::{Read as _, Write as _};

use crate::lab::client::{connect, get, get_with};
use crate::lab::frames::{DATA, Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::{Lab, free_port};
use crate::reload::{UNWATCHED, reloaded, replace};

/// Routes to a backend that responds with an error, to one that is down, and to a filter.
fn yaml(port: u16, backend: u16, pages: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\nfilters: [{{ error_pages: {{ pages: [{pages}] }} }}]\n\
         pools:\n  a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }}\n\
         \x20 down: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n\
         routes: [{{ path: /a, pool: a }}, {{ path: /down, pool: down }}, {{ path: /gone, filters: [{{ respond: {{ status: 410, body: gone }} }}] }}]\n{UNWATCHED}",
        free_port()
    )
}

const FAULT: &[u8] =
    b"HTTP/1.1 500 Oops\r\nContent-Type: text/css\r\nETag: \"x\"\r\nX-Kept: 1\r\nContent-Length: 3\r\n\r\nraw";

#[test]
fn errors_of_l7lb_and_of_backends_get_their_page_over_both_versions_of_http() {
    let (backend, port) = (Recorder::answering(FAULT), free_port());
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (html, json, text) = (path("e.html"), path("e.json"), path("e.txt"));
    std::fs::write(&html, "<p>${status} ${cause} ${request.id}</p>").unwrap();
    std::fs::write(&json, "{\"status\":${status},\"cause\":\"${cause}\"}").unwrap();
    std::fs::write(&text, "later").unwrap();
    let missing = format!("{{ causes: [no_route], html: '{html}', json: '{json}' }}");
    let faults = format!("{{ statuses: [500, 502], backend_errors: true, text: '{text}' }}");
    let lab = Lab::start_in(std::sync::Arc::clone(&folder), &yaml(port, backend.port, &format!("{missing}, {faults}")));
    let unknown = get_with(port, "/x", "Accept: text/html, */*;q=0.1\r\n");
    let expected = format!("<p>404 no_route {}</p>", unknown.header("x-request-id"));
    assert_eq!((unknown.status, unknown.body.as_str()), (404, expected.as_str()));
    assert_eq!((unknown.header("content-type"), unknown.header("vary")), ("text/html; charset=utf-8", "Accept"));
    let unknown = get_with(port, "/x", "Accept: application/json\r\n");
    assert_eq!(
        (unknown.header("content-type"), unknown.body.as_str()),
        ("application/json", "{\"status\":404,\"cause\":\"no_route\"}")
    );
    let down = get(port, "/down");
    assert_eq!((down.status, down.body.as_str(), down.header("content-length")), (502, "later", "5"));
    let replaced = get(port, "/a");
    assert_eq!((replaced.status, replaced.body.as_str(), replaced.header("content-length")), (500, "later", "5"));
    assert_eq!((replaced.header("etag"), replaced.header("x-kept")), ("", "1"));
    assert_eq!(get(port, "/gone").body, "gone", "a response that is configured stays");
    let mut stream = connect(port);
    stream.write_all(b"HEAD /down HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    assert!(head.to_lowercase().contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let mut frames = Frames::connect(port);
    frames.headers(1, true, &request(b"GET", b"/a"));
    let body = frames.find(|frame| frame.stream == 1 && frame.kind == DATA && !frame.payload.is_empty()).unwrap();
    assert_eq!(body.payload, b"later");
    std::fs::write(&text, "sooner").unwrap();
    assert_eq!(get(port, "/down").body, "later", "files are read at a reload");
    replace(&lab, &yaml(port, backend.port, &faults));
    reloaded(&lab);
    assert_eq!((get(port, "/down").body.as_str(), get(port, "/a").body.as_str()), ("sooner", "sooner"));
    assert!(get(port, "/x").body.starts_with("404 no_route\n"), "an error without a page keeps its body");
}

#[test]
fn denial_for_lack_of_a_password_gets_the_page_of_its_status_and_keeps_its_challenge() {
    let (backend, port) = (Recorder::start(), free_port());
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("users"), include_str!("../../config/users.htpasswd")).unwrap();
    std::fs::write(folder.path().join("e.json"), "{\"cause\":\"${cause}\"}").unwrap();
    let text = yaml(port, backend.port, "{ statuses: [401], json: '{folder}/e.json' }");
    let filter = "pool: a, filters: [{ basic_auth: { file: '{folder}/users', realm: r } }] }";
    let _lab = Lab::start_in(folder, &text.replacen("pool: a }", filter, 1));
    // alice:wrong
    for credentials in ["", "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n", "Authorization: Bearer x\r\n"] {
        let denied = get_with(port, "/a", credentials);
        assert_eq!((denied.status, denied.header("content-type")), (401, "application/json"), "{credentials}");
        assert_eq!(denied.body, "{\"cause\":\"unauthorized\"}", "{credentials}");
        assert_eq!(denied.header("www-authenticate"), "Basic realm=\"r\", charset=\"UTF-8\"", "{credentials}");
        assert_eq!(denied.header("cache-control"), "no-store", "{credentials}");
    }
    assert!(backend.take().is_empty());
}

#[test]
fn file_of_a_page_that_is_too_large_or_has_an_unknown_variable_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let (page, file) = (folder.path().join("e.html"), folder.path().join("l7lb.yaml"));
    std::fs::write(&file, yaml(8080, 1, &format!("{{ html: '{}' }}", page.display()))).unwrap();
    for (contents, problem) in [
        (vec![b'x'; 65_537], "more than 64 KiB"),
        (b"${client.ip}".to_vec(), "the page has no variable `client.ip`"),
        (b"${stauts}".to_vec(), "did you mean ${status}?"),
        (b"\xff".to_vec(), "is not UTF-8"),
    ] {
        std::fs::write(&page, contents).unwrap();
        let output = crate::lab::run(&["check", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(problem), "{said}");
    }
}
