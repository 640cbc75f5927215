//! What the cache of a route did.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a request used the cache of its route. The names are those of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A fresh stored response.
    Hit,
    /// A stale stored response.
    Stale,
    /// A stored response after a validation.
    Revalidated,
    /// The response was fetched and stored.
    Miss,
    /// A response that another request fetched.
    Collapsed,
    /// The response was fetched and not stored.
    Unstored,
    /// The request did not use the cache.
    Bypass,
    /// The client wanted a stored response, and there is none.
    OnlyIfCached,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Stale,
        Self::Revalidated,
        Self::Miss,
        Self::Collapsed,
        Self::Unstored,
        Self::Bypass,
        Self::OnlyIfCached,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Collapsed => "collapsed",
            Self::Unstored => "unstored",
            Self::Bypass => "bypass",
            Self::OnlyIfCached => "only_if_cached",
        }
    }

    /// Whether no backend was needed for this request.
    #[must_use]
    pub const fn is_from_cache(self) -> bool {
        matches!(self, Self::Hit | Self::Stale | Self::Collapsed)
    }
}

/// The counters of a route.
#[derive(Debug, Default)]
pub struct Counters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    bytes_saved: AtomicU64,
    age: AtomicU64,
}

impl Counters {
    /// Counts a request.
    pub fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds the bytes of a body that no backend had to send, of a response of this age in seconds.
    pub fn add_saved(&self, bytes: u64, age: u64) {
        self.bytes_saved.fetch_add(bytes, Ordering::Relaxed);
        self.age.fetch_add(age, Ordering::Relaxed);
    }

    /// The number of requests with this outcome.
    #[must_use]
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(outcome as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// The number of requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        Outcome::ALL.into_iter().map(|outcome| self.get(outcome)).sum()
    }

    /// The share of requests that needed no backend, from 0 to 1.
    #[must_use]
    pub fn hit_ratio(&self) -> f64 {
        let hits: u64 = Outcome::ALL.into_iter().filter(|one| one.is_from_cache()).map(|one| self.get(one)).sum();
        // Precise up to 2^53 requests.
        if hits == 0 { 0.0 } else { hits as f64 / self.total() as f64 }
    }

    /// Bytes of bodies that no backend had to send.
    #[must_use]
    pub fn bytes_saved(&self) -> u64 {
        self.bytes_saved.load(Ordering::Relaxed)
    }

    /// The mean age of responses from the cache in seconds.
    #[must_use]
    pub fn mean_age(&self) -> u64 {
        let hits: u64 = Outcome::ALL.into_iter().filter(|one| one.is_from_cache()).map(|one| self.get(one)).sum();
        self.age.load(Ordering::Relaxed).checked_div(hits).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_separately() {
        let counters = Counters::default();
        for outcome in Outcome::ALL {
            counters.count(outcome);
        }
        counters.count(Outcome::Hit);
        assert_eq!((counters.get(Outcome::Hit), counters.get(Outcome::Miss), counters.total()), (2, 1, 9));
        assert_eq!(counters.hit_ratio(), 4.0 / 9.0);
        counters.add_saved(100, 8);
        assert_eq!((counters.bytes_saved(), counters.mean_age()), (100, 2));
        assert_eq!((Counters::default().hit_ratio(), Counters::default().mean_age()), (0.0, 0));
    }
}
