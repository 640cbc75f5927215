//! `l7lb explain` agrees with traffic about every filter: the list of filters comes from the schema.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::h2_client;
use super::jwt::{Issuer, set};
use crate::lab::client::{Response, connect, read_response};
use crate::lab::recorder::Recorder;
use crate::lab::{Lab, free_port, lacks_own_engine, run};

/// The routes: a name, which is also the path, and filters.
const ROUTES: [(&str, &str); 23] = [
    ("none", ""),
    (
        "headers",
        "{ headers: { request: { set: { X-Client: '${client.ip}' } }, response: { set: { X-Route: '${route}' }, add: { X-Query: '${request.query.q}' } } } }",
    ),
    ("security", "{ security_headers: strict }"),
    ("redirect", "{ redirect: { path: /new, status: 308 } }"),
    ("respond", "{ respond: { status: 418, headers: { X-Path: '${request.path}' }, body: tea } }"),
    (
        "rewrite",
        "{ rewrite: { strip_prefix: /rewrite, add_prefix: /v1, host: inner.test, query: { remove: debug, set: { lang: en } } } }",
    ),
    ("regex", "{ rewrite: { regex: { match: '^/regex/([0-9]+)$', replace: /id/$1 } } }"),
    ("access", "{ access: { rules: [{ deny: { networks: 127.0.0.0/8 } }], default: allow } }"),
    ("allowed", "{ access: { rules: [{ allow: { networks: 127.0.0.0/8 } }] } }"),
    ("password", "{ basic_auth: { file: '{folder}/users', realm: all } }"),
    ("asked", "{ forward_auth: { pool: auth, path: /verify, copy_headers: [Remote-User] } }"),
    (
        "cors",
        "{ cors: { origins: ['https://app.test'], methods: [PUT], headers: [X-A], expose: [X-B], credentials: true, max_age: 1h } }",
    ),
    (
        "token",
        "{ jwt: { keys: '{folder}/keys.json', issuers: ['https://login.test'], claim_headers: { X-User: sub } } }",
    ),
    ("limited", "{ rate_limit: { by: 'header:X-Key', limits: { type: fixed_window, limit: 1000, window: 1h } } }"),
    ("small", "{ body_limit: { size: 10 } }"),
    ("buffered", "{ buffer: { size: 10 } }"),
    ("compressed", "{ compress: { minimum_size: 1 } }, { respond: { body: a text, headers: { ETag: '\"a\"' } } }"),
    (
        "page",
        "{ error_pages: { pages: [{ html: '{folder}/e.html', json: '{folder}/e.json' }] } }, { access: { rules: [{ allow: { networks: 10.0.0.0/8 } }] } }",
    ),
    ("closed", "{ maintenance: { retry_after: 2m } }"),
    ("open", "{ maintenance: { allow: 127.0.0.0/8 } }"),
    ("patient", "{ timeout: { total: 20s } }"),
    ("copied", "{ mirror: { pool: shadow } }"),
    // Several filters, one of a chain: the first one that responds ends the request.
    (
        "several",
        "{ chain: common }, { rewrite: { strip_prefix: /several } }, { redirect: { host: b.test, path: '/x${request.path}' } }",
    ),
];

/// One request, and the filters that it is about.
struct Case {
    filters: &'static [&'static str],
    method: &'static str,
    path: String,
    fields: Vec<(&'static str, String)>,
    /// The status of traffic if `explain` does not know it, because a filter waits.
    waits: Option<u16>,
}

fn case(filters: &'static [&'static str], request: &'static str, fields: &[(&'static str, &str)]) -> Case {
    let (method, path) = request.split_once(' ').unwrap();
    let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Case { filters, method, path: path.to_owned(), fields, waits: None }
}

fn cases(token: &str) -> Vec<Case> {
    let origin = ("Origin", "https://app.test");
    let ask = ("Access-Control-Request-Method", "PUT");
    let mut cases = vec![
        case(&["headers"], "GET /headers/a?q=b", &[("X-Client", "forged")]),
        case(&["headers"], "GET /headers", &[]),
        case(&["security_headers"], "GET /security", &[]),
        case(&["redirect"], "GET /redirect/a?b=c", &[]),
        case(&["redirect"], "POST /redirect", &[]),
        case(&["respond"], "GET /respond/%41?b", &[]),
        case(&["rewrite"], "GET /rewrite/x%20y?a=1&debug=1", &[]),
        case(&["rewrite"], "GET /rewrite", &[]),
        case(&["rewrite"], "GET /regex/12", &[]),
        case(&["rewrite"], "GET /regex/x", &[]),
        case(&["access"], "GET /access", &[]),
        case(&["access"], "GET /allowed", &[]),
        case(&["basic_auth"], "GET /password", &[]),
        case(&["basic_auth"], "GET /password", &[("Authorization", "Basic !")]),
        case(&["cors"], "OPTIONS /cors", &[origin, ask]),
        case(&["cors"], "OPTIONS /cors", &[("Origin", "https://other.test"), ask]),
        case(&["cors"], "OPTIONS /cors", &[origin]),
        case(&["cors"], "GET /cors", &[origin]),
        case(&["cors"], "GET /cors", &[("Origin", "https://other.test")]),
        case(&["jwt"], "GET /token", &[]),
        case(&["jwt"], "GET /token", &[("Authorization", "Bearer a.b.c")]),
        case(&["jwt"], "GET /token", &[("Authorization", &format!("Bearer {token}")), ("X-User", "root")]),
        case(&["rate_limit"], "GET /limited", &[("X-Key", "a")]),
        case(&["body_limit"], "POST /small", &[("Content-Length", "11")]),
        case(&["body_limit"], "GET /small", &[]),
        case(&["buffer"], "POST /buffered", &[("Content-Length", "11")]),
        case(&["buffer"], "GET /buffered", &[]),
        case(&["compress"], "GET /compressed", &[("Accept-Encoding", "br;q=0.5, gzip")]),
        case(&["compress"], "GET /compressed", &[]),
        case(&["error_pages"], "GET /page", &[("Accept", "application/json")]),
        case(&["error_pages"], "GET /page", &[("Accept", "text/html")]),
        case(&["timeout"], "GET /patient", &[]),
        case(&["mirror"], "GET /copied", &[]),
        case(&["maintenance"], "GET /closed", &[]),
        case(&["maintenance"], "GET /open", &[]),
        case(&["rewrite", "redirect", "headers"], "GET /several/a?b", &[("Host", "a.test")]),
        case(&["rewrite", "redirect", "headers"], "GET /x/several", &[("Host", "b.test")]),
        case(&[], "GET /none/..%2fpassword", &[]),
        case(&[], "GET /missing", &[]),
    ];
    // `explain` neither checks passwords nor asks services.
    let right = [("Authorization", "Basic YWxpY2U6c2VjcmV0")];
    cases.push(Case { waits: Some(200), ..case(&["basic_auth"], "GET /password", &right) });
    let wrong = [("Authorization", "Basic YWxpY2U6d3Jvbmc=")];
    cases.push(Case { waits: Some(401), ..case(&["basic_auth"], "GET /password", &wrong) });
    cases.push(Case { waits: Some(200), ..case(&["forward_auth"], "GET /asked", &[]) });
    cases
}

/// The names of all filters, from the schema.
fn names() -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(include_str!("../../../conf/schema.json")).unwrap();
    let items = &schema["properties"]["filters"]["anyOf"][0]["items"];
    let names = items["properties"].as_object().unwrap().keys().filter(|name| *name != "chain");
    names.cloned().collect()
}

struct Site {
    lab: Lab,
    port: u16,
    backends: [Recorder; 2],
    _auth: Recorder,
}

fn start(issuer: &Issuer) -> Site {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    for (name, text) in [
        ("users", include_str!("../../config/users.htpasswd").to_owned()),
        ("keys.json", set(&[issuer])),
        ("e.html", "<p>${status} ${cause}</p>".to_owned()),
        ("e.json", "{\"status\":${status}}".to_owned()),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let backends = [Recorder::start(), Recorder::start()];
    let auth = Recorder::answering(b"HTTP/1.1 200 OK\r\nRemote-User: alice\r\nContent-Length: 0\r\n\r\n");
    let pool = |name: &str, port: u16| {
        format!("  {name}: {{ health_check: {{ type: none }}, backends: [{{ address: '127.0.0.1:{port}' }}] }}\n")
    };
    let pools = pool("a", backends[0].port)
        + &pool("b", backends[1].port)
        + &pool("auth", auth.port)
        + &pool("shadow", auth.port);
    let routes: String = ROUTES
        .iter()
        .enumerate()
        .map(|(index, (name, filters))| {
            let pool = if index % 2 == 0 { "a" } else { "b" };
            format!("  - {{ path: /{name}, name: {name}, pool: {pool}, filters: [{filters}] }}\n")
        })
        .collect();
    let port = free_port();
    let lab = Lab::start_in(
        folder,
        &format!(
            "listeners: [{{ address: '127.0.0.1:{port}' }}]\naccess_log: {{ format: json }}\n\
             chains: {{ common: [{{ headers: {{ response: {{ set: {{ X-Chain: common }} }} }} }}] }}\n\
             pools:\n{pools}routes:\n{routes}  - {{ path: /x, pool: a, name: x }}\n"
        ),
    );
    Site { lab, port, backends, _auth: auth }
}

impl Site {
    fn explain(&self, case: &Case) -> Value {
        let request = format!("{} http://localhost:{}{}", case.method, self.port, case.path);
        let file = self.lab.folder().join("l7lb.yaml").display().to_string();
        let fields: Vec<String> = case.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut arguments = vec!["explain", &request, "--from", "127.0.0.1", "--json", "--conf", &file];
        arguments.extend(fields.iter().flat_map(|field| ["-H", field]));
        let output = run(&arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
    }

    /// The responses to the request: over HTTP/1.1, and over HTTP/2 unless the request announces a body.
    fn send(&self, case: &Case) -> Vec<Response> {
        let mut text = format!("{} {} HTTP/1.1\r\n", case.method, case.path);
        if !case.fields.iter().any(|(name, _)| *name == "Host") {
            text += &format!("Host: localhost:{}\r\n", self.port);
        }
        case.fields.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        let mut stream = connect(self.port);
        stream.write_all((text + "\r\n").as_bytes()).unwrap();
        let mut responses = vec![read_response(&mut stream)];
        if !case.fields.iter().any(|(name, _)| ["Content-Length", "Host"].contains(name)) {
            let fields: Vec<(String, &str)> =
                case.fields.iter().map(|(name, value)| (name.to_lowercase(), value.as_str())).collect();
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
            responses.push(h2_client::request(self.port, case.method, &case.path, &fields));
        }
        responses
    }

    /// The line of the access log of a response.
    fn line(&self, response: &Response) -> Value {
        serde_json::from_str(&self.lab.wait_for_access(response.header("x-request-id"))).unwrap()
    }
}

/// Fields that every response has, or that l7lb adds to its own responses after the filters.
const COMMON: [&str; 9] = [
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "retry-after",
    "transfer-encoding",
    "www-authenticate",
    "x-request-id",
];

/// Compares the fields that filters determine.
fn compare_fields(explained: &Value, response: &Response, what: &str) {
    let explained: Vec<(&str, &str)> = explained["response_fields"].as_array().unwrap().iter().map(pair).collect();
    for (name, value) in &explained {
        assert_eq!(response.header(name), *value, "{what}: {name} in traffic");
    }
    // What a rate limit has left is known to the process only.
    for name in
        response.headers.keys().filter(|name| !COMMON.contains(&name.as_str()) && !name.starts_with("ratelimit"))
    {
        assert!(explained.iter().any(|(known, _)| known == name), "{what}: {name} in {explained:?}");
    }
}

fn pair(value: &Value) -> (&str, &str) {
    (value[0].as_str().unwrap(), value[1].as_str().unwrap())
}

/// Compares one response with the explanation. Returns whether a backend got the request.
fn compare(explained: &Value, line: &Value, case: &Case, response: &Response, what: &str) -> bool {
    let last = explained["filters"].as_array().unwrap().last().map(|last| last["effect"].as_str().unwrap());
    let waits = last.is_some_and(|effect| effect.starts_with("waits: "));
    assert_eq!(waits, case.waits.is_some(), "{what}: {last:?}");
    let own = explained["own_response"].as_str();
    let (status, cause) = match (case.waits, &explained["rejection"], own) {
        (Some(status), ..) => (status, (status == 401).then(|| "unauthorized".to_owned())),
        (None, Value::Null, None) => (200, None),
        (None, Value::Null, Some(own)) => {
            let mut words = own.split(' ');
            (words.next().unwrap().parse().unwrap(), words.next().map(str::to_owned))
        }
        (None, rejection, _) => {
            (rejection["status"].as_u64().unwrap().try_into().unwrap(), rejection["cause"].as_str().map(str::to_owned))
        }
    };
    assert_eq!((response.status, line["cause"].as_str().map(str::to_owned)), (status, cause), "{what}");
    let location = own.and_then(|own| own.split_once(" to ")).map_or("", |(_, location)| location);
    assert_eq!(response.header("location"), location, "{what}");
    let is_forwarded = status == 200 && own.is_none();
    if case.waits.is_none() {
        compare_fields(explained, response, what);
    }
    // The log has the pool of the route for other responses, too.
    if is_forwarded {
        assert_eq!(line["pool"], explained["pools"][0]["pool"], "{what}");
    }
    is_forwarded
}

#[test]
fn explain_agrees_with_traffic_about_every_filter() {
    if lacks_own_engine() {
        return;
    }
    let issuer = Issuer::new("a");
    let site = start(&issuer);
    let mut covered = BTreeSet::new();
    for case in cases(&issuer.token()) {
        let what = format!("{} {} {:?}", case.method, case.path, case.fields);
        let explained = site.explain(&case);
        let shown: Vec<&str> =
            explained["filters"].as_array().unwrap().iter().map(|it| it["filter"].as_str().unwrap()).collect();
        for filter in case.filters.iter().filter(|filter| shown.contains(*filter)) {
            covered.insert((*filter).to_owned());
        }
        let responses = site.send(&case);
        let forwarded: Vec<_> = site.backends.iter().flat_map(Recorder::take).collect();
        let mut expected = 0;
        for response in &responses {
            let line = site.line(response);
            expected += usize::from(compare(&explained, &line, &case, response, &what));
        }
        assert_eq!(forwarded.len(), expected, "{what}");
        for received in forwarded {
            let line = format!("{} {}", case.method, explained["forwarded"]["target"].as_str().unwrap());
            assert_eq!(received.brief(), line, "{what}");
            assert_eq!(received.values("host"), [explained["forwarded"]["host"].as_str().unwrap()], "{what}");
        }
    }
    assert_eq!(covered, names(), "each filter needs a route and a case here");
}
