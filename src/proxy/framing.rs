//! Adapts the response head to the client's HTTP version, and to a request body that is not complete.

use http::{StatusCode, Version, header};
use pingora::{Error, ErrorType};
use pingora_http::ResponseHeader;

use super::client_side::ClientSide;
use super::headers::may_be_hop_by_hop;
use crate::http::grpc_status::is_grpc_type;

/// How many bytes of a request are read after its response to keep the client's connection: bytes that may
/// already be on their way.
const REST_MAX: u64 = 64 << 10;

/// HTTP/1.0 has neither interim responses (RFC 9110 §15.2) nor expectations (§10.1.1).
pub(super) fn prepare(client: &mut impl ClientSide) {
    if client.request().version == Version::HTTP_10 {
        client.suppress_interim();
        client.request_mut().remove_header(&header::EXPECT);
    }
}

/// Sends 100 Continue to a client that waits for it: Pingora does not forward it from HTTP/2 backends. The
/// request is forwarded without the expectation.
pub(super) async fn continue_ourselves(client: &mut impl ClientSide) -> pingora::Result<()> {
    let expected = client.request_mut().remove_header(&header::EXPECT).is_some();
    if expected && !client.is_http2() && !client.is_request_complete() {
        client.set_close_if_request_incomplete(false);
        client.write_continue().await?;
    }
    Ok(())
}

/// What [`check`] has found in the fields of a response, so that usual responses need no further look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Whether there may be hop-by-hop fields to remove.
    pub(super) hop_by_hop: bool,
    /// Whether it belongs to a gRPC call.
    pub(super) grpc: bool,
}

/// Checks how the backend has framed its response, and merges equal values of Content-Length into one (RFC 9110 §8.6).
/// Each engine has rejected different values.
///
/// # Errors
/// If there is a transfer coding other than `chunked`, or one in a version that has none. l7lb asks for no other coding, so
/// a client might not understand it (RFC 9112 §6.1).
pub(super) fn check(response: &mut ResponseHeader) -> pingora::Result<Found> {
    let (mut codings, mut lengths, mut merged) = (0, 0, None);
    let (mut hop_by_hop, mut grpc) = (false, None);
    // One pass costs less than a lookup for each name.
    for (name, value) in &response.headers {
        let bytes = value.as_bytes();
        if *name == header::TRANSFER_ENCODING {
            codings += 1;
            let is_chunked = bytes.trim_ascii().eq_ignore_ascii_case(b"chunked") && codings == 1;
            if !is_chunked || response.version != Version::HTTP_11 {
                let problem = "a transfer coding other than chunked, or in HTTP/1.0";
                return Error::e_explain(ErrorType::InvalidHTTPHeader, problem);
            }
        } else if *name == header::CONTENT_LENGTH {
            lengths += 1;
            if lengths > 1 || bytes.contains(&b',') {
                merged = bytes.split(|byte| *byte == b',').next().map(|length| length.trim_ascii().to_vec());
            }
        } else if *name == header::CONTENT_TYPE {
            // The first one counts.
            grpc.get_or_insert_with(|| is_grpc_type(value));
        } else {
            hop_by_hop |= may_be_hop_by_hop(name, value);
        }
    }
    if let Some(length) = merged {
        response.insert_header(header::CONTENT_LENGTH, length)?;
    }
    Ok(Found { hop_by_hop, grpc: grpc.unwrap_or_default() })
}

/// Whether the head is an interim response (100, 103).
pub(super) fn is_interim(response: &ResponseHeader) -> bool {
    response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS
}

/// Decides whether the client's connection is kept after a response that may precede the end of the request. A
/// short rest of the request is read; before a long one the response says `close`.
pub(super) fn decide_on_unread_body(client: &mut impl ClientSide) {
    let short = client.is_request_complete() || rest(client).is_some_and(|rest| rest <= REST_MAX);
    client.set_close_if_request_incomplete(!short);
}

/// How much of the request is still to come. `None` if unknown: for chunked bodies, and for a client that waits
/// for 100 and may never send its body.
fn rest(client: &impl ClientSide) -> Option<u64> {
    let headers = &client.request().headers;
    if headers.contains_key(header::EXPECT) && client.response_status() != Some(StatusCode::CONTINUE) {
        return None;
    }
    let length: u64 = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    Some(length.saturating_sub(client.body_received()))
}

/// Adapts the response head, and keep-alive, to the client.
pub(super) fn adapt(client: &mut impl ClientSide, response: &mut ResponseHeader) {
    if is_interim(response) {
        // Pingora counts 100 as a response, after which every upload that waits for it would lose its
        // connection.
        client.set_close_if_request_incomplete(false);
    } else {
        decide_on_unread_body(client);
    }
    let old = client.request().version == Version::HTTP_10;
    if old && response.remove_header(&header::TRANSFER_ENCODING).is_some() {
        // HTTP/1.0 has no chunked coding: the end of the connection ends the body.
        client.disable_keepalive();
    }
}

/// Whether the response has no body.
pub(super) fn is_without_body(response: &ResponseHeader) -> bool {
    let empty = response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    empty || matches!(response.status.as_u16(), 204 | 304)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(version: Version, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build_no_case(200, None).unwrap();
        head.set_version(version);
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn equal_values_of_content_length_are_merged() {
        for fields in [
            &[("content-length", "7")][..],
            &[("content-length", "7"), ("content-length", "7")],
            &[("content-length", "7, 7")],
            &[("content-length", " 7 ,7"), ("content-length", "7")],
        ] {
            let mut head = response(Version::HTTP_11, fields);
            check(&mut head).unwrap();
            assert_eq!(head.headers.get_all("content-length").iter().collect::<Vec<_>>(), ["7"], "{fields:?}");
        }
    }

    #[test]
    fn fields_that_need_a_further_look_are_found() {
        let found = |fields: &[(&'static str, &'static str)]| check(&mut response(Version::HTTP_11, fields)).unwrap();
        let usual =
            [("content-type", "text/html"), ("connection", "keep-alive"), ("date", "x"), ("content-length", "1")];
        assert_eq!(found(&usual), Found::default());
        assert_eq!(found(&[("connection", "close")]), Found::default());
        for field in [
            ("connection", "keep-alive, x"),
            ("connection", "Close"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("trailer", "x"),
            ("proxy-connection", "close"),
            ("proxy-authenticate", "Basic"),
        ] {
            assert_eq!(found(&[field]), Found { hop_by_hop: true, grpc: false }, "{field:?}");
        }
        assert!(found(&[("content-type", "application/grpc+proto")]).grpc);
        assert!(!found(&[("content-type", "text/html"), ("content-type", "application/grpc")]).grpc);
    }

    #[test]
    fn transfer_coding_other_than_a_single_chunked_is_an_error() {
        let coded = |version, codings: &[&'static str]| {
            let fields: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            check(&mut response(version, &fields)).is_ok()
        };
        assert!(coded(Version::HTTP_11, &["chunked"]) && coded(Version::HTTP_11, &["Chunked "]));
        assert!(coded(Version::HTTP_10, &[]) && coded(Version::HTTP_2, &[]));
        for codings in [&["gzip"][..], &["gzip, chunked"], &["chunked", "chunked"], &["identity"], &[""], &["xchunked"]]
        {
            assert!(!coded(Version::HTTP_11, codings), "{codings:?}");
        }
        assert!(!coded(Version::HTTP_10, &["chunked"]) && !coded(Version::HTTP_2, &["chunked"]));
    }
}
