//! The filter `maintenance`.

use crate::lab::client::get;
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Held;
use crate::lab::{Lab, free_port, run, yaml};
use crate::reload::{UNWATCHED, reloaded, replace};

#[test]
fn maintenance_begins_and_ends_with_its_switch_file() {
    let (backend, port) = (Recorder::start(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let switch = folder.path().join("maintenance");
    let filter = format!("filters: [{{ maintenance: {{ switch_file: '{}', retry_after: 90s }} }}]\n", switch.display());
    let lab = Lab::start(&yaml(port, backend.port, "", &format!("{filter}access_log: {{ format: json }}\n")));
    let explained = || {
        let file = lab.folder().join("l7lb.yaml");
        let output = run(&["explain", &format!("http://a:{port}/"), "--conf", file.to_str().unwrap()]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(get(port, "/").body, "ok");
    assert!(explained().contains("not active"), "{}", explained());
    std::fs::write(&switch, "").unwrap();
    let closed = get(port, "/");
    assert_eq!((closed.status, closed.header("retry-after"), closed.header("cache-control")), (503, "90", "no-store"));
    assert_eq!(closed.body, "The service is under maintenance.\n");
    assert!(explained().contains("responds with 503 maintenance"), "{}", explained());
    lab.wait_for_access("\"cause\":\"maintenance\"");
    let mut frames = Frames::connect(port);
    frames.headers(1, true, &request(b"GET", b"/"));
    assert_eq!(frames.find(|frame| frame.stream == 1).unwrap().status(), 503);
    std::fs::remove_file(&switch).unwrap();
    assert_eq!(get(port, "/").status, 200);
    assert_eq!(backend.take().len(), 2);
}

#[test]
fn allowed_clients_pass_maintenance() {
    let (backend, port) = (Recorder::start(), free_port());
    for (allow, status) in [("127.0.0.0/8", 200), ("'::1/128'", 503), ("192.0.2.0/24", 503), ("", 503)] {
        let port = free_port();
        let filter = format!("filters: [{{ maintenance: {{ allow: [{allow}], body: closed }} }}]\n");
        let _lab = Lab::start(&yaml(port, backend.port, "", &filter));
        let response = get(port, "/");
        assert_eq!((response.status, response.body == "closed"), (status, status == 503), "{allow}");
    }
    let trusting = "trusted_proxies: [127.0.0.1/32]\nfilters: [{ maintenance: { allow: [127.0.0.0/8] } }]\n";
    let _lab = Lab::start(&yaml(port, backend.port, "", trusting));
    let response = crate::lab::client::get_with(port, "/", "X-Forwarded-For: 192.0.2.1\r\n");
    assert_eq!(response.status, 503, "the client counts, not the proxy");
}

#[test]
fn request_in_flight_is_completed_when_a_reload_begins_maintenance() {
    let (backend, port) = (Held::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, "", UNWATCHED));
    let pending = std::thread::spawn(move || get(port, "/").status);
    backend.arrived();
    replace(&lab, &yaml(port, backend.port, "", &format!("filters: [{{ maintenance: {{}} }}]\n{UNWATCHED}")));
    reloaded(&lab);
    assert_eq!(get(port, "/").status, 503);
    backend.release();
    assert_eq!(pending.join().unwrap(), 200);
}
