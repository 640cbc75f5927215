//! What a legal HTTP/1 request is, decided in one place, before anybody else reads it.
//!
//! Two parsers that disagree about where a request ends are how requests are smuggled. So the
//! listener asks here first, about the very bytes that came, and hands on only what this module
//! took: no leniency that RFC 9112 merely permits is used, and whatever has two readings is refused.
//! Nothing here does I/O or allocates; a byte is looked at once, however it dribbles in.
//!
//! - [`HeadReader`] takes the request line and the header: is it legal, and what body follows?
//! - [`Chunked`] finds the end of a chunked body.
//! - [`check_authority`] is for HTTP/2 too, whose other rules are the h2 crate's and Pingora's.
//! - [`fn@glimpse`] reads from refused bytes what the access log should say.
//!
//! # What is refused, beyond what RFC 9112 asks for
//! Bare CR or LF, more than one space in the request line, obsolete folding, all versions but 1.0 and
//! 1.1, a second `Content-Length` even if it is the same, `Transfer-Encoding` other than one
//! `chunked`, with `Content-Length` or in HTTP/1.0, `Host` that is not what the absolute form says,
//! `Connection` that names what others rely on, and host names with characters that no name in DNS has.

mod authority;
mod chunked;
mod field_lines;
mod fields;
mod glimpse;
mod grammar;
mod head;
mod request_line;

#[cfg(test)]
mod chunked_tests;
#[cfg(test)]
mod head_tests;

pub use authority::check as check_authority;
pub use chunked::{Chunk, Chunked};
pub use glimpse::{Glimpse, glimpse};
pub use head::{Body, Head, HeadReader};

pub use crate::http::rejection::Refusal;
