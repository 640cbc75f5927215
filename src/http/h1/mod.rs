//! The HTTP/1 parser: decides in one place what a legal request is.
//!
//! Request smuggling needs two parsers that disagree about the end of a request. So the listener calls this
//! module first, with the received bytes, and forwards only what it accepts: leniency that RFC 9112 merely
//! permits is not used, and ambiguous input is rejected. This module does no I/O and allocates nothing; each
//! byte is examined once, in any split.
//!
//! - [`HeadReader`] parses the request line and the header, and determines the body.
//! - [`Chunked`] finds the end of a chunked body.
//! - [`check_authority`] also applies to HTTP/2, whose other rules are in the h2 crate and Pingora.
//! - [`encode_target`] percent-encodes what browsers send unencoded; [`parse_request`] builds a request from an accepted head.
//! - [`fn@peek`] extracts the parts of rejected bytes for the access log.
//!
//! # Stricter than RFC 9112
//! Bare CR or LF, more than one space in the request line, obsolete folding, all versions but 1.0 and
//! 1.1, a second `Content-Length` even if it is the same, `Transfer-Encoding` other than one
//! `chunked`, with `Content-Length` or in HTTP/1.0, `Host` that differs from the absolute form,
//! `Connection` that names protected headers, and host names with characters that no DNS name has.

mod authority;
mod body;
mod chunked;
mod field_lines;
mod fields;
mod peek;
mod grammar;
mod head;
mod request;
mod request_line;

#[cfg(test)]
mod chunked_tests;
#[cfg(test)]
mod head_tests;

pub use authority::check as check_authority;
pub use body::Body;
pub use chunked::{Chunk, Chunked};
pub use head::{Head, HeadReader};
pub use peek::{PeekedHead, peek};
pub use request::{encode_target, parse as parse_request};

pub use crate::http::rejection::DetailedRejection;
