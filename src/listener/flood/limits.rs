//! The limits on frames of one HTTP/2 connection, and the kinds of floods.

use std::fmt;

/// The budgets of one connection. A number per minute is also the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// RST_STREAM per minute; each HEADERS frame returns a tenth of one.
    pub resets: u32,
    /// PING per minute, including acknowledgements; one after each WINDOW_UPDATE of the connection is free.
    pub pings: u32,
    /// SETTINGS per minute, including acknowledgements.
    pub settings: u32,
    /// PRIORITY and PRIORITY_UPDATE (RFC 9218) per minute.
    pub priorities: u32,
    /// DATA without content and without END_STREAM per minute.
    pub empty_data: u32,
    /// WINDOW_UPDATE by less than 1 KiB per minute.
    pub small_window_updates: u32,
    /// GOAWAY and frames of unknown types, which must be ignored, per minute.
    pub others: u32,
    /// CONTINUATION frames of one header block.
    pub continuations: u32,
    /// Bytes of one header block before decompression.
    pub header_block: u32,
    /// Bytes of the payload of one frame; announced as SETTINGS_MAX_FRAME_SIZE.
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

/// The kind of flood. The connection should be closed.
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
    /// WINDOW_UPDATE frames with small increments.
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
    /// The kind as one word, for logs and metrics.
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
