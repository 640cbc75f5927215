//! The filter `access`, and `access` of listeners.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use l7lb::http::proxy_protocol::encode_v2;
use nix::sys::signal::Signal;

use crate::lab::authority::{Authority, Client, Issued, handshake, replace};
use crate::lab::client::{Response, connect, get, get_with, read_response};
use crate::lab::countries::database;
use crate::lab::frames::{Frames, request};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::Held;
use crate::lab::{Backend, Lab, PATIENCE, eventually, free_port, run, yaml};
use crate::reload::{UNWATCHED, reloaded};

/// The networks of the fixture.
const COUNTRIES: [(&str, &str); 5] = [
    ("192.0.2.0/24", "DE"),
    ("198.51.100.0/24", "US"),
    ("203.0.113.0/24", "FR"),
    ("127.0.0.0/8", "AT"),
    ("2001:db8::/32", "DE"),
];

const TRUSTED: &str = "trusted_proxies: [127.0.0.0/8]\n";

/// The status for a client with this address, named by a trusted proxy.
fn status_of(port: u16, client: &str) -> u16 {
    get_with(port, "/", &format!("X-Forwarded-For: {client}\r\n")).status
}

fn status_over_http2(port: u16, client: &str) -> u16 {
    let mut frames = Frames::connect(port);
    let field: [(&[u8], &[u8]); 1] = [(b"x-forwarded-for", client.as_bytes())];
    frames.headers(1, true, &[&request(b"GET", b"/")[..], &field[..]].concat());
    frames.find(|frame| frame.stream == 1).unwrap().status()
}

#[test]
fn file_with_countries_for_unit_tests_is_what_the_writer_writes() {
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/countries.mmdb"));
    let wanted = database(&COUNTRIES);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &wanted).unwrap();
    }
    assert!(std::fs::read(&file).unwrap() == wanted);
}

#[test]
fn denied_client_gets_403_with_a_cause_over_both_versions_of_http_and_no_backend_sees_it() {
    let (backend, port) = (Recorder::start(), free_port());
    let filters = "filters: [{ access: { rules: [{ deny: { networks: 10.1.0.0/16 } }, { allow: { networks: [10.0.0.0/8, 2001:db8::/32] } }] } }]\n";
    let lab = Lab::start(&yaml(port, backend.port, "", &format!("{TRUSTED}{filters}")));
    for (client, status) in [("10.0.0.1", 200), ("10.1.0.1", 403), ("192.0.2.1", 403), ("2001:db8::1", 200)] {
        assert_eq!((status_of(port, client), status_over_http2(port, client)), (status, status), "{client}");
        let explained = run(&[
            "explain",
            "--conf",
            lab.folder().join("l7lb.yaml").to_str().unwrap(),
            "--from",
            client,
            "http://a/",
        ]);
        let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
        let words =
            if status == 200 { "passes  (2 rules, otherwise deny)" } else { "rejects it with 403 access_denied" };
        assert!(explained.contains(words), "{client}: {explained}");
    }
    assert_eq!(backend.take().len(), 4, "only allowed requests reach the backend");
    let line = lab.wait_for_access("client=10.1.0.1 ");
    assert!(line.contains("cause=access_denied") && line.contains("denied by a rule"), "{line}");
    let line = lab.wait_for_access("client=192.0.2.1 ");
    assert!(line.contains("cause=access_denied") && line.contains("no rule allows the client"), "{line}");
    let response = get_with(port, "/", "X-Forwarded-For: 10.1.0.1\r\nAccept: application/json\r\n");
    assert!(response.body.contains("\"cause\":\"access_denied\""), "{response:?}");
}

/// A peer that is no trusted proxy cannot choose its address, and names of countries in the request mean nothing.
#[test]
fn address_that_an_untrusted_peer_names_is_ignored() {
    let (backend, port) = (Recorder::start(), free_port());
    let filters = "filters: [{ access: { rules: [{ allow: { networks: 10.0.0.0/8 } }] } }]\n";
    let _lab = Lab::start(&yaml(port, backend.port, "", filters));
    for client in ["10.0.0.1", "10.0.0.1, 10.0.0.2", "::ffff:10.0.0.1", ""] {
        assert_eq!(status_of(port, client), 403, "{client}");
    }
    assert!(backend.take().is_empty());
}

#[test]
fn replaced_country_file_applies_without_a_reload_and_a_damaged_one_keeps_the_previous() {
    let (backend, port) = (Recorder::start(), free_port());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let file = folder.path().join("countries.mmdb");
    replace(&file, database(&COUNTRIES));
    let filters = "filters: [{ access: { rules: [{ allow: { countries: [DE, AT] } }], country_file: '{folder}/countries.mmdb' } }]\n";
    let lab = Lab::start_in(Arc::clone(&folder), &yaml(port, backend.port, "", &format!("{TRUSTED}{filters}")));
    assert_eq!(
        [status_of(port, "192.0.2.1"), status_of(port, "198.51.100.1"), status_of(port, "10.0.0.1")],
        [200, 403, 403]
    );
    assert_eq!(status_over_http2(port, "2001:db8::1"), 200);
    replace(&file, database(&[("198.51.100.0/24", "DE"), ("192.0.2.0/24", "US")]));
    eventually("the new file applies", PATIENCE, || status_of(port, "198.51.100.1") == 200);
    assert_eq!(status_of(port, "192.0.2.1"), 403);
    lab.wait_for_log("file of a filter loaded: file=");
    replace(&file, "damaged");
    lab.wait_for_log("file of a filter not loaded, the previous one stays in use: file=");
    assert_eq!([status_of(port, "198.51.100.1"), status_of(port, "192.0.2.1")], [200, 403]);
}

fn request_over_tls(port: u16, authority: &Authority, shows: Option<&Issued>) -> Response {
    let config = Client { shows, ..Client::new(authority) }.config();
    let mut connection = handshake(port, "a.test", &config).unwrap();
    connection.write_all(b"GET /apiA HTTP/1.1\r\nHost: a.test\r\nX-Client-Cert-Subject: CN=alice\r\n\r\n").unwrap();
    read_response(&mut connection)
}

#[test]
fn client_certificate_decides_and_a_field_that_claims_one_does_not() {
    let (backend, port) = (Backend::start("one"), free_port());
    let (authority, folder) = (Authority::new("authority"), Arc::new(tempfile::tempdir().unwrap()));
    authority.issue(&["a.test"]).write(folder.path(), "one");
    replace(&folder.path().join("ca.pem"), authority.pem());
    let text =
        crate::one_pool(port, &[&backend], "filters: [{ access: { rules: [{ allow: { subjects: CN=alice } }] } }]\n");
    let tls = "tls: { certificates: [{ certificate: '{folder}/one.pem', key: '{folder}/one-key.pem' }], client_auth: { mode: optional, ca: '{folder}/ca.pem' } } }]";
    let _lab = Lab::start_in(Arc::clone(&folder), &text.replacen(" }]", &format!(", {tls}"), 1));
    let (alice, bob) = (authority.issue(&["alice"]), authority.issue(&["bob"]));
    assert_eq!(request_over_tls(port, &authority, Some(&alice)).status, 200);
    assert_eq!(request_over_tls(port, &authority, Some(&bob)).status, 403);
    assert_eq!(request_over_tls(port, &authority, None).status, 403);
}

/// Whether a connection gets a response; the PROXY protocol header names its client.
fn is_served(port: u16, client: &str) -> bool {
    let header = encode_v2(format!("{client}:1234").parse().unwrap(), "198.51.100.1:443".parse().unwrap());
    let mut stream = connect(port);
    stream.write_all(&header).unwrap();
    // The connection may be closed already.
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).ok();
    assert!(read.is_empty() || read.starts_with(b"HTTP/1.1 200"), "{}", read.escape_ascii());
    !read.is_empty()
}

#[test]
fn listener_disconnects_denied_peers_before_tls_and_takes_new_rules_with_a_reload() {
    let (backend, plain, tls) = (Recorder::start(), free_port(), free_port());
    let listeners = |rule: &str| {
        format!(
            "listeners:\n  - {{ address: '127.0.0.1:{plain}', proxy_protocol: {{ trusted: [127.0.0.0/8] }}, access: {{ rules: [{rule}], default: allow }} }}\n  \
             - {{ address: '127.0.0.1:{tls}', access: {{ rules: [{{ deny: {{ networks: 127.0.0.0/8 }} }}], default: allow }}, \
             tls: {{ certificates: [{{ certificate: '{{folder}}/localhost.pem', key: '{{folder}}/localhost-key.pem' }}] }} }}\n"
        )
    };
    let text = yaml(0, backend.port, "", "");
    let rest = text.split_once('\n').unwrap().1;
    let with = |rule: &str| format!("{}{rest}", listeners(rule));
    let lab = Lab::start(&with("{ deny: { networks: 192.0.2.0/24 } }"));
    assert_eq!([is_served(plain, "192.0.2.7"), is_served(plain, "203.0.113.7")], [false, true]);
    let mut stream = connect(tls);
    let mut read = Vec::new();
    stream.read_to_end(&mut read).ok();
    assert!(read.is_empty(), "the connection is closed without a byte, not even an alert of TLS");
    Lab::configure(lab.folder(), &with("{ deny: { networks: 203.0.113.0/24 } }"));
    lab.signal(Signal::SIGHUP);
    let line = lab.wait_for_log("reloaded");
    assert!(line.contains("listeners.access") && !line.contains("upgrade"), "{line}");
    assert_eq!([is_served(plain, "192.0.2.7"), is_served(plain, "203.0.113.7")], [true, false]);
}

#[test]
fn request_in_progress_keeps_the_rules_with_which_it_started() {
    let (held, port) = (Held::start(), free_port());
    let text = |network: &str| {
        let filter = format!("{{ access: {{ rules: [{{ allow: {{ networks: {network} }} }}] }} }}");
        yaml(port, held.port, "", &format!("filters: [{filter}]\n{UNWATCHED}"))
    };
    let lab = Lab::start(&text("127.0.0.0/8"));
    let mut stream = connect(port);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    held.arrived();
    crate::reload::replace(&lab, &text("10.0.0.0/8"));
    reloaded(&lab);
    assert_eq!(get(port, "/").status, 403);
    held.release();
    assert_eq!(read_response(&mut stream).status, 200);
}
