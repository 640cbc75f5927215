//! Detects floods of HTTP/2 frames that cost processing but are not requests, so no rate limit counts them.
//!
//! A [`FrameMeter`] reads the bytes that a client sends on one connection, finds the 9-byte frame headers (RFC
//! 9113 §4.1) and deducts each costly frame from a token bucket. It skips payloads: of 16 KiB of
//! DATA it reads 9 bytes. It uses about 250 bytes and allocates nothing. Everything else is left to the h2
//! library, which reads the same bytes after it.
//!
//! # Where each attack is detected
//! "h2" is the h2 library (0.4.20) with its defaults and the configured header size, "here" is this meter.
//!
//! | attack | detected by |
//! |---|---|
//! | rapid reset: request and RST_STREAM in turn (CVE-2023-44487) | here: [`Limits::resets`]; h2 closes a connection with 20 reset streams that were not accepted yet, which a fast proxy never reaches |
//! | MadeYouReset: invalid frames cause resets by the server (CVE-2025-8671); reset flood (CVE-2019-9514) | h2: 1,024 of its own resets per connection, including refused streams; [`super::http2`]: 32 malformed requests |
//! | endless CONTINUATION (CVE-2024-27316 and others, VU#421644) | h2: five CONTINUATION frames without END_HEADERS;
//! here: [`Limits::continuations`] and [`Limits::header_block`], before anything is stored |
//! | HPACK bomb (CVE-2016-6581) | h2: `request_limits.header_size` after decompression |
//! | ping flood (CVE-2019-9512) | h2 stops reading while an acknowledgement is pending, so memory is bounded; here: [`Limits::pings`] |
//! | settings flood (CVE-2019-9515) | likewise; here: [`Limits::settings`] |
//! | priority shuffling (CVE-2019-9513) | h2 keeps no priority tree; here: [`Limits::priorities`] |
//! | empty frames (CVE-2019-9518) | h2: 100 empty DATA frames per connection; here: [`Limits::empty_data`] |
//! | tiny DATA frames | h2: a limit on buffered DATA frames of less than 256 bytes |
//! | data dribble: a window of a few bytes forces tiny frames (CVE-2019-9511) | here: [`Limits::small_window_updates`] |
//! | responses that are requested and not read (CVE-2019-9517) | the bounded buffers of the proxy and its write timeout |
//!
//! # The values
//! They are far above the needs of clients, because a false detection closes a connection with all its
//! requests.
//! - A browser that leaves a page cancels all its requests, so 200 resets at once are allowed. Services cancel some
//!   of their calls all the time, so every ten requests add one reset to the budget.
//! - gRPC keepalive pings come every 10 s or less often, but its bandwidth estimation sends a ping per round
//!   trip. grpc-go precedes it with a WINDOW_UPDATE, so that servers accept it; a ping after one is free. This is
//!   no bypass: small window updates have their own budget, and large ones overflow the connection window, a fatal
//!   error, once they exceed the sent bytes by 2 GiB.
//! - Window updates of 1 KiB and more are free: their number grows with the downloaded bytes, and each costs h2 a
//!   lookup without a response. Most clients send one per half or quarter of their window; those that send
//!   one for each small event stay below 1,600 per second.

mod budget;
mod limits;
mod meter;
#[cfg(test)]
mod tests;

pub use limits::{Flood, Limits};
pub use meter::FrameMeter;
