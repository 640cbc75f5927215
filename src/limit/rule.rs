//! The common interface of the three algorithms: arithmetic on the usage of one client.
//!
//! A rule uses no clock, no lock and no other client. It is a pure function of a client's usage and an instant,
//! so one table and one memory of forgotten clients serve all three.

use std::time::Duration;

/// The algorithm of one limiter with its parameters. Instants are nanoseconds since the limiter's epoch.
pub(super) trait Rule {
    /// The usage of one client. The default means no usage; no admitted client has it, so the table identifies
    /// free slots by it.
    type Usage: Copy + Default + PartialEq;

    /// Counts one request if it is admitted; otherwise leaves `usage` unchanged.
    fn admit(&self, usage: &mut Self::Usage, now: u64) -> Outcome;

    /// How much would be lost if `usage` were forgotten at `now`; zero if nothing. The unit depends on the
    /// rule: weights are compared only with each other.
    fn weight(&self, usage: &Self::Usage, now: u64) -> u128;

    /// What a sketch must remember of `usage`: generations with amounts, the newest first. A usage matters in
    /// its own generation and the next one only.
    fn amounts(&self, usage: &Self::Usage, now: u64) -> [(u64, u64); 2];

    /// The usage of a client without a slot; `estimate` returns its amount in a generation.
    fn recall(&self, now: u64, estimate: impl Fn(u64) -> u64) -> Self::Usage;

    /// The noise, in the unit of the amounts, above which estimates are meaningless.
    fn tolerable_noise(&self) -> u64;
}

/// The decision of a rule about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Further requests that would be admitted at the same instant.
    pub(super) remaining: u32,
    /// When the quota of the client is full again, in nanoseconds since the epoch.
    pub(super) full_at: u64,
    /// Set if the request is rejected: when one would be admitted, in nanoseconds since the epoch.
    pub(super) rejected_until: Option<u64>,
}

/// The nanoseconds of `period`, saturating at 584 years.
pub(super) fn nanoseconds(period: Duration) -> u64 {
    u64::try_from(period.as_nanos()).unwrap_or(u64::MAX)
}

/// `dividend / divisor`, rounded down. A wide division costs several times a narrow one, and almost every limit
/// fits the narrow one.
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

/// `number` as 32 bits, saturating.
pub(super) fn narrow_count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// `number` as 64 bits, saturating.
pub(super) fn narrow(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
