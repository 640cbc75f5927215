//! Passive health: which backend is worse than its peers, judged by the traffic itself.
//!
//! Health checks ask one question now and then; requests ask the real ones all the time. A backend that
//! accepts connections and answers each request with 500, or ten times later than the others, passes its
//! checks and still ruins every fifth page. Four rules find it:
//!
//! - **Failures in a row.** Five gateway failures (no connection, broken off before or in the answer, late,
//!   502, 503, 504) speak for themselves. Other 5xx may be the request's fault, so five of them count only where the backend's
//!   peers do clearly better on the same traffic: whoever calls a broken page again and again must not
//!   take backends out.
//! - **Success rate**, as Envoy has it: with enough backends and requests, a rate below the mean by 1.9
//!   standard deviations, and by at least ten points. Without the latter, 99 % among 100 % would be an
//!   outlier.
//! - **Latency**, which tunes itself: the backend's median time to an answer is more than three times the
//!   median of its pool, in three windows in a row. Where all are slow, the median is slow as well, and
//!   nobody is. No limit in milliseconds needs to be known, but for a floor of 5 ms: below, a factor of
//!   three is noise.
//! - **Silence**: for three windows in a row requests wait and none is answered, while the peers answer.
//!
//! A backend that is found is ejected for 10 s, doubled for each ejection before up to 5 min; each 10 s of
//! good behaviour takes one doubling back. At most half of a pool is out at a time, and never the last one
//! that takes requests: a bad backend is better than none. For the same reason selection falls back on
//! ejected backends where nothing else is left.
//!
//! This module is a state machine: reports and the clock go in, [`Change`]s come out. [`Tally`] is what
//! requests touch; windows are closed in the background by [`crate::pool::passive_health::monitor`].

pub mod config;
pub mod detector;
pub mod histogram;
pub mod monitor;
pub mod state;
pub mod tally;

pub use config::{Config, Setting, Spec};
pub use tally::{Outcome, Share, Tally};
