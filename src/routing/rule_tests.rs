//! The rules in the documentation of the module, each by its number.

use http::Method;

use super::{Conditions, HostPattern, Matcher, PathPattern, Table};

/// A matcher from `METHODS HOST PATH`, where `=` before the path makes it exact.
pub(super) fn matcher(text: &str) -> Matcher {
    let parts: Vec<&str> = text.split(' ').collect();
    let path = parts[2].strip_prefix('=');
    Matcher {
        host: parts[1].parse().unwrap(),
        path: PathPattern::new(path.unwrap_or(parts[2]), path.is_some()).unwrap(),
        methods: parts[0].parse().unwrap(),
        conditions: Conditions::default(),
        priority: 0,
    }
}

pub(super) fn table(texts: &[&'static str]) -> Table<&'static str> {
    Table::build(texts.iter().map(|text| (matcher(text), *text))).unwrap()
}

/// Asserts which route matches a GET.
#[track_caller]
pub(super) fn assert_route(table: &Table<&'static str>, host: &str, path: &str, route: Option<&str>) {
    let found = table.find(Some(host), path, &Method::GET).copied();
    assert_eq!(found, route, "{host} {path}");
}

#[test]
fn rule_1_prefix_matches_whole_segments() {
    for text in ["* * /apiA", "* * /apiA/"] {
        let table = table(&[text]);
        for path in ["/apiA", "/apiA/", "/apiA/x", "/apiA//", "/apiA//x", "/apiA/x/y/"] {
            assert_route(&table, "a", path, Some(text));
        }
        for path in ["/apiAB", "/apia", "/api", "/", "", "//apiA", "apiA", "/x/apiA", "/apiA%2F"] {
            assert_route(&table, "a", path, None);
        }
    }
}

#[test]
fn rule_1_root_matches_everything() {
    let table = table(&["* * /"]);
    for path in ["/", "/a", "//", "/a/b/", "*", ""] {
        assert_route(&table, "a", path, Some("* * /"));
    }
}

#[test]
fn rule_1_exact_path_matches_only_itself() {
    let table = table(&["* * =/apiA", "* * =/b/", "* * =/"]);
    assert_route(&table, "a", "/apiA", Some("* * =/apiA"));
    assert_route(&table, "a", "/b/", Some("* * =/b/"));
    assert_route(&table, "a", "/", Some("* * =/"));
    for path in ["/apiA/", "/apiA/x", "/apia", "/b", "/b//", "/b/x", "", "//", "*"] {
        assert_route(&table, "a", path, None);
    }
}

#[test]
fn rule_2_host_takes_precedence_over_path_and_method() {
    let table = table(&[
        "GET * =/long/path",
        "* *.a.com /long/path",
        "* *.b.a.com /long",
        "* x.b.a.com /",
        "* * /p",
        "GET * /p",
        "* * =/p/q",
        "GET * /p/q",
    ]);
    assert_route(&table, "other", "/long/path", Some("GET * =/long/path"));
    assert_route(&table, "c.a.com", "/long/path", Some("* *.a.com /long/path"));
    assert_route(&table, "c.b.a.com", "/long/path", Some("* *.b.a.com /long"));
    assert_route(&table, "x.b.a.com", "/long/path", Some("* x.b.a.com /"));
    assert_route(&table, "other", "/p", Some("GET * /p"));
    assert_route(&table, "other", "/p/q", Some("* * =/p/q"));
    assert_route(&table, "other", "/p/q/", Some("GET * /p/q"));
    let posted = table.find(None, "/p/q/r", &Method::POST);
    assert_eq!(posted, Some(&"* * /p"));
}

#[test]
fn rule_3_next_candidate_is_tried() {
    let table = table(&["* x.a.com /only", "POST *.a.com /p/q", "* *.com /p", "POST * /p/q", "* * =/p/q", "PUT * /"]);
    assert_route(&table, "x.a.com", "/only", Some("* x.a.com /only"));
    assert_route(&table, "x.a.com", "/p/q", Some("* *.com /p"));
    assert_route(&table, "x.a.org", "/p/q", Some("* * =/p/q"));
    assert_route(&table, "x.a.org", "/p/q/r", None);
    assert_route(&table, "x.a.com", "/none", None);
    let find = |host, path| table.find(Some(host), path, &Method::PUT).copied();
    assert_eq!(find("x.a.com", "/none"), Some("PUT * /"));
    assert_eq!(find("x.a.org", "/p/q/r"), Some("PUT * /"));
}

#[test]
fn rule_4_wildcard_matches_labels_in_front() {
    let route = "* *.example.com /";
    let table = table(&[route]);
    for host in ["a.example.com", "a.b.example.com", "A.Example.COM.:8080", "xn--a.example.com"] {
        assert_route(&table, host, "/", Some(route));
    }
    let others = ["example.com", "aexample.com", ".example.com", "a..example.com", "com", ""];
    for host in others.into_iter().chain(["a.example.com.org", "a.example.com:x", "."]) {
        assert_route(&table, host, "/", None);
    }
    assert_eq!(table.find(None, "/", &Method::GET), None);
}

#[test]
fn rule_4_hosts_are_compared_without_case_port_and_dot() {
    let table = table(&["* example.com /", "* [2001:db8::1] /", "* 10.0.0.1 /"]);
    let named = ["example.com", "EXAMPLE.com", "example.com.", "example.com:80", "Example.com.:8"];
    for host in named.into_iter().chain(["example.com:"]) {
        assert_route(&table, host, "/", Some("* example.com /"));
    }
    for host in ["[2001:db8::1]", "[2001:DB8::1]", "[2001:db8::1]:443"] {
        assert_route(&table, host, "/", Some("* [2001:db8::1] /"));
    }
    assert_route(&table, "10.0.0.1:9000", "/", Some("* 10.0.0.1 /"));
    for host in ["[2001:db8:", "2001:db8::1", "example.com..", "example.com:80:80", ":80", "["] {
        assert_route(&table, host, "/", None);
    }
}

#[test]
fn rule_4_constructed_pattern_is_normalised() {
    let by_hand = Matcher { host: HostPattern::Exact("Example.COM.".into()), ..matcher("* * /") };
    let table = Table::build([(by_hand, "by hand")]).unwrap();
    assert_route(&table, "example.com", "/", Some("by hand"));
}

#[test]
fn rule_4_too_long_host_matches_only_any_host() {
    let table = table(&["* *.com /", "* * /any"]);
    let host = format!("{}com", "A.".repeat(4_000));
    assert_route(&table, &host, "/any", Some("* * /any"));
    assert_route(&table, &host, "/", None);
}

#[test]
fn rule_4_longest_valid_host_is_matched() {
    let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    assert_eq!(longest.len(), 253);
    let longest_matcher = Matcher { host: longest.parse().unwrap(), ..matcher("* * /") };
    let table = Table::build([(longest_matcher, "longest"), (matcher("* * /"), "any")]).unwrap();
    assert_route(&table, &longest, "/", Some("longest"));
    assert_route(&table, &format!("{}.:8080", longest.to_uppercase()), "/", Some("longest"));
    assert_route(&table, &format!("{longest}d"), "/", Some("any"));
    assert!(format!("{longest}d").parse::<HostPattern>().is_err());
}

#[test]
fn rule_5_request_paths_are_not_normalised() {
    let table = table(&["* * /ä", "* * /a%20b", "* * /x"]);
    assert_route(&table, "a", "/ä/ö", Some("* * /ä"));
    assert_route(&table, "a", "/a%20b", Some("* * /a%20b"));
    assert_route(&table, "a", "/x/../ä", Some("* * /x"));
    for path in ["/%C3%A4", "/a\u{308}", "/Ä", "/a b", "/%61%20b", "/./x", "/%78"] {
        assert_route(&table, "a", path, None);
    }
}

#[test]
fn rule_6_methods_are_compared_exactly() {
    let table = table(&["GET * /", "PURGE * /"]);
    let find = |name: &[u8]| table.find(None, "/", &Method::from_bytes(name).unwrap()).copied();
    assert_eq!(find(b"GET"), Some("GET * /"));
    assert_eq!(find(b"PURGE"), Some("PURGE * /"));
    assert_eq!((find(b"HEAD"), find(b"get"), find(b"purge")), (None, None, None));
}
