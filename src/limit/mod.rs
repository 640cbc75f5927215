//! Rate limits per client: three algorithms in fixed memory, without rejecting clients within their limit.
//!
//! # The problem
//!
//! A map from client to counter is exact but grows with the number of clients, so an attacker with many
//! addresses controls the memory. A count-min sketch has a fixed size but overestimates when many clients share
//! it, so an attacker with many addresses gets all other clients rejected. This module combines both:
//!
//! 1. An exact table (`table.rs`) with slots for 131,072 clients. A slot whose usage no longer matters (window
//!    over, bucket full) is reused. If a set has no free slot, the client with the least usage gets none: a
//!    client with a slot, or the new one.
//! 2. A memory of forgotten clients (`forgotten.rs`): two generations of the count-min sketch of
//!    pingora-limits, which keep the usage of clients without a slot. Noise is measured and subtracted.
//!
//! The optimised case is a request of a known client: one hash, one small lock, integer arithmetic, no
//! allocation; about 50 ns. New clients and clients without a slot also use the sketches, about 500 ns during a
//! flood. The first of them in a window waits a tenth of a millisecond if an old sketch must be cleared, and
//! once per limiter for the allocation of a sketch. A flood against windows of a few milliseconds is therefore
//! expensive.
//!
//! # Memory
//!
//! The table takes 3.25 MiB for windows and 4.25 MiB for buckets; each of the two sketches takes 2 MiB and is
//! allocated when the first client is forgotten. So a limiter takes at most 7.25 MiB, or 8.25 MiB with buckets,
//! for any number of clients.
//!
//! # Accuracy
//!
//! * With 100,000 clients in a window, about 5,000 find their set full. The sketch is then so empty that it
//!   remembers them exactly, even if all clients have reached their limit: a collision in all rows among those
//!   5,000 happens about once in 100,000 such windows. In 3,600 of them, measured, no decision was wrong.
//! * In a larger flood it errs in favour of clients. The subtracted noise is chosen so that a new client starts
//!   from zero, so forgotten clients are admitted that much too often. The clients with the least usage are
//!   forgotten, so a client near its limit keeps its slot and is counted exactly. Only while a sketch becomes
//!   noisy, before that is measured, a new client may be charged for another one, about one in 10,000.
//! * If still more clients use their whole limit in one window, those without a slot are admitted once the
//!   sketch is noisy. Measured: of the requests over the limit 14 % passed with 131,000 such clients, 45 % with
//!   200,000. Of the requests within the limit fewer than one in 10,000 was rejected. Rejecting clients within
//!   their limit would be the purpose of such a flood.
//! * With a limit of very few requests all clients have used about the same, and in a flood larger than the
//!   table an offender may be forgotten before its next request.
//! * The algorithms: `fixed_window` allows two quotas around the edge of a window; `sliding_window` assumes an
//!   even previous window (see its error in `sliding_window.rs`); `token_bucket` is exact.
//!
//! A rejected request is not counted. Otherwise a client that retries too early would never be admitted, and
//! `retry_after` would be meaningless.
//!
//! # Time
//!
//! The time is an argument. An instant before the epoch counts as the epoch. An instant before the last one of
//! a client counts as that one: threads read the clock before they take a lock, so requests may arrive slightly
//! out of order, which must neither grant a fresh quota nor reject wrongly. A dropped generation of forgotten
//! clients does not return.

mod config;
mod fixed_window;
#[cfg(test)]
mod flood_tests;
mod forgotten;
mod limiter;
mod replay;
mod rule;
mod sliding_window;
mod spec;
mod table;
#[cfg(test)]
mod tests;
mod token_bucket;
mod verdict;

pub use config::Config;
pub use limiter::Limiter;
pub use replay::ReplayLimiter;
pub use spec::{Algorithm, Spec};
pub use verdict::Verdict;
