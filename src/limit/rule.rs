//! What the three algorithms have in common: arithmetic over what one client has used.
//!
//! A rule knows no clock, no lock and no other client. That makes it a pure function of a client's
//! usage and an instant, and lets one table and one memory of the forgotten serve all three.

use std::time::Duration;

/// The algorithm of one limiter with its numbers. Instants are nanoseconds since the limiter's
/// epoch.
pub(super) trait Rule {
    /// What one client has used. The default is a client that has used nothing, and no client that
    /// was ever admitted has it: the table tells free places by it.
    type Usage: Copy + Default + PartialEq;

    /// Counts one request if it may pass; leaves `usage` as it was if it may not.
    fn admit(&self, usage: &mut Self::Usage, now: u64) -> Outcome;

    /// How much there is to lose if `usage` is forgotten at `now`; zero if nothing at all. The unit
    /// is the rule's own: weights are compared only with one another.
    fn weight(&self, usage: &Self::Usage, now: u64) -> u128;

    /// What a sketch must remember of `usage`: generations with amounts, the newest first. A usage
    /// matters in its own generation and the next, never longer.
    fn amounts(&self, usage: &Self::Usage, now: u64) -> [(u64, u64); 2];

    /// The usage of a client without a place, of which `estimate` tells the amount in a generation.
    fn recall(&self, now: u64, estimate: impl Fn(u64) -> u64) -> Self::Usage;

    /// The noise, in the unit of the amounts, above which estimates mean nothing.
    fn tolerable_noise(&self) -> u64;
}

/// What a rule says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// How many further requests would pass at the same instant.
    pub(super) remaining: u32,
    /// When the client's quota is whole again, in nanoseconds since the epoch.
    pub(super) whole_at: u64,
    /// Set if the request may not pass: when one would, in nanoseconds since the epoch.
    pub(super) refused_until: Option<u64>,
}

/// The nanoseconds of `period`; past 584 years it stays at what 64 bits can hold.
pub(super) fn nanoseconds(period: Duration) -> u64 {
    u64::try_from(period.as_nanos()).unwrap_or(u64::MAX)
}

/// `dividend / divisor`, rounded down. Wide division costs several times what narrow division
/// costs, and almost every limit in use fits the narrow one.
pub(super) fn quotient(dividend: u128, divisor: u64) -> u128 {
    match u64::try_from(dividend) {
        Ok(narrow) => u128::from(narrow / divisor.max(1)),
        Err(_) => dividend / u128::from(divisor.max(1)),
    }
}

/// `dividend / divisor`, rounded up.
pub(super) fn quotient_up(dividend: u128, divisor: u64) -> u128 {
    quotient(dividend.saturating_add(u128::from(divisor.saturating_sub(1))), divisor)
}

/// `number` as 32 bits; what does not fit becomes the greatest number that does.
pub(super) fn narrow_count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// `number` as 64 bits; what does not fit becomes the greatest number that does.
pub(super) fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
