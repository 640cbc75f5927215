//! Tests of variables, and examples of requests for the tests of other filters.

use super::*;
use crate::filter::body::BodyFilters;
use crate::filter::response::Source;
use crate::filter::{Changes, Filter};
use std::net::{IpAddr, Ipv4Addr};

/// Facts of an example client that requests `host`.
pub(in crate::filter) fn facts<'a>(host: &'a str, scheme: &'a str) -> Facts<'a> {
    Facts {
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        request_id: "id-1",
        scheme,
        host,
        route: "api",
        server_name: Some("example.com"),
        client_certificate: None,
        is_from_trusted_proxy: false,
        is_example: true,
    }
}

/// A request with these fields.
pub(in crate::filter) fn request(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
    for (name, value) in fields {
        request.append_header(*name, *value).unwrap();
    }
    request
}

/// The response of `status` with `headers` to a request, after the response half of a filter.
pub(in crate::filter) fn answered(
    filter: &dyn Filter,
    (request, facts): (&RequestHeader, &Facts<'_>),
    (mut status, mut headers): (StatusCode, HeaderMap),
    source: Source,
) -> (StatusCode, HeaderMap) {
    filter.response(&mut Response {
        status: &mut status,
        headers: &mut headers,
        body: &mut BodyFilters::default(),
        request,
        accepted: &request.headers,
        path_and_query: "/",
        facts,
        upstream: "",
        pool: "",
        source,
    });
    (status, headers)
}

fn rendered(text: &str) -> String {
    let header = request("/a/b?x=1&y=two&x=3", &[("cookie", "a=1; session=s3cret"), ("x-tenant", "t1")]);
    let facts = facts("example.com:8443", "https");
    let mut changes = Changes::default();
    let request = Request { header: &header, facts: &facts, changes: &mut changes };
    let template = Template::parse(text).unwrap();
    String::from_utf8(template.render(&Values::of_request(&request))).unwrap()
}

#[test]
fn variables_have_the_values_of_the_request() {
    for (text, wanted) in [
        ("plain $1 text$", "plain $1 text$"),
        ("${client.ip}", "192.0.2.1"),
        ("${request.scheme}://${request.host}${request.uri}", "https://example.com/a/b?x=1&y=two&x=3"),
        ("${request.authority} ${request.path} ${request.query}", "example.com:8443 /a/b x=1&y=two&x=3"),
        ("${request.header.X-Tenant}/${request.cookie.session}/${request.query.y}", "t1/s3cret/two"),
        ("${request.query.x}${request.query.none}${request.header.none}", "1"),
        ("${route} ${request.id} ${request.method} ${tls.server_name}", "api id-1 GET example.com"),
        ("$${route} is ${route}", "${route} is api"),
    ] {
        assert_eq!(rendered(text), wanted, "{text}");
    }
}

#[test]
fn misspelt_variable_is_a_fault_with_a_suggestion() {
    for (text, problem, hint) in [
        ("${client.ipp}", "there is no variable `client.ipp`", "did you mean `client.ip`?"),
        ("${request.headr.x}", "there is no variable `request.headr.x`", "did you mean `request.header.NAME`?"),
        ("${colour}", "there is no variable `colour`", "known: client.ip, request.id"),
        ("${client.ip", "`${client.ip` has `${` without a closing brace", "add `}`"),
        ("${request.header.a b}", "`a b` is not a header name", "X-Tenant"),
    ] {
        let (told, advice) = Template::parse(text).unwrap_err();
        assert!(told == problem && advice.contains(hint), "{text}: {told} {advice}");
    }
}

#[test]
fn value_with_a_line_break_is_a_fault() {
    let mut faults = Faults::default();
    assert_eq!(Value::check("a\r\nX-Evil: 1", Scope::Request, &Place::root(), &mut faults), None);
    assert_eq!(Value::check("${response.status}", Scope::Request, &Place::root(), &mut faults), None);
    assert_eq!(faults.into_vec().len(), 2);
}

#[test]
fn port_is_not_part_of_a_host() {
    assert_eq!(without_port("a:80"), "a");
    assert_eq!(without_port("[::1]:80"), "[::1]");
    assert_eq!(without_port("[::1]"), "[::1]");
    assert_eq!(without_port("a"), "a");
}
