//! Small bounded memories by key: responses that cannot be stored, and how often a response was requested.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use pingora_cache::key::HashBinary;

/// The parts, so that workers seldom wait for each other.
const SHARDS: usize = 16;

/// The most keys per part. A full part is emptied, which costs no correctness: a key is only learned again.
const KEYS_MAX: usize = 8 << 10;

/// How long a key stays known as one whose responses cannot be stored.
pub const UNSTORABLE_FOR: Duration = Duration::from_secs(10);

/// The time in which uses of a key are counted together.
const USES_WITHIN: Duration = Duration::from_secs(3600);

/// The keys whose responses cannot be stored. Requests for them do not wait for each other.
#[derive(Default)]
pub struct Unstorable(Shards<Instant>);

/// Which requests for a key get responses that cannot be stored: a client must not keep others from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// All of them.
    All,
    /// Those with Authorization.
    WithAuthorization,
    /// Those with a cookie that is not part of the key.
    WithCookie,
}

/// How often responses were requested that are not stored.
#[derive(Default)]
pub struct Uses(Shards<(u32, Instant)>);

struct Shards<V>([Mutex<Keys<V>>; SHARDS]);

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

type Keys<V> = HashMap<HashBinary, V, ahash::RandomState>;

impl<V> Shards<V> {
    /// The part that may have the key.
    fn of(&self, key: &HashBinary) -> Option<MutexGuard<'_, Keys<V>>> {
        // The hash is uniform.
        let index = usize::from(key.first().copied().unwrap_or_default()) % SHARDS;
        self.0.get(index).map(Mutex::lock)
    }

    /// The part in which the key is remembered. It has room.
    fn to_change(&self, key: &HashBinary) -> Option<MutexGuard<'_, Keys<V>>> {
        let mut keys = self.of(key)?;
        if keys.len() >= KEYS_MAX && !keys.contains_key(key) {
            keys.clear();
        }
        Some(keys)
    }
}

impl Unstorable {
    /// Remembers that responses of `key` cannot be stored.
    pub fn remember(&self, key: &HashBinary, concerns: Concerns, now: Instant) {
        let key = derived(key, concerns);
        if let Some(mut keys) = self.0.to_change(&key) {
            keys.insert(key, now);
        }
    }

    /// Forgets the key: its response was stored.
    pub fn forget(&self, key: &HashBinary) {
        if let Some(mut keys) = self.0.of(key) {
            keys.remove(key);
        }
    }

    /// Whether a response of `key` to such a request could not be stored recently.
    #[must_use]
    pub fn contains(&self, key: &HashBinary, concerns: Concerns, now: Instant) -> bool {
        let recent = |since: &Instant| now.saturating_duration_since(*since) < UNSTORABLE_FOR;
        let key = derived(key, concerns);
        self.0.of(&key).is_some_and(|keys| keys.get(&key).is_some_and(recent))
    }
}

/// The key under which this kind of requests is remembered. That of all requests is the key itself.
fn derived(key: &HashBinary, concerns: Concerns) -> HashBinary {
    let mut key = *key;
    if let Some(last) = key.last_mut() {
        *last ^= concerns as u8;
    }
    key
}

impl Uses {
    /// Counts a use of `key`, and returns the number of recent ones.
    pub fn count(&self, key: &HashBinary, now: Instant) -> u32 {
        let Some(mut keys) = self.0.to_change(key) else { return u32::MAX };
        let (uses, since) = keys.entry(*key).or_insert((0, now));
        if now.saturating_duration_since(*since) > USES_WITHIN {
            (*uses, *since) = (0, now);
        }
        *uses = uses.saturating_add(1);
        *uses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashBinary = [7; 16];

    #[test]
    fn unstorable_key_is_forgotten_after_a_while_or_when_it_is_stored() {
        let (keys, now) = (Unstorable::default(), Instant::now());
        let all = Concerns::All;
        assert!(!keys.contains(&KEY, all, now));
        keys.remember(&KEY, all, now);
        assert!(keys.contains(&KEY, all, now + UNSTORABLE_FOR / 2) && !keys.contains(&[8; 16], all, now));
        assert!(!keys.contains(&KEY, all, now + UNSTORABLE_FOR));
        keys.forget(&KEY);
        assert!(!keys.contains(&KEY, all, now));
    }

    #[test]
    fn unstorable_response_to_an_authorized_request_does_not_concern_others() {
        let (keys, now) = (Unstorable::default(), Instant::now());
        keys.remember(&KEY, Concerns::WithAuthorization, now);
        assert!(keys.contains(&KEY, Concerns::WithAuthorization, now));
        assert!(!keys.contains(&KEY, Concerns::All, now) && !keys.contains(&KEY, Concerns::WithCookie, now));
    }

    #[test]
    fn uses_are_counted_within_an_hour() {
        let (uses, now) = (Uses::default(), Instant::now());
        assert_eq!([uses.count(&KEY, now), uses.count(&KEY, now), uses.count(&[8; 16], now)], [1, 2, 1]);
        assert_eq!(uses.count(&KEY, now + USES_WITHIN * 2), 1);
    }

    #[test]
    fn full_memory_of_keys_is_not_emptied_by_questions_about_keys() {
        let (keys, now) = (Unstorable::default(), Instant::now());
        let same_part = |n: usize| {
            let mut key = KEY;
            key[1..9].copy_from_slice(&n.to_be_bytes());
            key
        };
        (0..KEYS_MAX).for_each(|n| keys.remember(&same_part(n), Concerns::All, now));
        assert!(!keys.contains(&same_part(KEYS_MAX), Concerns::All, now));
        assert!(keys.contains(&same_part(0), Concerns::All, now));
    }

    #[test]
    fn memory_of_keys_is_bounded() {
        let (uses, now) = (Uses::default(), Instant::now());
        for n in 0_u64..300_000 {
            uses.count(&pingora_cache::key::hash_key(n.to_string()), now);
        }
        assert!(uses.0.0.iter().all(|shard| shard.lock().len() <= KEYS_MAX));
    }
}
