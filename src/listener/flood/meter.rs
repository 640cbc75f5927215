//! Finds HTTP/2 frames in a client's bytes, split in any way, and takes them off their budgets.

use std::time::Instant;

use super::budget::{Budget, MINUTE};
use super::limits::{Flood, Limits};

/// Frame types (RFC 9113 §6, RFC 9218 §7.1).
pub(super) mod frame_type {
    pub(in super::super) const DATA: u8 = 0x0;
    pub(in super::super) const HEADERS: u8 = 0x1;
    pub(in super::super) const PRIORITY: u8 = 0x2;
    pub(in super::super) const RST_STREAM: u8 = 0x3;
    pub(in super::super) const SETTINGS: u8 = 0x4;
    pub(in super::super) const PING: u8 = 0x6;
    pub(in super::super) const WINDOW_UPDATE: u8 = 0x8;
    pub(in super::super) const CONTINUATION: u8 = 0x9;
    pub(in super::super) const PRIORITY_UPDATE: u8 = 0x10;
}

/// The flag of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 0x1;
/// Length of the connection preface (§3.4), in bytes.
const PREFACE: u32 = 24;
/// Length of a frame's header (§4.1), in bytes.
const HEADER: usize = 9;
/// Length of a WINDOW_UPDATE with its payload, the increment (§6.9).
const WINDOW_UPDATE: usize = HEADER + 4;
/// The increment from which a WINDOW_UPDATE is free, in bytes.
const LARGE_INCREMENT: u32 = 1024;
/// Requests that allow one reset.
const REQUESTS_PER_RESET: u64 = 10;

/// The relevant parts of a frame header.
#[derive(Clone, Copy, Debug)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Counts the frames of one client connection. Pure: bytes and time are arguments.
#[derive(Debug)]
pub struct FrameMeter {
    limits: Limits,
    /// Bytes to skip: the rest of the preface or of a payload.
    skip: u32,
    /// The first bytes of the current frame, and their number.
    header: [u8; WINDOW_UPDATE],
    header_bytes: usize,
    /// The current header block: its CONTINUATION frames and bytes.
    continuations: u32,
    header_block: u32,
    /// Whether the window of the connection was updated since the last PING.
    window_opened: bool,
    resets: Budget,
    pings: Budget,
    settings: Budget,
    priorities: Budget,
    empty_data: Budget,
    small_window_updates: Budget,
    others: Budget,
}

impl FrameMeter {
    /// A meter for a new connection, before its preface.
    #[must_use]
    pub fn new(limits: Limits, now: Instant) -> Self {
        let budget = |per_minute| Budget::new(per_minute, now);
        Self {
            limits,
            skip: PREFACE,
            header: [0; WINDOW_UPDATE],
            header_bytes: 0,
            continuations: 0,
            header_block: 0,
            window_opened: false,
            resets: budget(limits.resets),
            pings: budget(limits.pings),
            settings: budget(limits.settings),
            priorities: budget(limits.priorities),
            empty_data: budget(limits.empty_data),
            small_window_updates: budget(limits.small_window_updates),
            others: budget(limits.others),
        }
    }

    /// Processes the next bytes of the client, split in any way.
    ///
    /// # Errors
    /// If a budget is exceeded. After that the meter must not be called again.
    pub fn observe(&mut self, bytes: &[u8], now: Instant) -> Result<(), Flood> {
        let mut rest = bytes;
        loop {
            rest = self.skip_payload(rest);
            if rest.is_empty() {
                return Ok(());
            }
            rest = self.collect_header(rest);
            let Some(frame) = self.complete_header() else { continue };
            // The length has 24 bits; the payload of a WINDOW_UPDATE is collected already.
            let collected = (self.header_bytes - HEADER) as u32;
            self.skip = frame.length - collected.min(frame.length);
            self.header_bytes = 0;
            self.count(frame, now)?;
        }
    }

    /// Skips the rest of the preface or of a payload.
    fn skip_payload<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        // A skip is below 2^24, so it and the minimum fit.
        let passed = bytes.len().min(self.skip as usize);
        self.skip -= passed as u32;
        bytes.get(passed..).unwrap_or_default()
    }

    /// Moves the missing first bytes of the frame from `bytes`.
    fn collect_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let wanted = if self.header_bytes >= HEADER { WINDOW_UPDATE } else { HEADER };
        let taken = bytes.len().min(wanted - self.header_bytes);
        let (Some(free), Some((new, rest))) =
            (self.header.get_mut(self.header_bytes..self.header_bytes + taken), bytes.split_at_checked(taken))
        else {
            return &[];
        };
        free.copy_from_slice(new);
        self.header_bytes += taken;
        rest
    }

    /// The current frame, once enough of it has arrived to count it.
    fn complete_header(&self) -> Option<Frame> {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0, ..] = self.header;
        let length = u32::from_be_bytes([0, l2, l1, l0]);
        let needed = if kind == frame_type::WINDOW_UPDATE && length == 4 { WINDOW_UPDATE } else { HEADER };
        let stream = u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]);
        (self.header_bytes >= HEADER && self.header_bytes >= needed).then_some(Frame { length, kind, flags, stream })
    }

    fn count(&mut self, frame: Frame, now: Instant) -> Result<(), Flood> {
        if frame.length > self.limits.frame_size {
            return Err(Flood::FrameSize);
        }
        let (passes, flood) = match frame.kind {
            frame_type::HEADERS => {
                self.resets.refund(MINUTE / REQUESTS_PER_RESET);
                (self.continuations, self.header_block) = (0, frame.length);
                (true, Flood::HeaderBlock)
            }
            frame_type::CONTINUATION => return self.count_continuation(frame),
            frame_type::DATA => {
                let empty = frame.length == 0 && frame.flags & END_STREAM == 0;
                (!empty || self.empty_data.take(now), Flood::EmptyData)
            }
            frame_type::RST_STREAM => (self.resets.take(now), Flood::Resets),
            frame_type::PING => {
                let free = std::mem::take(&mut self.window_opened);
                (free || self.pings.take(now), Flood::Pings)
            }
            frame_type::SETTINGS => (self.settings.take(now), Flood::Settings),
            frame_type::WINDOW_UPDATE => {
                self.window_opened |= frame.stream == 0;
                let large = frame.length == 4 && self.increment() >= LARGE_INCREMENT;
                (large || self.small_window_updates.take(now), Flood::SmallWindowUpdates)
            }
            frame_type::PRIORITY | frame_type::PRIORITY_UPDATE => (self.priorities.take(now), Flood::Priorities),
            _ => (self.others.take(now), Flood::Others),
        };
        if passes { Ok(()) } else { Err(flood) }
    }

    fn count_continuation(&mut self, frame: Frame) -> Result<(), Flood> {
        self.continuations += 1;
        self.header_block = self.header_block.saturating_add(frame.length);
        if self.continuations > self.limits.continuations {
            return Err(Flood::Continuations);
        }
        if self.header_block > self.limits.header_block {
            return Err(Flood::HeaderBlock);
        }
        Ok(())
    }

    /// The increment of the current WINDOW_UPDATE; its highest bit is reserved.
    fn increment(&self) -> u32 {
        let [.., i3, i2, i1, i0] = self.header;
        u32::from_be_bytes([i3 & 0x7f, i2, i1, i0])
    }
}
