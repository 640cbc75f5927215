//! The filter `jwt` with keys in a file and at a URL, on HTTP/1.1 and HTTP/2, and attacks.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

use super::h2_client;
use crate::lab::client::{Response, get_with, read_head};
use crate::lab::recorder::Recorder;
use crate::lab::scripted::{Held, Scripted};
use crate::lab::{Lab, free_port, run};
use crate::reload::{UNWATCHED, file, reloaded, replace};

/// An issuer of tokens with one key.
pub(super) struct Issuer {
    id: &'static str,
    pair: EcdsaKeyPair,
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Issuer {
    pub(super) fn new(id: &'static str) -> Self {
        Self { id, pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    /// The public key as a JWK.
    fn jwk(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
        format!(r#"{{"kty":"EC","crv":"P-256","kid":"{}","x":"{x}","y":"{y}"}}"#, self.id)
    }

    fn sign(&self, claims: &str) -> String {
        let header = format!(r#"{{"alg":"ES256","kid":"{}"}}"#, self.id);
        let message = format!("{}.{}", encoded(header), encoded(claims));
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", encoded(signature.as_ref()))
    }

    /// A token for the audience `shop` that expires in the far future.
    pub(super) fn token(&self) -> String {
        self.sign(r#"{"iss":"https://login.test","aud":"shop","sub":"me","scope":"read","exp":99999999999}"#)
    }
}

/// A server of a JWK set that counts the requests.
struct KeyServer {
    port: u16,
    body: Arc<Mutex<String>>,
    requests: Arc<AtomicUsize>,
    _server: Scripted,
}

impl KeyServer {
    fn start(body: String) -> Self {
        let body = Arc::new(Mutex::new(body));
        let requests = Arc::<AtomicUsize>::default();
        let (current, counted) = (Arc::clone(&body), Arc::clone(&requests));
        let server = Scripted::start(move |mut stream| {
            if read_head(&mut stream).is_empty() {
                return;
            }
            counted.fetch_add(1, Ordering::Relaxed);
            let body = current.lock().unwrap().clone();
            // l7lb may close the connection before the end.
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok();
        });
        Self { port: server.port, body, requests, _server: server }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/jwks.json", self.port)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

pub(super) fn set(keys: &[&Issuer]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>().join(","))
}

fn yaml(port: u16, backend: u16, jwt: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\naccess_log: {{ format: json }}\n\
         pools: {{ a: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{backend}' }}] }} }}\n\
         routes: [{{ path: /, pool: a, filters: [{{ jwt: {{ issuers: 'https://login.test', {jwt} }} }}] }}]\n{UNWATCHED}"
    )
}

/// A lab whose filter has the keys in a file, with these further keys.
fn with_file(port: u16, backend: u16, issuer: &Issuer, more: &str) -> Lab {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("jwks.json"), set(&[issuer])).unwrap();
    Lab::start_in(folder, &yaml(port, backend, &format!("keys: '{{folder}}/jwks.json'{more}")))
}

/// A request with a token, on HTTP/1.1.
fn get(port: u16, token: &str) -> Response {
    get_with(port, "/", &format!("Authorization: Bearer {token}\r\nX-User: admin\r\n"))
}

#[test]
fn request_with_a_valid_token_is_forwarded_with_its_claims() {
    let (backend, port, issuer) = (Recorder::start(), free_port(), Issuer::new("a"));
    let more = ", audiences: shop, claim_headers: { X-User: sub, X-Role: role }";
    let _lab = with_file(port, backend.port, &issuer, more);
    let bearer = format!("Bearer {}", issuer.token());
    let h2 = [("authorization", bearer.as_str()), ("x-user", "admin"), ("x-role", "admin")];
    assert_eq!(get(port, &issuer.token()).status, 200);
    assert_eq!(h2_client::request(port, "GET", "/", &h2).status, 200);
    for received in backend.take() {
        assert_eq!((received.values("x-user"), received.values("x-role")), (vec!["me"], vec![]), "{received:?}");
    }
}

#[test]
fn request_without_an_accepted_token_is_refused_with_cause_and_challenge() {
    let (backend, port, issuer) = (Recorder::start(), free_port(), Issuer::new("a"));
    let lab = with_file(port, backend.port, &issuer, ", audiences: shop");
    let unsigned = format!("{}.{}.", encoded(r#"{"alg":"none","kid":"a"}"#), encoded(r#"{"exp":99999999999}"#));
    let claims = |iss: &str, aud: &str, exp: u64| format!(r#"{{"iss":"{iss}","aud":"{aud}","exp":{exp}}}"#);
    let far = 99_999_999_999;
    for (token, detail) in [
        (unsigned, "another algorithm"),
        (Issuer::new("a").token(), "signature"),
        (Issuer::new("b").token(), "key id"),
        (issuer.sign(&claims("https://login.test", "shop", 1)), "expired"),
        (issuer.sign(&claims("https://evil.test", "shop", far)), "issuer"),
        (issuer.sign(&claims("https://login.test", "other", far)), "audience"),
        ("x".repeat(20_000), "16 KiB"),
        ("..".to_owned(), "malformed"),
    ] {
        let h1 = get(port, &token);
        let h2 = h2_client::request(port, "GET", "/", &[("authorization", &format!("Bearer {token}"))]);
        for response in [h1, h2] {
            let challenge = response.header("www-authenticate");
            assert_eq!(
                (response.status, challenge),
                (401, "Bearer realm=\"l7lb\", error=\"invalid_token\""),
                "{detail}"
            );
        }
        let line: Value = serde_json::from_str(&lab.wait_for_access(detail)).unwrap();
        assert_eq!(line["cause"], "unauthorized", "{line}");
    }
    let response = get_with(port, "/", "");
    assert_eq!((response.status, response.header("www-authenticate")), (401, "Bearer realm=\"l7lb\""));
    assert!(backend.take().is_empty());
}

/// The limit of the header is 32 KiB, so a token of 1 MiB never reaches the filter.
#[test]
fn token_of_one_mebibyte_is_refused_by_the_limit_of_the_header() {
    let (backend, port, issuer) = (Recorder::start(), free_port(), Issuer::new("a"));
    let _lab = with_file(port, backend.port, &issuer, "");
    let mut stream = crate::lab::client::connect(port);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", "x".repeat(1 << 20));
    // The connection may be closed before the end.
    stream.write_all(request.as_bytes()).ok();
    let head = read_head(&mut stream);
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 431"), "{head}");
    assert_eq!(get(port, &issuer.token()).status, 200);
}

#[test]
fn token_without_a_required_claim_is_denied() {
    let (backend, port, issuer) = (Recorder::start(), free_port(), Issuer::new("a"));
    let lab = with_file(port, backend.port, &issuer, ", required_claims: { scope: write }");
    assert_eq!(get(port, &issuer.token()).status, 403);
    let line: Value = serde_json::from_str(&lab.wait_for_access("\"status\":403")).unwrap();
    assert_eq!(line["cause"], "access_denied");
}

#[test]
fn keys_of_a_url_are_read_once_and_at_most_once_a_minute_for_unknown_keys() {
    let (first, second) = (Issuer::new("a"), Issuer::new("b"));
    let (backend, port, server) = (Recorder::start(), free_port(), KeyServer::start(set(&[&first])));
    let _lab = Lab::start(&yaml(port, backend.port, &format!("jwks: '{}'", server.url())));
    assert_eq!(server.requests(), 0, "keys are read when they are needed");
    let clients = [0; 8].map(|_| {
        let token = first.token();
        std::thread::spawn(move || get(port, &token).status)
    });
    let clients = clients.map(|client| client.join().unwrap());
    assert_eq!((clients, server.requests()), ([200; 8], 1), "all wait for one fetch");
    *server.body.lock().unwrap() = set(&[&first, &second]);
    // The first fetch was less than a minute ago.
    for _ in 0..5 {
        assert_eq!(get(port, &second.token()).status, 401);
    }
    assert_eq!((get(port, &first.token()).status, server.requests()), (200, 1));
}

#[test]
fn routes_with_equal_filters_share_the_keys_of_a_url_also_after_a_reload() {
    let (issuer, backend, port) = (Issuer::new("a"), Recorder::start(), free_port());
    let server = KeyServer::start(set(&[&issuer]));
    let one = yaml(port, backend.port, &format!("jwks: '{}'", server.url()));
    let (start, route) = one.split_once("routes: [").unwrap();
    let (route, end) = route.split_once("]\n").unwrap();
    let with = |path: &str| route.replace("path: /,", &format!("path: {path},"));
    let lab = Lab::start(&format!("{start}routes: [{}, {}]\n{end}", with("/a"), with("/b")));
    let status = |path: &str| get_with(port, path, &format!("Authorization: Bearer {}\r\n", issuer.token())).status;
    assert_eq!((status("/a"), status("/b"), server.requests()), (200, 200, 1));
    replace(&lab, &format!("{start}routes: [{}, {}]\n{end}", with("/a"), with("/new")));
    reloaded(&lab);
    assert_eq!((status("/new"), status("/a"), server.requests()), (200, 200, 1));
}

#[test]
fn keys_stay_in_use_while_their_server_is_down_and_503_is_sent_before_the_first() {
    let (issuer, nothing) = (Issuer::new("a"), free_port());
    let (backend, port) = (Recorder::start(), free_port());
    let lab = Lab::start(&yaml(port, backend.port, &format!("jwks: 'http://127.0.0.1:{nothing}/'")));
    assert_eq!(get(port, &issuer.token()).status, 503);
    let line: Value = serde_json::from_str(&lab.wait_for_access("\"status\":503")).unwrap();
    assert_eq!(line["cause"], "auth_unavailable");
    lab.wait_for_log("cannot read keys of tokens from");
    let server = KeyServer::start(set(&[&issuer]));
    replace(&lab, &yaml(port, backend.port, &format!("jwks: '{}'", server.url())));
    reloaded(&lab);
    assert_eq!(get(port, &issuer.token()).status, 200);
    *server.body.lock().unwrap() = "no longer JSON".to_owned();
    // An equal filter keeps its keys.
    reloaded(&lab);
    assert_eq!((get(port, &issuer.token()).status, server.requests()), (200, 1));
}

#[test]
fn key_set_that_is_too_large_or_trickles_is_not_used() {
    let (issuer, backend) = (Issuer::new("a"), Recorder::start());
    // 100 MiB are announced; l7lb reads the first of them only.
    let large = Scripted::start(|mut stream| {
        read_head(&mut stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 100 << 20).ok();
        while stream.write_all(&[b' '; 65_536]).is_ok() {}
    });
    let trickling = Scripted::start(|mut stream| {
        read_head(&mut stream);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").ok();
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for (server, reason) in [(large, "not complete within 1048576 bytes"), (trickling, "within 5s")] {
        let port = free_port();
        let lab = Lab::start(&yaml(port, backend.port, &format!("jwks: 'http://127.0.0.1:{}/'", server.port)));
        assert_eq!(get(port, &issuer.token()).status, 503, "{reason}");
        lab.wait_for_log(reason);
    }
}

#[test]
fn explain_agrees_with_traffic_about_tokens() {
    let (backend, port, issuer) = (Recorder::start(), free_port(), Issuer::new("a"));
    let lab = with_file(port, backend.port, &issuer, ", claim_headers: { X-User: sub }");
    let configuration = file(&lab);
    for (token, status, wanted) in
        [(issuer.token(), 200, "sets x-user: me"), (Issuer::new("b").token(), 401, "rejects it with 401 unauthorized")]
    {
        assert_eq!(get(port, &token).status, status);
        let (url, field) = (format!("http://localhost:{port}/"), format!("Authorization: Bearer {token}"));
        let output = run(&["explain", &url, "--header", &field, "--json", "--conf", configuration.to_str().unwrap()]);
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!(explained["filters"][0]["effect"].as_str().unwrap(), wanted, "{explained:#}");
    }
}

#[test]
fn request_that_waits_for_keys_completes_with_the_filter_it_started_with() {
    let (issuer, backend, port) = (Issuer::new("a"), Recorder::start(), free_port());
    let body = set(&[&issuer]);
    let server = Held::start_with(move |mut stream, hold| {
        read_head(&mut stream);
        hold();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    });
    let lab = Lab::start(&yaml(port, backend.port, &format!("jwks: 'http://127.0.0.1:{}/'", server.port)));
    let token = issuer.token();
    let request = std::thread::spawn(move || get(port, &token).status);
    server.arrived();
    let other = lab.folder().join("none.json");
    std::fs::write(&other, set(&[&Issuer::new("z")])).unwrap();
    let yaml = yaml(port, backend.port, &format!("keys: '{}'", other.display()));
    replace(&lab, &yaml);
    reloaded(&lab);
    assert_eq!(get(port, &issuer.token()).status, 401, "the new filter has another key");
    server.release();
    assert_eq!(request.join().unwrap(), 200);
}
