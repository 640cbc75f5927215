//! Replays recorded requests against a limit: the same algorithms, exact for every client, without counting
//! real requests. Memory grows with the number of clients.

use std::collections::HashMap;
use std::time::Instant;

use super::fixed_window::FixedWindow;
use super::rule::{Outcome, Rule, nanoseconds};
use super::sliding_window::SlidingWindow;
use super::spec::{Algorithm, Spec};
use super::token_bucket::TokenBucket;
use super::verdict::Verdict;
use crate::http::client_address::ClientKey;

/// A limit for a replay.
pub struct ReplayLimiter {
    spec: Spec,
    epoch: Instant,
    clients: Clients,
}

enum Clients {
    Fixed(Usages<FixedWindow>),
    Sliding(Usages<SlidingWindow>),
    Bucket(Usages<TokenBucket>),
}

struct Usages<R: Rule> {
    rule: R,
    usages: HashMap<ClientKey, R::Usage>,
}

impl<R: Rule> Usages<R> {
    fn of(rule: R) -> Self {
        Self { rule, usages: HashMap::new() }
    }

    fn admit(&mut self, client: ClientKey, now: u64) -> Outcome {
        self.rule.admit(self.usages.entry(client).or_default(), now)
    }
}

impl ReplayLimiter {
    /// A limit without usage; windows are aligned to `epoch`.
    #[must_use]
    pub fn new(spec: Spec, epoch: Instant) -> Self {
        let clients = match spec.algorithm {
            Algorithm::FixedWindow => Clients::Fixed(Usages::of(FixedWindow::new(&spec))),
            Algorithm::SlidingWindow => Clients::Sliding(Usages::of(SlidingWindow::new(&spec))),
            Algorithm::TokenBucket => Clients::Bucket(Usages::of(TokenBucket::new(&spec))),
        };
        Self { spec, epoch, clients }
    }

    /// The decision about a request of `client` at `now`.
    pub fn admit(&mut self, client: ClientKey, now: Instant) -> Verdict {
        let elapsed = nanoseconds(now.saturating_duration_since(self.epoch));
        let outcome = match &mut self.clients {
            Clients::Fixed(usages) => usages.admit(client, elapsed),
            Clients::Sliding(usages) => usages.admit(client, elapsed),
            Clients::Bucket(usages) => usages.admit(client, elapsed),
        };
        Verdict::new(&self.spec, self.epoch, outcome, now)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::super::limiter::Limiter;
    use super::*;

    #[test]
    fn replay_agrees_with_the_limiter_and_look_does_not_count() {
        let start = Instant::now();
        let limit = NonZeroU32::new(3).unwrap();
        for algorithm in [Algorithm::FixedWindow, Algorithm::SlidingWindow, Algorithm::TokenBucket] {
            let spec = Spec { algorithm, limit, window: Duration::from_secs(10), burst: NonZeroU32::new(5).unwrap() };
            let (limiter, mut replay) = (Limiter::new(spec, start), ReplayLimiter::new(spec, start));
            let mut random = fastrand::Rng::with_seed(7);
            let (mut now, mut rejected) = (start, 0);
            for _ in 0..2000 {
                now += Duration::from_millis(random.u64(..700));
                let client = ClientKey(random.u64(..3));
                let looked = limiter.look(client, now);
                assert_eq!(looked, limiter.look(client, now));
                let verdict = limiter.admit(client, now);
                assert_eq!((looked, replay.admit(client, now)), (verdict, verdict), "{algorithm:?}");
                rejected += usize::from(!verdict.admitted);
            }
            assert!((100..1900).contains(&rejected), "{algorithm:?}: {rejected} rejected");
        }
    }
}
