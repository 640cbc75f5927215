//! Floods of HTTP/2 frames that cost us work without being requests, so that no rate limit sees them.
//!
//! A [`FrameMeter`] looks at the bytes that a client sends on one connection, finds the 9-byte frame
//! headers (RFC 9113 §4.1) and takes each costly frame off a budget that fills up again with time. It
//! jumps over payloads: of 16 KiB of DATA it reads 9 bytes. It keeps about 250 bytes and allocates
//! nothing. What it does not understand it leaves to the h2 library, which reads the same bytes after it.
//!
//! # Which attack is caught where
//! "h2" is the h2 library (0.4.20) with its defaults and the size of a header that is configured,
//! "here" is this meter.
//!
//! | attack | caught by |
//! |---|---|
//! | rapid reset: request and RST_STREAM in turn (CVE-2023-44487) | here: [`Limits::resets`]; h2 ends a connection with 20 reset streams that nobody took up yet, which a fast proxy never lets happen |
//! | MadeYouReset: invalid frames make us reset (CVE-2025-8671); reset flood (CVE-2019-9514) | h2: 1,024 resets of its own, refused streams included, in a connection's life; [`super::http2`]: 32 malformed requests |
//! | CONTINUATION without end (CVE-2024-27316 and others, VU#421644) | h2: five that are not the last; here: [`Limits::continuations`] and [`Limits::header_block`], before anything is stored |
//! | header bomb by HPACK (CVE-2016-6581) | h2: `request_limits.header_size` after decompression |
//! | ping flood (CVE-2019-9512) | h2 reads nothing more while an answer waits, so memory is safe; here: [`Limits::pings`] |
//! | settings flood (CVE-2019-9515) | likewise; here: [`Limits::settings`] |
//! | priority shuffling (CVE-2019-9513) | h2 keeps no tree of priorities; here: [`Limits::priorities`] |
//! | empty frames (CVE-2019-9518) | h2: 100 empty DATA frames in a connection's life; here: [`Limits::empty_data`] |
//! | tiny DATA frames | h2: a budget for frames below 256 bytes that wait to be read |
//! | data dribble: a window of a few bytes makes us send tiny frames (CVE-2019-9511) | here: [`Limits::small_window_updates`] |
//! | answers that are asked for and not read (CVE-2019-9517) | the proxy's bounded buffers and its limit on writing |
//!
//! # Why these numbers
//! They are far above what clients do, since a false alarm ends a connection with all its requests.
//! - Browsers cancel by the page, so 200 resets at once pass. Callers of services cancel a share of their
//!   calls at any rate, so ten requests pay for one reset.
//! - gRPC's keepalive pings come every 10 s or less often, but its estimate of the bandwidth takes a ping
//!   each round trip. For the sake of meters like this one, grpc-go sends a WINDOW_UPDATE before, so a
//!   ping after one is free. That opens no gap: small window updates have a budget of their own, and large
//!   ones overflow the connection's window, a fatal error, after 2 GiB more than we sent.
//! - Window updates of 1 KiB and more are free: there are as many as bytes are downloaded, and one costs
//!   h2 a look-up, no answer. Most clients send them at each half or quarter of their window; those that
//!   send one for each small event of a stream stay below 1,600 a second.

mod budget;
mod limits;
mod meter;
#[cfg(test)]
mod tests;

pub use limits::{Flood, Limits};
pub use meter::FrameMeter;
