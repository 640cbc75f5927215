//! Purges by generation: a purge records a time, and a lookup compares it with the time a response was stored.
//!
//! So a purge takes the same time however many responses it concerns, and works for stores of any kind. A response
//! stored at the time of a purge or before is concerned. All times come from [`Generations::stamp`], which never goes
//! back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::RwLock;

use crate::cache::purge_marks::{Mark, Names, Prefixes, recorded_key};
pub use crate::cache::purge_record::{DamagedLine, Kind, Purge, Scope};

/// A response has at most this many tags; further ones are ignored.
pub const MAX_TAGS: usize = 64;

/// Longer tags are ignored. In bytes.
pub const MAX_TAG_LENGTH: usize = 256;

/// How many purges are remembered one by one. When a limit is reached, the oldest become one purge of everything stored
/// until the latest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Keys, and as many tags.
    pub names: usize,
    /// Prefixes.
    pub prefixes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { names: 100_000, prefixes: 1_000 }
    }
}

/// A stored response, as far as purges concern it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its URI key: the first part of `key`.
    pub uri: &'a [u8],
    /// The normalised host of the request (see [`super::key::normal_host`]).
    pub host: &'a str,
    /// The path of the request.
    pub path: &'a str,
    /// The [`Generations::stamp`] from before the request that it responds to was sent: a purge while the response was
    /// on its way concerns it. A successful validation sets it again.
    pub stored_at: SystemTime,
}

/// What purges mean for a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing.
    Valid,
    /// It is stale and must be validated, but may be served as far as a stale response may be.
    Soft,
    /// It must not be used.
    Gone,
}

/// What [`Generations::load`] found in a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Purges that now apply.
    pub purges: usize,
    /// Complete lines that are no purge. If there are any, everything stored so far is gone, because it is unknown what
    /// they purged.
    pub damaged: usize,
    /// Whether the last line was incomplete. Its purge was never confirmed. Rewrite the journal before appending to it.
    pub torn: bool,
}

/// All purges. Cheap to ask: one atomic load as long as there is no purge.
#[derive(Debug, Default)]
pub struct Generations {
    /// The latest time that was given out, in nanoseconds since 1970.
    last: AtomicU64,
    has_marks: AtomicBool,
    marks: RwLock<Marks>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Marks {
    all: Mark,
    keys: Names,
    tags: Names,
    prefixes: Prefixes,
}

impl Generations {
    /// No purges, with other limits than the default ones.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A time later than all stamps before, and `now` unless the clock went back. A clock that goes back therefore
    /// neither revives purged responses nor purges new ones.
    pub fn stamp(&self, now: SystemTime) -> SystemTime {
        let now = nanos(now);
        let next = |last: u64| last.saturating_add(1).max(now);
        let last = match self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last))) {
            Ok(last) | Err(last) => last,
        };
        time(next(last))
    }

    /// Purges everything.
    pub fn purge_all(&self, kind: Kind, now: SystemTime) -> Purge {
        self.purge(Scope::All, kind, now)
    }

    /// Purges the responses with a key, or with a URI key.
    pub fn purge_key(&self, key: &[u8], kind: Kind, now: SystemTime) -> Purge {
        self.purge(Scope::Key(key.to_vec()), kind, now)
    }

    /// Purges the responses with a tag. None has a tag longer than [`MAX_TAG_LENGTH`].
    pub fn purge_tag(&self, tag: &str, kind: Kind, now: SystemTime) -> Purge {
        self.purge(Scope::Tag(tag.to_owned()), kind, now)
    }

    /// Purges the responses to requests with a host, or any, whose path starts with `path`.
    pub fn purge_prefix(&self, host: Option<&str>, path: &str, kind: Kind, now: SystemTime) -> Purge {
        let host = host.map(str::to_ascii_lowercase);
        self.purge(Scope::Prefix { host, path: path.to_owned() }, kind, now)
    }

    /// Purges, and returns the record for a journal.
    pub fn purge(&self, scope: Scope, kind: Kind, now: SystemTime) -> Purge {
        // The time is taken under the lock, so that a response stored later is not compared with an older state.
        let mut marks = self.marks.write();
        let mut purge = Purge { scope, kind, at: self.stamp(now) };
        if let Scope::Key(key) = &mut purge.scope {
            *key = recorded_key(key).into_owned();
        }
        marks.record(&purge, self.limits);
        self.has_marks.store(true, Ordering::Release);
        purge
    }

    /// What the purges so far mean for a stored response.
    pub fn verdict<'t>(&self, subject: &Subject<'_>, tags: impl Iterator<Item = &'t str>) -> Verdict {
        if !self.has_marks.load(Ordering::Acquire) {
            return Verdict::Valid;
        }
        let marks = self.marks.read();
        let mut stored_at = nanos(subject.stored_at);
        // Another process with the same disk store, or a clock that was ahead, has stored the response. Its time does
        // not tell whether a purge came later.
        if stored_at > self.last.load(Ordering::Acquire) {
            stored_at = 0;
        }
        marks.verdict(subject, stored_at, tags)
    }

    /// How many purges are remembered one by one.
    #[must_use]
    pub fn len(&self) -> usize {
        let marks = self.marks.read();
        marks.keys.len() + marks.tags.len() + marks.prefixes.len()
    }

    /// Whether no purge has any effect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_marks.load(Ordering::Acquire)
    }

    /// All purges as the lines of a journal, oldest first, with line ends.
    #[must_use]
    pub fn to_lines(&self) -> Vec<String> {
        let mut purges = self.marks.read().purges();
        purges.sort_by_key(|purge| purge.at);
        purges.iter().map(Purge::to_line).collect()
    }

    /// Adds the purges of a journal.
    pub fn load(&self, journal: &[u8], now: SystemTime) -> Loaded {
        let mut loaded = Loaded::default();
        for line in journal.split_inclusive(|byte| *byte == b'\n') {
            match std::str::from_utf8(line).ok().and_then(|line| Purge::parse_line(line).ok()) {
                Some(purge) => {
                    self.restore(&purge);
                    loaded.purges += 1;
                }
                None if line.ends_with(b"\n") => loaded.damaged += 1,
                None => loaded.torn = true,
            }
        }
        if loaded.damaged > 0 {
            self.purge_all(Kind::Hard, now);
        }
        loaded
    }

    /// Applies a recorded purge with its own time.
    fn restore(&self, purge: &Purge) {
        let mut marks = self.marks.write();
        self.last.fetch_max(nanos(purge.at), Ordering::AcqRel);
        marks.record(purge, self.limits);
        self.has_marks.store(true, Ordering::Release);
    }
}

impl Marks {
    fn record(&mut self, purge: &Purge, limits: Limits) {
        let mark = Mark::new(purge.kind, nanos(purge.at).max(1));
        let dropped = match &purge.scope {
            Scope::All => mark,
            Scope::Key(key) => self.keys.record(&recorded_key(key), mark, limits.names),
            Scope::Tag(tag) if tag.len() <= MAX_TAG_LENGTH => self.tags.record(tag.as_bytes(), mark, limits.names),
            Scope::Tag(_) => Mark::default(),
            Scope::Prefix { host, path } => self.prefixes.record(host.as_deref(), path, mark, limits.prefixes),
        };
        if dropped != Mark::default() {
            self.all.merge(dropped);
            self.drop_covered(self.all);
        }
    }

    fn drop_covered(&mut self, all: Mark) {
        self.keys.drop_covered(all);
        self.tags.drop_covered(all);
        self.prefixes.drop_covered(all);
    }

    fn verdict<'t>(&self, subject: &Subject<'_>, stored_at: u64, tags: impl Iterator<Item = &'t str>) -> Verdict {
        let mut found = self.all;
        if !self.keys.is_empty() {
            found.merge(self.keys.get(&recorded_key(subject.key)));
            if subject.uri.len() != subject.key.len() {
                found.merge(self.keys.get(&recorded_key(subject.uri)));
            }
        }
        if !self.prefixes.is_empty() {
            found.merge(self.prefixes.get(subject.host, subject.path));
        }
        if !self.tags.is_empty() {
            for tag in tags {
                found.merge(self.tags.get(tag.as_bytes()));
            }
        }
        match () {
            () if found.is_gone(stored_at) => Verdict::Gone,
            () if found.is_stale(stored_at) => Verdict::Soft,
            () => Verdict::Valid,
        }
    }

    fn purges(&self) -> Vec<Purge> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let all = [(Scope::All, self.all)].into_iter();
        let keys = self.keys.iter().map(|(key, mark)| (Scope::Key(key.to_vec()), mark));
        let tags = self.tags.iter().map(|(tag, mark)| (Scope::Tag(text(tag)), mark));
        let prefixes = self
            .prefixes
            .iter()
            .map(|(host, path, mark)| (Scope::Prefix { host: host.map(str::to_owned), path: text(path) }, mark));
        let scopes = all.chain(keys).chain(tags).chain(prefixes);
        scopes
            .flat_map(|(scope, mark)| {
                mark.purges().map(move |(kind, at)| Purge { scope: scope.clone(), kind, at: time(at) })
            })
            .collect()
    }
}

/// The tags of a response: the members of Cache-Tag (separated by commas), then those of Surrogate-Key (separated by
/// spaces).
pub fn tags(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = |name: &'static str| {
        let lines = headers.get_all(HeaderName::from_static(name)).iter().map(HeaderValue::as_bytes);
        lines.filter_map(|line| std::str::from_utf8(line).ok())
    };
    let cache_tags = values("cache-tag").flat_map(|line| line.split(','));
    let surrogate_keys = values("surrogate-key").flat_map(str::split_ascii_whitespace);
    cache_tags
        .chain(surrogate_keys)
        .map(|tag| tag.trim_matches([' ', '\t']))
        .filter(|tag| !tag.is_empty() && tag.len() <= MAX_TAG_LENGTH)
        .take(MAX_TAGS)
}

/// Nanoseconds since 1970, within the range of the number.
fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn time(nanos: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
#[path = "purge_tests.rs"]
mod tests;
