//! Floods of HTTP/2 frames that cost us work without being requests, so that no rate limit sees them.
//!
//! A [`FrameMeter`] looks at the bytes that a client sends on one connection, finds the 9-byte frame
//! headers (RFC 9113 §4.1) and takes each costly frame off a budget that fills up again with time. It
//! jumps over payloads: of 16 KiB of DATA it reads 9 bytes. It keeps about 250 bytes and allocates
//! nothing. What it does not understand it leaves to the h2 library, which reads the same bytes after it.
//!
//! # Which attack is caught where
//! "h2" is the h2 library (0.4.20) as Pingora 0.9.1 sets it up, "here" is this meter.
//!
//! | attack | caught by |
//! |---|---|
//! | rapid reset: request and RST_STREAM in turn (CVE-2023-44487) | here: [`Limits::resets`]; h2 ends a connection with 20 reset streams that nobody took up yet, which a fast proxy never lets happen |
//! | MadeYouReset: invalid frames make us reset (CVE-2025-8671); reset flood (CVE-2019-9514) | h2: 1,024 resets of its own, refused streams included, in a connection's life; Pingora: 32 malformed requests |
//! | CONTINUATION without end (CVE-2024-27316 and others, VU#421644) | h2: five that are not the last; here: [`Limits::continuations`] and [`Limits::header_block`], before anything is stored |
//! | header bomb by HPACK (CVE-2016-6581) | h2: 64 KiB of decoded header |
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
mod meter;
#[cfg(test)]
mod tests;

use std::fmt;

pub use meter::FrameMeter;

/// Budgets of one connection. Where a number is "a minute", as many pass at once, and the budget is whole
/// again after a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// RST_STREAM a minute; each HEADERS frame gives back a tenth of one.
    pub resets: u32,
    /// PING a minute, answers to ours among them; one after each WINDOW_UPDATE of the connection is free.
    pub pings: u32,
    /// SETTINGS a minute, acknowledgements among them.
    pub settings: u32,
    /// PRIORITY and PRIORITY_UPDATE (RFC 9218) a minute.
    pub priorities: u32,
    /// DATA without content and without END_STREAM a minute.
    pub empty_data: u32,
    /// WINDOW_UPDATE by less than 1 KiB a minute.
    pub small_window_updates: u32,
    /// GOAWAY and frames of types that nobody knows, which must be ignored, a minute.
    pub others: u32,
    /// CONTINUATION frames of one header block.
    pub continuations: u32,
    /// Bytes of one header block, before it is decompressed.
    pub header_block: u32,
    /// Bytes of one frame's payload; what we announce as SETTINGS_MAX_FRAME_SIZE.
    pub frame_size: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resets: 200,
            pings: 600,
            settings: 30,
            priorities: 1000,
            empty_data: 100,
            small_window_updates: 100_000,
            others: 100,
            continuations: 8,
            header_block: 64 * 1024,
            frame_size: 16_384,
        }
    }
}

/// What there was too much of. The connection should be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flood {
    /// RST_STREAM frames.
    Resets,
    /// PING frames.
    Pings,
    /// SETTINGS frames.
    Settings,
    /// PRIORITY or PRIORITY_UPDATE frames.
    Priorities,
    /// Empty DATA frames.
    EmptyData,
    /// WINDOW_UPDATE frames that hardly open the window.
    SmallWindowUpdates,
    /// GOAWAY frames, or frames of unknown types.
    Others,
    /// CONTINUATION frames of one header block.
    Continuations,
    /// Bytes of one header block.
    HeaderBlock,
    /// Bytes of one frame.
    FrameSize,
}

impl Flood {
    /// The kind in one word, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::Priorities => "priorities",
            Self::EmptyData => "empty_data",
            Self::SmallWindowUpdates => "small_window_updates",
            Self::Others => "others",
            Self::Continuations => "continuations",
            Self::HeaderBlock => "header_block",
            Self::FrameSize => "frame_size",
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP/2 flood: {}", self.name())
    }
}

impl std::error::Error for Flood {}
