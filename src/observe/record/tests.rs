//! Lines in every format, for usual and for hostile requests.

use super::layout::{Format, Keys};
use super::*;
use crate::base::fault::{Faults, Place};

fn record<'a>() -> Record<'a> {
    Record {
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        client: "192.0.2.1",
        method: "GET",
        host: "example.com",
        path: "/apiA",
        query: None,
        protocol: "HTTP/2",
        request_headers: None,
        response_headers: &[],
        status: 200,
        bytes: 12,
        latency: Duration::from_micros(1_234),
        upstream: Some("127.0.0.1:8081"),
        upstream_latency: Some(Duration::from_micros(987)),
        attempts: 1,
        route: Some("*/apiA"),
        pool: Some("api-a"),
        request_id: "0123",
        cache: "",
        cause: None,
        failed_attempts: &[],
        detail: "",
    }
}

fn line(record: &Record<'_>, format: Format) -> String {
    let faultless = Keys { format, ..KEYS };
    in_layout(record, &faultless)
}

const KEYS: Keys<'_> = Keys {
    format: Format::Text,
    template: None,
    query: false,
    redact: &redaction::Config { query: Vec::new(), headers: Vec::new(), client_address: false },
    headers: [&[], &[]],
};

fn in_layout(record: &Record<'_>, keys: &Keys<'_>) -> String {
    let mut faults = Faults::default();
    let layout = Layout::check(keys, &Place::root(), &mut faults);
    assert!(faults.is_empty());
    let mut line = String::new();
    record.write(&layout, &mut line);
    line
}

fn of_template(record: &Record<'_>, template: &str) -> String {
    in_layout(record, &Keys { template: Some(template), ..KEYS })
}

fn fields(values: &[(&'static str, &[u8])]) -> Vec<(HeaderName, HeaderValue)> {
    let field = |(name, value): &(&'static str, &[u8])| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
    };
    values.iter().map(field).collect()
}

#[test]
fn text_line_has_every_field() {
    assert_eq!(
        line(&record(), Format::Text),
        "time=2023-11-14T22:13:20.123Z client=192.0.2.1 method=GET host=example.com path=/apiA protocol=HTTP/2 \
         status=200 bytes=12 latency_ms=1.234 upstream=127.0.0.1:8081 upstream_latency_ms=0.987 attempts=1 \
         route=*/apiA pool=api-a request_id=0123 cause=-\n"
    );
}

#[test]
fn json_line_is_valid_for_any_client_input() {
    let record = Record {
        path: "/\" \\ \n\u{7f}ü",
        upstream: None,
        upstream_latency: None,
        route: None,
        cause: Some(Cause::NoRoute),
        ..record()
    };
    let line = line(&record, Format::Json);
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    // YAML is a superset of JSON, so the available parser suffices.
    let value: serde_yaml::Value = serde_yaml::from_str(&line).unwrap();
    assert_eq!(value["path"].as_str().unwrap(), "/\" \\ \n\u{7f}ü");
    assert_eq!(value["cause"].as_str().unwrap(), "no_route");
    assert!(value["upstream"].is_null() && value["route"].is_null());
    assert_eq!(value["latency_ms"].as_f64().unwrap(), 1.234);
}

#[test]
fn client_cannot_forge_a_line() {
    let record = Record { path: "/x\ntime=forged", host: "a\" status=200", ..record() };
    let line = line(&record, Format::Text);
    assert_eq!(line.matches('\n').count(), 1);
    assert!(line.contains(r#"path="/x\u000atime=forged""#), "{line}");
    assert!(line.contains(r#"host="a\" status=200""#), "{line}");
}

#[test]
fn combined_line_is_that_of_apache() {
    let headers: HeaderMap =
        fields(&[("referer", b"https://a/?q=1"), ("user-agent", b"curl/8 \"x\"")]).into_iter().collect();
    let record = Record { query: Some("a=1"), request_headers: Some(&headers), ..record() };
    let expected =
        r#"192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] "GET /apiA HTTP/2.0" 200 12 "https://a/" "curl/8 \"x\"""#;
    assert_eq!(line(&record, Format::Combined), format!("{expected}\n"));
    let with_query = in_layout(&record, &Keys { format: Format::Combined, query: true, ..KEYS });
    assert!(with_query.contains("\"GET /apiA?a=1 HTTP/2.0\" 200 12 \"https://a/?q=1\""), "{with_query}");
    let unknown = Record { method: "", path: "", status: 0, bytes: 0, request_headers: None, ..record };
    let expected = "192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] \"-\" - - \"-\" \"-\"\n";
    assert_eq!(line(&unknown, Format::Combined), expected);
}

#[test]
fn template_line_has_the_named_fields_in_their_places() {
    let headers: HeaderMap = fields(&[("user-agent", b"curl")]).into_iter().collect();
    let response = fields(&[("content-type", b"text/html")]);
    let failed = [Cause::ConnectFailed, Cause::RetriedResponse];
    let record = Record {
        query: Some("a=1"),
        request_headers: Some(&headers),
        response_headers: &response,
        failed_attempts: &failed,
        ..record()
    };
    let template = "${time} ${client.ip} ${request.method} ${request.host} ${request.path} ${request.query} ${request.uri} \
                    ${request.protocol} ${request.id} ${response.status} ${response.bytes} ${latency_ms} \
                    ${upstream.address} ${upstream.pool} ${upstream.latency_ms} ${attempts} ${failed_attempts} ${route} \
                    ${cache} ${cause} ${detail} \"${request.header.User-Agent}\" ${response.header.content-type} \
                    ${request.header.x} $${x} 100%";
    assert_eq!(
        of_template(&record, template),
        "2023-11-14T22:13:20.123Z 192.0.2.1 GET example.com /apiA a=1 /apiA?a=1 HTTP/2 0123 200 12 1.234 127.0.0.1:8081 \
         api-a 0.987 1 connect_failed,retried_response */apiA - - - \"curl\" text/html - ${x} 100%\n"
    );
}

#[test]
fn misspelt_field_of_a_template_is_a_fault_with_a_suggestion() {
    for (template, problem, hint) in [
        ("${client.pi}", "there is no field `client.pi`", "did you mean `client.ip`?"),
        ("${request.headers.a}", "there is no field `request.headers.a`", "did you mean `request.header.NAME`?"),
        ("${request.header.a b}", "`a b` is not a header name", "write for example `User-Agent`"),
        ("${cause", "`${cause` has `${` without a closing brace", "add `}`"),
        ("a\nb", "the template has a control character", "write one line without tabs"),
        ("", "the template is empty", "write for example `${client.ip} ${response.status}`"),
    ] {
        let mut faults = Faults::default();
        Layout::check(&Keys { template: Some(template), ..KEYS }, &Place::root(), &mut faults);
        let found: Vec<(String, String)> =
            faults.into_vec().into_iter().map(|fault| (fault.problem, fault.hint)).collect();
        assert_eq!(found, [(problem.to_owned(), hint.to_owned())], "{template}");
    }
}

/// Bytes that a client or backend may put into a header value, and text that may be in a path or a host.
const HOSTILE_BYTES: &[u8] = b"a\" status=200 \\ \xff\xfe \xc2\x85 \xe2\x80\xa8 \xe2\x80\xae \t x";
const HOSTILE_TEXT: &str = "/x\r\n\u{0}time=forged \u{85}\u{2028}\u{202e}\"\\ \u{1b}[2J";

/// No hostile value ends a line, hides others in a terminal, or leaves its quotes.
#[test]
fn hostile_values_cannot_forge_lines_or_fields_in_any_format() {
    let hostile = fields(&[("user-agent", HOSTILE_BYTES), ("referer", HOSTILE_BYTES)]);
    let headers: HeaderMap = hostile.iter().cloned().collect();
    let record = Record {
        method: "G\nET",
        host: HOSTILE_TEXT,
        path: HOSTILE_TEXT,
        query: Some(HOSTILE_TEXT),
        request_headers: Some(&headers),
        response_headers: &hostile,
        detail: HOSTILE_TEXT,
        ..record()
    };
    let names = ["user-agent".to_owned()];
    let template = "\"${request.method}\" \"${request.host}\" \"${request.uri}\" \"${request.header.user-agent}\" \
                    \"${response.header.referer}\" \"${detail}\"";
    let keys = |format| Keys { format, query: true, headers: [&names, &names], ..KEYS };
    for (keys, quotes) in [
        (keys(Format::Text), None),
        (keys(Format::Json), None),
        (Keys { format: Format::Combined, query: true, ..KEYS }, Some(6)),
        (Keys { template: Some(template), ..KEYS }, Some(12)),
    ] {
        let line = in_layout(&record, &keys);
        let body = line.strip_suffix('\n').unwrap();
        let is_harmless = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{202e}');
        assert!(body.chars().all(is_harmless), "{line}");
        let unescaped = body.replace("\\\\", "").replace("\\\"", "");
        let found = unescaped.matches('"').count();
        assert!(found.is_multiple_of(2) && quotes.is_none_or(|quotes| quotes == found), "{found}: {line}");
    }
    let line = in_layout(&record, &keys(Format::Json));
    let value: serde_yaml::Value = serde_yaml::from_str(&line).unwrap();
    assert_eq!(value["path"].as_str().unwrap(), HOSTILE_TEXT);
    assert_eq!(value["query"].as_str().unwrap(), HOSTILE_TEXT);
    let text = String::from_utf8_lossy(HOSTILE_BYTES);
    assert_eq!(value["request_headers"]["user-agent"].as_str().unwrap(), text);
    assert_eq!(value["response_headers"]["user-agent"].as_str().unwrap(), text);
}

#[test]
fn further_fields_are_named_and_redacted_in_text_and_json() {
    let headers: HeaderMap =
        fields(&[("user-agent", b"curl"), ("authorization", b"Bearer secret")]).into_iter().collect();
    let response = fields(&[("content-type", b"text/html")]);
    let redact = redaction::Config { query: vec!["token".into()], headers: Vec::new(), client_address: true };
    let record = Record {
        query: Some("token=secret&a=1"),
        request_headers: Some(&headers),
        response_headers: &response,
        ..record()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (of_request, of_response) = (names(&["User-Agent", "Authorization", "x-none"]), names(&["content-type"]));
    let keys = |format| Keys { format, query: true, redact: &redact, headers: [&of_request, &of_response], ..KEYS };
    let text = in_layout(&record, &keys(Format::Text));
    assert!(text.contains(" client=192.0.2.0 ") && text.contains(" query=token=[redacted]&a=1 "), "{text}");
    let end = " request.header.user-agent=curl request.header.authorization=[redacted] request.header.x-none=- \
               response.header.content-type=text/html\n";
    assert!(text.ends_with(end), "{text}");
    let json: serde_yaml::Value = serde_yaml::from_str(&in_layout(&record, &keys(Format::Json))).unwrap();
    assert_eq!(json["request_headers"]["authorization"].as_str(), Some("[redacted]"));
    assert!(json["request_headers"]["x-none"].is_null());
    assert_eq!(json["response_headers"]["content-type"].as_str(), Some("text/html"));
    for line in [text, in_layout(&record, &keys(Format::Json))] {
        assert!(!line.contains("secret") && !line.contains("192.0.2.1\""), "{line}");
    }
}
