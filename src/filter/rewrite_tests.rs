//! Tests of the filter `rewrite`.

use super::*;
use crate::filter::variables::tests::{facts, request};
use crate::filter::{Changes, Facts};

fn filter(config: &str) -> Arc<dyn Filter> {
    let config: Config = serde_json::from_str(config).unwrap();
    let mut faults = Faults::default();
    let filter = config.check(&Place::root(), &Surroundings::default(), &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
    filter.unwrap()
}

/// The changes to a request, or the detail of the rejection.
fn changes(config: &str, target: &str, fields: &[(&'static str, &str)]) -> Result<Changes, &'static str> {
    let (header, facts, mut changes) = (request(target, fields), facts("a.test:81", "https"), Changes::default());
    match filter(config).request(&mut Request { header: &header, facts: &facts, changes: &mut changes }) {
        Step::Continue => Ok(changes),
        Step::Reject(rejection) => Err(rejection.detail),
        _ => panic!("neither a change nor a rejection"),
    }
}

/// The target for backends; `None` if it stays.
fn target(config: &str, target: &str) -> Option<String> {
    changes(config, target, &[]).unwrap().target.map(|target| target.as_str().to_owned())
}

#[test]
fn path_and_query_are_rewritten() {
    let strip = r#"{"strip_prefix":"/app"}"#;
    let regex = r#"{"regex":{"match":"^/user/([0-9]+)(?P<rest>/.*)?$","replace":"/u/$1${rest}"}}"#;
    let query = r#"{"query":{"remove":["debug","utm source"],"set":{"x":"1 & 2","tenant":"${request.host}"}}}"#;
    for (config, requested, wanted) in [
        (strip, "/app", Some("/")),
        (strip, "/app/", Some("/")),
        (strip, "/app?x=1", Some("/?x=1")),
        (strip, "/app/a/b?x=1", Some("/a/b?x=1")),
        (strip, "/application", None),
        (strip, "/other/app", None),
        (strip, "/app//evil.test", Some("/evil.test")),
        (strip, "/app/a%2Fb//c", Some("/a%2Fb//c")),
        (strip, "/app/%00", Some("/%00")),
        (r#"{"strip_prefix":"/app/"}"#, "/app/x", Some("/x")),
        (r#"{"strip_prefix":"/app","add_prefix":"/v1"}"#, "/app/x", Some("/v1/x")),
        (r#"{"strip_prefix":"/app","add_prefix":"/v1"}"#, "/app", Some("/v1/")),
        (r#"{"add_prefix":"/v1"}"#, "/x?y", Some("/v1/x?y")),
        (r#"{"path":"/fixed"}"#, "/x?y", Some("/fixed?y")),
        (r#"{"path":"/fixed"}"#, "/fixed?y", None),
        (r#"{"path":"/${request.host}${request.path}"}"#, "/x", Some("/a.test/x")),
        (r#"{"path":"/q/${request.query.q}"}"#, "/x?q=a%20b|c", Some("/q/a%20b%7Cc?q=a%20b|c")),
        (regex, "/user/12/a%20b", Some("/u/12/a%20b")),
        (regex, "/user/12", Some("/u/12")),
        (regex, "/user/x", None),
        (r#"{"regex":{"match":"o","replace":"$$0"}}"#, "/foo", Some("/f$0o")),
        (query, "/x", Some("/x?tenant=a.test&x=1%20%26%202")),
        (query, "/x?%64ebug=1&a&x=9&utm+source=b&b=%26", Some("/x?a&b=%26&tenant=a.test&x=1%20%26%202")),
        (r#"{"query":{"remove":["a"]}}"#, "/x?a=1&a", Some("/x")),
        (r#"{"query":{"remove":["a"]}}"#, "/x?b=1&&", None),
    ] {
        assert_eq!(target(config, requested).as_deref(), wanted, "{config} {requested}");
    }
}

#[test]
fn value_of_a_client_cannot_leave_the_path_or_break_the_request_line() {
    let config = r#"{"path":"/t/${request.header.x-tenant}/x"}"#;
    for (value, wanted) in [
        ("one", Ok("/t/one/x")),
        ("a b?c#d", Ok("/t/a%20b%3Fc%23d/x")),
        ("a\tHTTP/1.1", Ok("/t/a%09HTTP/1.1/x")),
        ("", Ok("/t//x")),
        ("a/b", Ok("/t/a/b/x")),
        ("%2fa", Ok("/t/%2Fa/x")),
        ("100%", Err("the rewritten path is invalid")),
        ("%zz", Err("the rewritten path is invalid")),
        ("a%00", Err("the rewritten path has %00")),
        ("..", Err("the rewritten path has a dot segment")),
        ("../../admin", Err("the rewritten path has a dot segment")),
        ("%2e%2E", Err("the rewritten path has a dot segment")),
        ("a%2f..%5Cadmin", Err("the rewritten path has a dot segment")),
        ("a\\..\\b", Err("the rewritten path has a dot segment")),
        ("..;a", Err("the rewritten path has a dot segment")),
        (".", Err("the rewritten path has a dot segment")),
    ] {
        let changes = changes(config, "/", &[("x-tenant", value)]);
        let changed = changes.map(|changes| changes.target.unwrap().as_str().to_owned());
        assert_eq!(changed.as_deref(), wanted.as_ref().map(|wanted| *wanted), "{value:?}");
    }
    let beyond_ascii = HeaderValue::from_bytes(b"caf\xc3\xa9\xff").unwrap();
    let mut header = request("/", &[]);
    header.insert_header("x-tenant", beyond_ascii).unwrap();
    let (facts, mut changes) = (facts("a", "http"), Changes::default());
    filter(config).request(&mut Request { header: &header, facts: &facts, changes: &mut changes });
    assert_eq!(changes.target.unwrap().as_str(), "/t/caf%C3%A9%FF/x");
}

#[test]
fn host_of_a_client_is_checked() {
    let config = r#"{"host":"${request.header.x-site}.internal:8080"}"#;
    let host =
        |value: &str| changes(config, "/", &[("x-site", value)]).map(|changes| changes.host.unwrap().to_string());
    assert_eq!(host("a"), Ok("a.internal:8080".to_owned()));
    for value in ["u@evil.test/", "a b", "a:1", "a/b", "a,b", "a%00", "[::1]"] {
        assert_eq!(host(value), Err("the rewritten Host is invalid"), "{value}");
    }
}

#[test]
fn removed_prefixes_are_joined_with_those_of_trusted_proxies_only() {
    let filter = filter(r#"{"strip_prefix":"/app"}"#);
    for (is_trusted, wanted) in [(true, "/outer/app"), (false, "/app")] {
        let header = request("/app/x", &[("x-forwarded-prefix", "/outer/")]);
        let facts = Facts { is_from_trusted_proxy: is_trusted, ..facts("a", "http") };
        let mut changes = Changes::default();
        filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes });
        assert_eq!(changes.removed_prefix.as_ref().unwrap(), wanted);
        changes.target = Some(PathAndQuery::from_static("/app/y"));
        filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes });
        assert_eq!(changes.removed_prefix.unwrap(), format!("{wanted}/app"));
    }
}

#[test]
fn target_that_is_no_path_stays() {
    let mut header = request("/", &[]);
    header.set_uri(http::Uri::from_static("*"));
    let (facts, mut changes) = (facts("a", "http"), Changes::default());
    filter(r#"{"add_prefix":"/v1"}"#).request(&mut Request { header: &header, facts: &facts, changes: &mut changes });
    assert_eq!(changes, Changes::default());
}

#[test]
fn invalid_settings_are_faults() {
    for (config, problem) in [
        (r#"{}"#, "nothing changes"),
        (r#"{"map_back":true,"host":"a"}"#, "only the change of a prefix can be mapped back"),
        (r#"{"strip_prefix":"app"}"#, "app"),
        (r#"{"strip_prefix":"/"}"#, "the prefix `/` changes nothing"),
        (r#"{"add_prefix":"/a/../b"}"#, "/a/../b"),
        (r#"{"add_prefix":"/a|b"}"#, "not normalised"),
        (r#"{"path":"/a","strip_prefix":"/b"}"#, "`path` is the whole path"),
        (r#"{"path":"a"}"#, "`a` is not a path"),
        (r#"{"path":"/a?b"}"#, "a path has no query"),
        (r#"{"path":"/a/%00"}"#, "never is a valid path"),
        (r#"{"path":"/a/.."}"#, "never is a valid path"),
        (r#"{"path":"/${response.status}"}"#, "uses the response"),
        (r#"{"regex":{"match":"","replace":"/"}}"#, "is empty"),
        (r#"{"regex":{"match":"(","replace":"/"}}"#, "`(` is not a regular expression: unclosed group"),
        (r#"{"regex":{"match":"((a{100}){100}){100}","replace":"/"}}"#, "is too large"),
        (r#"{"regex":{"match":"(a)","replace":"/$2"}}"#, "has no group `2`"),
        (r#"{"regex":{"match":"(a)","replace":"/$1_x$name"}}"#, "has no group `name`"),
        (r#"{"regex":{"match":"a","replace":"/$"}}"#, "has no group ``"),
        (r#"{"regex":{"match":"a","replace":"/?a"}}"#, "a path has no query"),
        (r#"{"query":{"set":{"":"a"}}}"#, "the name of the parameter is empty"),
        (r#"{"host":"a b"}"#, "`a b` is not a host"),
    ] {
        let config_value: Config = serde_json::from_str(config).unwrap();
        let mut faults = Faults::default();
        config_value.check(&Place::root(), &Surroundings::default(), &mut faults);
        let faults = faults.into_vec();
        assert!(faults.len() == 1 && faults[0].problem.contains(problem), "{config}: {faults:?}");
    }
}

/// Random values from critical parts, with a fixed seed: a result is a normalised path without dot segments, and part of
/// the folder that the configuration names.
#[test]
fn rewritten_path_of_any_value_is_normalised_and_stays_in_its_folder() {
    const PIECES: [&str; 20] = [
        "/", "/", "..", ".", "%2e", "%2E", "%2f", "%5c", "\\", "%00", "%", "a", "?", "#", " ", ";", "%252e", "\t", "|",
        "//",
    ];
    let mut random = fastrand::Rng::with_seed(11);
    let filter = filter(r#"{"path":"/t/${request.header.x}/x"}"#);
    let facts = facts("a", "http");
    let mut accepted = 0;
    for _ in 0..50_000 {
        let value: String = (0..random.usize(..7)).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
        let (header, mut changes) = (request("/", &[("x", &value)]), Changes::default());
        if let Step::Continue = filter.request(&mut Request { header: &header, facts: &facts, changes: &mut changes }) {
            accepted += 1;
            let target = changes.target.unwrap();
            assert!(target.path().starts_with("/t/") && target.query().is_none(), "{value:?} {target}");
            assert_eq!(crate::http::target::normalise(target.path()).unwrap().path, target.path(), "{value:?}");
            assert!(!target.path().contains("%00"), "{value:?}");
            let decoded = target.path().replace("%2F", "/").replace("%5C", "/");
            let normal = crate::http::target::normalise(&decoded).unwrap().path.into_owned();
            assert!(normal.starts_with("/t/") && normal.ends_with("/x"), "{value:?} {normal}");
        }
    }
    assert!(accepted > 5_000, "{accepted}");
}
