//! What identifies a stored response, with backends that read requests differently.

use super::cached;
use super::origin::{Origin, ok};
use super::wire::get;
use crate::lab::free_port;

/// A backend that uses the first or the last value of a header, cookie or parameter that a request has several times.
fn reading(index: fn(usize) -> usize) -> Origin {
    Origin::responding(move |request| {
        let headers: Vec<String> = request.values("x-group").into_iter().map(ToOwned::to_owned).collect();
        let cookies = request.field("cookie").unwrap_or_default();
        let cookies: Vec<&str> = cookies.split("; ").filter_map(|pair| pair.strip_prefix("theme=")).collect();
        let query = request.target().split_once('?').map_or(String::new(), |(_, query)| query.to_owned());
        let pages: Vec<&str> = query.split('&').filter_map(|pair| pair.strip_prefix("page=")).collect();
        let used = |values: &[&str]| values.get(index(values.len())).map_or("none".to_owned(), ToString::to_string);
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        ok("Cache-Control: max-age=60\r\n", &format!("{} {} {}", used(&headers), used(&cookies), used(&pages)))
    })
}

#[test]
fn repeated_header_cookie_or_parameter_of_the_key_does_not_poison_the_responses_of_others() {
    for index in [|_| 0, |length: usize| length.wrapping_sub(1)] {
        let origin = reading(index);
        let port = free_port();
        let keys = "key: { headers: [X-Group], cookies: [theme], query: only, parameters: [page] }";
        let _lab = cached(port, origin.port, keys);
        let requests: [(&str, &[(&str, &str)]); 6] = [
            ("/?page=1", &[("X-Group", "a"), ("X-Group", "b"), ("Cookie", "theme=x")]),
            ("/?page=1", &[("X-Group", "a"), ("Cookie", "theme=x; theme=y")]),
            ("/?page=1&page=2", &[("X-Group", "a"), ("Cookie", "theme=x")]),
            ("/?page=2&page=1", &[("X-Group", "a"), ("Cookie", "theme=y; theme=x")]),
            ("/?page=1&a=1&page=2", &[("X-Group", "b"), ("X-Group", "a"), ("Cookie", "theme=y; a=1; theme=x")]),
            ("/?page=1", &[("X-Group", "a, b"), ("Cookie", "theme=x")]),
        ];
        for (target, fields) in requests {
            get(port, target, fields);
        }
        for (group, theme, page) in
            [("a", "x", "1"), ("b", "x", "1"), ("a", "y", "1"), ("a", "x", "2"), ("a, b", "x", "1")]
        {
            let fields = [("X-Group", group), ("Cookie", &format!("theme={theme}"))];
            for _ in 0..2 {
                let response = get(port, &format!("/?page={page}"), &fields);
                assert_eq!(response.text(), format!("{group} {theme} {page}"));
            }
        }
    }
}

/// No backend gets a field that Connection names. So it must not select the stored response either.
#[test]
fn fields_named_by_connection_do_not_poison_the_responses_of_others() {
    let origin = Origin::responding(|request| {
        let used = ["x-group", "cookie", "x-variant"].map(|name| request.field(name).unwrap_or_default());
        ok("Cache-Control: public, max-age=60\r\nVary: X-Variant, Cookie\r\n", &used.join("|"))
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "key: { headers: [X-Group], cookies: [theme] }");
    let fields = [("X-Group", "a"), ("Cookie", "theme=dark"), ("X-Variant", "1")];
    for named in ["X-Group", "Cookie", "x-variant", "keep-alive, X-GROUP,cookie ,X-Variant"] {
        let attack = [&fields[..], &[("Connection", named)]].concat();
        assert_ne!(get(port, "/", &attack).text(), "a|theme=dark|1", "{named}");
    }
    for _ in 0..2 {
        assert_eq!(get(port, "/", &fields).text(), "a|theme=dark|1");
    }
    assert!(get(port, "/", &fields).is_hit());
}
