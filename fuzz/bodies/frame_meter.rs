//! What must hold for the meter of HTTP/2 frames, whatever the bytes.

use std::time::Instant;

use l7lb::listener::flood::{FrameMeter, Limits};

/// Budgets that a few bytes can exceed.
const TIGHT: Limits = Limits {
    resets: 2,
    pings: 2,
    settings: 2,
    priorities: 2,
    empty_data: 2,
    small_window_updates: 2,
    others: 2,
    continuations: 2,
    header_block: 64,
    frame_size: 64,
};

/// The verdict depends on the bytes alone, not on how they are cut. The first byte says how.
pub fn frame_meter(bytes: &[u8]) {
    let Some((cut, bytes)) = bytes.split_first() else { return };
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    let now = Instant::now();
    let whole = FrameMeter::new(TIGHT, now).observe(bytes, now);
    let mut meter = FrameMeter::new(TIGHT, now);
    let cut = bytes.chunks(usize::from(*cut).max(1)).try_for_each(|part| meter.observe(part, now));
    assert_eq!(whole, cut);
}
