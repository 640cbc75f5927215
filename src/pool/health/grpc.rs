//! A gRPC health check: one call of `grpc.health.v1.Health/Check`.
//!
//! The protocol is <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>. Its two messages
//! have one field each, and the framing of gRPC is five bytes ahead of a message; that is less than any
//! library for protocol buffers would ask for, so it is written out here. Pingora's own connector
//! carries the call, so that TLS, PROXY protocol and time limits are those of the pool.

use bytes::Bytes;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use pingora_load_balancing::Backend;

use crate::pool::health::failure::reason;

/// The path of the call.
const PATH: &[u8] = b"/grpc.health.v1.Health/Check";
/// Bytes of the longest answer that is read; a real one has seven.
const ANSWER_MAX: usize = 1024;
/// Bytes of the longest service name, so that its length is one byte.
pub(in crate::pool) const SERVICE_MAX: usize = 127;

/// The check of one pool.
pub(in crate::pool) struct GrpcCheck {
    peer: HttpPeer,
    header: RequestHeader,
    question: Bytes,
}

impl GrpcCheck {
    /// A check that asks for `service`, or for the server as a whole where it is empty.
    ///
    /// # Errors
    /// When the header cannot be built, which a checked configuration rules out.
    pub(in crate::pool) fn new(service: &str, mut peer: HttpPeer) -> pingora::Result<Self> {
        // A connection of its own for each check: one that is shared would hide that no new one comes about.
        peer.options.max_h2_streams = 1;
        let mut header = RequestHeader::build("POST", PATH, Some(5))?;
        let host = if peer.sni.is_empty() { "localhost".to_owned() } else { peer.sni.clone() };
        header.insert_header(http::header::HOST, host)?;
        header.insert_header(http::header::CONTENT_TYPE, "application/grpc")?;
        header.insert_header(http::header::TE, "trailers")?;
        header.insert_header(http::header::USER_AGENT, "l7lb-health-check")?;
        Ok(Self { peer, header, question: Bytes::from(question(service)) })
    }

    /// Asks the backend.
    ///
    /// # Errors
    /// Why it is not well, in a few words.
    pub(in crate::pool) async fn ask(&self, connector: &Connector, target: &Backend) -> Result<(), String> {
        let mut peer = self.peer.clone();
        peer._address = target.addr.clone();
        let (session, _) = connector.get_http_session(&peer).await.map_err(|e| reason(&e))?;
        match session {
            HttpSession::H2(mut session) => self.call(&mut session).await,
            mut other => {
                other.shutdown().await;
                Err("no HTTP/2".to_owned())
            }
        }
    }

    async fn call(&self, session: &mut Http2Session) -> Result<(), String> {
        session.read_timeout = self.peer.options.read_timeout;
        let exchange = async {
            session.write_request_header(Box::new(self.header.clone()), false)?;
            session.write_request_body(self.question.clone(), true).await?;
            session.read_response_header().await?;
            let mut body = Vec::new();
            while let Some(part) = session.read_response_body().await? {
                if body.len() + part.len() <= ANSWER_MAX {
                    body.extend_from_slice(&part);
                }
            }
            Ok((body, session.read_trailers().await?))
        };
        let (body, trailers) = exchange.await.map_err(|e: Box<pingora::Error>| reason(&e))?;
        let header = session.response_header().ok_or("no answer")?;
        if header.status != http::StatusCode::OK {
            return Err(format!("status {}", header.status.as_u16()));
        }
        // Where there is no message, the trailers came in the header.
        let said = trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
        let said = said.or_else(|| header.headers.get("grpc-status")).and_then(|status| status.to_str().ok());
        match said {
            Some("0") => verdict(&body),
            // The service is not known, or health is not served at all: worth another word than a number.
            Some("5") => Err("grpc-status 5: unknown service".to_owned()),
            Some("12") => Err("grpc-status 12: no health service".to_owned()),
            Some(status) => Err(format!("grpc-status {}", status.chars().take(8).collect::<String>())),
            None => Err("no grpc-status".to_owned()),
        }
    }
}

/// `HealthCheckRequest { string service = 1; }` in gRPC's framing.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    // A longer name does not pass the configuration's check.
    if let Some(length) = u8::try_from(service.len()).ok().filter(|length| *length > 0) {
        message.extend_from_slice(&[0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    // Not compressed, then the length in four bytes; the message fits into one.
    let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap_or(u8::MAX)];
    framed.extend_from_slice(&message);
    framed
}

/// Reads `HealthCheckResponse { ServingStatus status = 1; }` in gRPC's framing.
fn verdict(answer: &[u8]) -> Result<(), String> {
    let malformed = || "a malformed answer".to_owned();
    let (prefix, message) = answer.split_first_chunk::<5>().ok_or_else(malformed)?;
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

/// The value of field 1; 0, the default of protocol buffers, where it is left out. Other fields are
/// passed over, as later versions of the message may have some.
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

/// Takes a number of base 128, its lowest digits first, off the front.
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
    fn the_question_names_the_service() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("a.B"), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let longest = question(&"x".repeat(SERVICE_MAX));
        assert_eq!((longest.len(), longest[4]), (5 + 2 + SERVICE_MAX, 129));
    }

    #[test]
    fn only_serving_passes() {
        let framed = |message: &[u8]| [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat();
        let said = |message: &[u8]| verdict(&framed(message)).err().unwrap_or_default();
        assert_eq!(said(&[8, 1]), "");
        assert_eq!(said(&[]), "UNKNOWN", "a field that is left out is 0");
        assert_eq!(said(&[8, 0]), "UNKNOWN");
        assert_eq!(said(&[8, 2]), "NOT_SERVING");
        assert_eq!(said(&[8, 3]), "SERVICE_UNKNOWN");
        assert_eq!(said(&[8, 0x81, 1]), "status 129");
        assert_eq!(said(&[8, 2, 8, 1]), "", "the last one counts");
        // Fields of later versions: a string, fixed numbers, another number.
        assert_eq!(said(&[18, 2, b'o', b'k', 25, 0, 0, 0, 0, 0, 0, 0, 0, 37, 0, 0, 0, 0, 40, 7, 8, 1]), "");
        for malformed in [&[8][..], &[8, 0x80], &[18, 9, 1], &[25, 0], &[37], &[11], &[8, 1, 0xff], &[0xff; 11]] {
            assert_eq!(said(malformed), "a malformed answer", "{malformed:?}");
        }
        for malformed in
            [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 3, 8, 1], &[0, 1, 0, 0, 2, 8, 1]]
        {
            assert!(verdict(malformed).is_err(), "{malformed:?}");
        }
    }
}
