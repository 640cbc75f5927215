//! gRPC status codes: the outcome of a call, which the HTTP status code, always 200, does not show.
//!
//! They are in the trailers, or in the header if there is no message
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, "Responses").

use http::{HeaderMap, HeaderValue, header};

/// The status of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcStatus(u8);

impl GrpcStatus {
    /// The call was cancelled, usually by its caller.
    pub const CANCELLED: Self = Self(1);
    /// Unknown.
    pub const UNKNOWN: Self = Self(2);
    /// The deadline expired before the call completed.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// A quota, or a resource such as memory, is exhausted.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// An internal error.
    pub const INTERNAL: Self = Self(13);
    /// The service is unavailable.
    pub const UNAVAILABLE: Self = Self(14);

    /// The status in the header or trailers of a response; `None` without one. An invalid status counts as
    /// unknown, as in clients.
    #[must_use]
    pub fn of(fields: &HeaderMap) -> Option<Self> {
        let status = fields.get("grpc-status")?.to_str().ok().and_then(|status| status.parse().ok());
        Some(status.filter(|status| *status <= 16).map_or(Self::UNKNOWN, Self))
    }

    /// The corresponding HTTP status code, as mapped by Envoy and Google's APIs (google/rpc/code.proto).
    #[must_use]
    pub fn http(self) -> u16 {
        match self.0 {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        }
    }
}

/// Whether these fields belong to a gRPC message. gRPC-Web has its own media type.
#[must_use]
pub fn is_grpc(fields: &HeaderMap) -> bool {
    fields.get(header::CONTENT_TYPE).is_some_and(is_grpc_type)
}

/// Whether a value of Content-Type is that of gRPC.
#[must_use]
pub fn is_grpc_type(value: &HeaderValue) -> bool {
    let rest = value.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn statuses_are_parsed_and_mapped_to_http() {
        for (text, http) in [
            ("0", 200),
            ("1", 499),
            ("2", 500),
            ("4", 504),
            ("5", 404),
            ("8", 429),
            ("12", 501),
            ("13", 500),
            ("14", 503),
            ("15", 500),
            ("16", 401),
            ("17", 500),
            ("999", 500),
            ("", 500),
            ("UNAVAILABLE", 500),
        ] {
            let status = GrpcStatus::of(&fields("grpc-status", text)).map(GrpcStatus::http);
            assert_eq!(status, Some(http), "{text:?}");
        }
        assert_eq!(GrpcStatus::of(&HeaderMap::new()), None);
        assert_eq!(GrpcStatus::of(&fields("grpc-status", "14")), Some(GrpcStatus::UNAVAILABLE));
    }

    #[test]
    fn grpc_is_detected_by_its_media_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&fields("content-type", value)), expected, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
