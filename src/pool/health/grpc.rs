//! A gRPC health check: one call of `grpc.health.v1.Health/Check`.
//!
//! The protocol is <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>. Its two messages have one
//! field each, and gRPC framing is five bytes before a message. That is less than a protocol buffers library
//! would need, so it is implemented here. Pingora's connector carries the call, so that TLS, PROXY protocol and
//! timeouts are those of the pool.

use std::time::Duration;

use bytes::Bytes;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;

use crate::pool::health::failure::reason;

/// The path of the call.
const PATH: &[u8] = b"/grpc.health.v1.Health/Check";
/// Longest response in bytes that is read; a real one has seven.
const RESPONSE_MAX: usize = 1024;
/// Longest service name in bytes, so that its length fits into one byte.
pub(in crate::pool) const SERVICE_MAX: usize = 127;

/// The gRPC check of one pool.
pub(in crate::pool) struct GrpcCheck {
    header: RequestHeader,
    request: Bytes,
}

impl GrpcCheck {
    /// A check for `service`, or for the server as a whole if the name is empty.
    ///
    /// # Errors
    /// If the header cannot be built, which the configuration check rules out.
    pub(in crate::pool) fn new(service: &str, host: &str) -> pingora::Result<Self> {
        let mut header = RequestHeader::build("POST", PATH, Some(5))?;
        header.insert_header(http::header::HOST, host)?;
        header.insert_header(http::header::CONTENT_TYPE, "application/grpc")?;
        header.insert_header(http::header::TE, "trailers")?;
        header.insert_header(http::header::USER_AGENT, "l7lb-health-check")?;
        Ok(Self { header, request: Bytes::from(request(service)) })
    }

    /// Checks the backend.
    ///
    /// # Errors
    /// The reason of the failure in a few words.
    pub(in crate::pool) async fn run(&self, connector: &Connector, peer: &HttpPeer) -> Result<(), String> {
        let (session, _) = connector.get_http_session(peer).await.map_err(|e| reason(&e))?;
        match session {
            HttpSession::H2(mut session) => self.call(&mut session, peer.options.read_timeout).await,
            mut other => {
                other.shutdown().await;
                Err("no HTTP/2".to_owned())
            }
        }
    }

    async fn call(&self, session: &mut Http2Session, timeout: Option<Duration>) -> Result<(), String> {
        session.read_timeout = timeout;
        let exchange = async {
            session.write_request_header(Box::new(self.header.clone()), false)?;
            session.write_request_body(self.request.clone(), true).await?;
            session.read_response_header().await?;
            let mut body = Vec::new();
            while let Some(part) = session.read_response_body().await? {
                if body.len() + part.len() <= RESPONSE_MAX {
                    body.extend_from_slice(&part);
                }
            }
            Ok((body, session.read_trailers().await?))
        };
        let (body, trailers) = exchange.await.map_err(|e: Box<pingora::Error>| reason(&e))?;
        let header = session.response_header().ok_or("no response")?;
        if header.status != http::StatusCode::OK {
            return Err(format!("status {}", header.status.as_u16()));
        }
        // Without a message, the trailers are in the header.
        let reported = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        let reported = reported.or_else(|| header.headers.get("grpc-status")).and_then(|status| status.to_str().ok());
        match reported {
            Some("0") => verdict(&body),
            // The service is unknown, or there is no health service: clearer than a number.
            Some("5") => Err("grpc-status 5: unknown service".to_owned()),
            Some("12") => Err("grpc-status 12: no health service".to_owned()),
            Some(status) => Err(format!("grpc-status {}", status.chars().take(8).collect::<String>())),
            None => Err("no grpc-status".to_owned()),
        }
    }
}

/// `HealthCheckRequest { string service = 1; }` in gRPC framing.
fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    // The configuration check rejects a longer name.
    if let Some(length) = u8::try_from(service.len()).ok().filter(|length| *length > 0) {
        message.extend_from_slice(&[0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    // Not compressed, then the length in four bytes; the message length fits into one byte.
    let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap_or(u8::MAX)];
    framed.extend_from_slice(&message);
    framed
}

/// Reads `HealthCheckResponse { ServingStatus status = 1; }` in gRPC framing.
fn verdict(result: &[u8]) -> Result<(), String> {
    let malformed = || "a malformed response".to_owned();
    let (prefix, message) = result.split_first_chunk::<5>().ok_or_else(malformed)?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 || usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(malformed());
    }
    match status(message).ok_or_else(malformed)? {
        1 => Ok(()),
        0 => Err("UNKNOWN".to_owned()),
        2 => Err("NOT_SERVING".to_owned()),
        3 => Err("SERVICE_UNKNOWN".to_owned()),
        other => Err(format!("status {other}")),
    }
}

/// The value of field 1, or its default 0 if missing. Unknown fields are skipped, because later versions may
/// add some.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
            }
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Takes a base-128 varint from the front.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_names_the_service() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let longest = request(&"x".repeat(SERVICE_MAX));
        assert_eq!((longest.len(), longest[4]), (5 + 2 + SERVICE_MAX, 129));
    }

    #[test]
    fn only_serving_passes_the_check() {
        let framed = |message: &[u8]| [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat();
        let reported = |message: &[u8]| verdict(&framed(message)).err().unwrap_or_default();
        assert_eq!(reported(&[8, 1]), "");
        assert_eq!(reported(&[]), "UNKNOWN", "a missing field is 0");
        assert_eq!(reported(&[8, 0]), "UNKNOWN");
        assert_eq!(reported(&[8, 2]), "NOT_SERVING");
        assert_eq!(reported(&[8, 3]), "SERVICE_UNKNOWN");
        assert_eq!(reported(&[8, 0x81, 1]), "status 129");
        assert_eq!(reported(&[8, 2, 8, 1]), "", "the last value counts");
        // Fields of later versions: a string, fixed-size numbers, another number.
        assert_eq!(reported(&[18, 2, b'o', b'k', 25, 0, 0, 0, 0, 0, 0, 0, 0, 37, 0, 0, 0, 0, 40, 7, 8, 1]), "");
        for malformed in [&[8][..], &[8, 0x80], &[18, 9, 1], &[25, 0], &[37], &[11], &[8, 1, 0xff], &[0xff; 11]] {
            assert_eq!(reported(malformed), "a malformed response", "{malformed:?}");
        }
        for malformed in
            [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 3, 8, 1], &[0, 1, 0, 0, 2, 8, 1]]
        {
            assert!(verdict(malformed).is_err(), "{malformed:?}");
        }
    }
}
