//! Parsing of patterns, and the messages for invalid ones.

use std::str::FromStr;

use http::Method;

use super::{Conditions, HostPattern, Matcher, Methods, PathPattern, PatternError};

fn host(text: &str) -> Result<HostPattern, PatternError> {
    text.parse()
}

fn exact(name: &str) -> Result<HostPattern, PatternError> {
    Ok(HostPattern::Exact(name.to_owned()))
}

#[test]
fn hosts_are_normalised_when_parsed() {
    assert_eq!(host("*"), Ok(HostPattern::Any));
    assert_eq!(host("Example.COM."), exact("example.com"));
    assert_eq!(host("my_service"), exact("my_service"));
    assert_eq!(host("10.0.0.1"), exact("10.0.0.1"));
    assert_eq!(host("[2001:DB8::1]"), exact("[2001:db8::1]"));
    let wildcard = Ok(HostPattern::Wildcard("example.com".to_owned()));
    assert_eq!(host("*.Example.com"), wildcard);
}

#[test]
fn invalid_hosts_are_rejected() {
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(63)].join(".");
    let label = "a".repeat(64);
    let own = str::to_owned;
    for (text, error) in [
        ("", PatternError::HostEmpty),
        (&long, PatternError::HostLength(long.clone())),
        (&label, PatternError::HostLabel(label.clone())),
        ("a..b", PatternError::HostLabel(own("a..b"))),
        (".a", PatternError::HostLabel(own(".a"))),
        ("*.", PatternError::HostLabel(own("*."))),
        ("a.b..", PatternError::HostLabel(own("a.b.."))),
        ("a/b", PatternError::HostCharacter(own("a/b"), '/')),
        ("http://a", PatternError::HostCharacter(own("http://a"), ':')),
        ("bücher.de", PatternError::HostCharacter(own("bücher.de"), 'ü')),
        (" a", PatternError::HostCharacter(own(" a"), ' ')),
        ("a.com:80", PatternError::HostPort(own("a.com:80"))),
        ("[::1]:80", PatternError::HostPort(own("[::1]:80"))),
        ("::1", PatternError::HostAddress(own("::1"))),
        ("[::1", PatternError::HostAddress(own("[::1"))),
        ("[[::1]", PatternError::HostAddress(own("[[::1]"))),
        ("[a.com]", PatternError::HostAddress(own("[a.com]"))),
        ("*a.com", PatternError::HostWildcard(own("*a.com"))),
        ("a.*.com", PatternError::HostWildcard(own("a.*.com"))),
        ("*.*.com", PatternError::HostWildcard(own("*.*.com"))),
    ] {
        assert_eq!(host(text), Err(error), "{text:?}");
    }
}

#[test]
fn valid_paths_are_parsed() {
    for text in ["/", "/a", "/a/", "/a/b.c", "/ä/%20", "/...", "/.well-known", "/a:b@c;d=e"] {
        let path = PathPattern::from_str(text).unwrap();
        assert_eq!((path.path(), path.is_exact()), (text, false));
        assert!(PathPattern::new(text, true).unwrap().is_exact());
    }
}

#[test]
fn invalid_paths_are_rejected() {
    let own = str::to_owned;
    for (text, error) in [
        ("", PatternError::PathStart(own(""))),
        ("a", PatternError::PathStart(own("a"))),
        ("/a?b", PatternError::PathQuery(own("/a?b"), '?')),
        ("/a#b", PatternError::PathQuery(own("/a#b"), '#')),
        ("/a b", PatternError::PathCharacter(own("/a b"), ' ')),
        ("/a\u{a0}b", PatternError::PathCharacter(own("/a\u{a0}b"), '\u{a0}')),
        ("/a\0", PatternError::PathCharacter(own("/a\0"), '\0')),
        ("//", PatternError::PathEmptySegment(own("//"))),
        ("/a//b", PatternError::PathEmptySegment(own("/a//b"))),
        ("/a//", PatternError::PathEmptySegment(own("/a//"))),
        ("/.", PatternError::PathDotSegment(own("/."))),
        ("/a/../b", PatternError::PathDotSegment(own("/a/../b"))),
        ("/a/%2E./", PatternError::PathDotSegment(own("/a/%2E./"))),
    ] {
        assert_eq!(PathPattern::from_str(text), Err(error), "{text:?}");
    }
}

#[test]
fn valid_methods_are_parsed() {
    assert!(Methods::from_str("*").unwrap().is_any());
    let two = Methods::from_str("POST, GET,POST").unwrap();
    assert_eq!(two.to_string(), "GET,POST");
    assert_eq!(two, Methods::of([Method::GET, Method::POST]).unwrap());
    assert_eq!(two, Methods::try_from(["POST", "GET"].as_slice()).unwrap());
    assert_eq!(two.iter().collect::<Vec<_>>(), [Method::GET, Method::POST]);
    assert!(two.matches(&Method::GET) && !two.matches(&Method::HEAD));
    let purge = Methods::from_str("PURGE").unwrap();
    assert!(purge.matches(&Method::from_bytes(b"PURGE").unwrap()));
}

#[test]
fn invalid_methods_are_rejected() {
    let name = |text: &str| Err(PatternError::MethodName(text.to_owned()));
    let case = |text: &str| Err(PatternError::MethodCase(text.to_owned()));
    assert_eq!(Methods::from_str(""), Err(PatternError::MethodsEmpty));
    assert_eq!(Methods::of([]), Err(PatternError::MethodsEmpty));
    assert_eq!(Methods::try_from([""; 0].as_slice()), Err(PatternError::MethodsEmpty));
    assert_eq!(Methods::from_str("GET POST"), name("GET POST"));
    assert_eq!(Methods::from_str("GET,"), name(""));
    assert_eq!(Methods::from_str("get"), case("get"));
    assert_eq!(Methods::from_str("Post"), case("Post"));
}

#[test]
fn error_message_has_the_problem_and_the_correction() {
    for (error, wrong, right) in [
        (host("").unwrap_err(), "empty", "\"example.com\""),
        (host(&"a.".repeat(200)).unwrap_err(), "too long", "at most 253"),
        (host("a..b").unwrap_err(), "\"a..b\"", "\"www.example.com\""),
        (host("a/b").unwrap_err(), "'/'", "only letters"),
        (host("a:1").unwrap_err(), "has a port", "host only"),
        (host("::1").unwrap_err(), "\"::1\"", "\"[2001:db8::1]\""),
        (host("a.*").unwrap_err(), "misplaced", "\"*.example.com\""),
        (PathPattern::from_str("a").unwrap_err(), "\"a\"", "\"/api\""),
        (PathPattern::from_str("/?").unwrap_err(), "'?'", "in front of it"),
        (PathPattern::from_str("/ ").unwrap_err(), "' '", "%20"),
        (PathPattern::from_str("//").unwrap_err(), "two consecutive slashes", "\"/a/b\""),
        (PathPattern::from_str("/..").unwrap_err(), "\"..\"", "resolved path"),
        (Methods::from_str("").unwrap_err(), "empty", "leave the list out"),
        (Methods::from_str("(").unwrap_err(), "not a method", "GET, POST"),
        (Methods::from_str("get").unwrap_err(), "case-sensitive", "\"GET\""),
    ] {
        let text = error.to_string();
        assert!(text.contains(wrong) && text.contains(right), "{text}");
    }
}

#[test]
fn matcher_is_displayed_in_one_line() {
    let matcher = |host: &str, path, exact, methods: &str| Matcher {
        host: host.parse().unwrap(),
        path: PathPattern::new(path, exact).unwrap(),
        methods: methods.parse().unwrap(),
        conditions: Conditions::default(),
        priority: 0,
    };
    assert_eq!(matcher("*", "/", false, "*").to_string(), "*/");
    let full = matcher("*.a.com", "/b", true, "PUT,GET").to_string();
    assert_eq!(full, "GET,PUT *.a.com/b (exact)");
}
