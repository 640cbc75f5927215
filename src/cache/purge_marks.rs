//! The recorded purges: bounded maps from names and prefixes to times.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use pingora_cache::key::hash_key;

use crate::cache::purge_record::Kind;

/// Longer keys are recorded by their hash, so that clients do not decide how much memory the records use.
const MAX_WRITTEN_KEY: usize = 256;

/// The first byte of a hashed key. No key starts with it.
const HASHED: u8 = 0xff;

/// The latest purges of one scope, in nanoseconds since 1970; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) hard: u64,
    pub(crate) soft: u64,
}

impl Mark {
    pub(crate) fn new(kind: Kind, at: u64) -> Self {
        match kind {
            Kind::Hard => Self { hard: at, soft: 0 },
            Kind::Soft => Self { hard: 0, soft: at },
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.hard = self.hard.max(other.hard);
        self.soft = self.soft.max(other.soft);
    }

    /// Whether a response stored at `stored_at` is gone.
    pub(crate) const fn is_gone(self, stored_at: u64) -> bool {
        self.hard != 0 && stored_at <= self.hard
    }

    /// Whether a response stored at `stored_at` is stale.
    pub(crate) const fn is_stale(self, stored_at: u64) -> bool {
        self.soft != 0 && stored_at <= self.soft
    }

    fn latest(self) -> u64 {
        self.hard.max(self.soft)
    }

    /// Whether `all`, a purge of all responses, has at least the effect of this one.
    const fn is_covered_by(self, all: Self) -> bool {
        self.hard <= all.hard && (self.soft <= all.soft || self.soft <= all.hard)
    }

    /// The purges in it.
    pub(crate) fn purges(self) -> impl Iterator<Item = (Kind, u64)> {
        [(Kind::Hard, self.hard), (Kind::Soft, self.soft)].into_iter().filter(|(_, at)| *at != 0)
    }
}

/// Marks by name.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<Box<[u8]>, Mark, ahash::RandomState>);

impl Names {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn get(&self, name: &[u8]) -> Mark {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Records a purge. If there are `limit` names already, drops the oldest, and returns what they amount to.
    pub(crate) fn record(&mut self, name: &[u8], mark: Mark, limit: usize) -> Mark {
        if let Some(known) = self.0.get_mut(name) {
            known.merge(mark);
            return Mark::default();
        }
        let dropped = if self.0.len() >= limit { self.drop_oldest(limit) } else { Mark::default() };
        self.0.insert(name.into(), mark);
        dropped
    }

    /// Drops an eighth of `limit`, so that the search for the oldest is rare.
    fn drop_oldest(&mut self, limit: usize) -> Mark {
        let until = nth_oldest(self.0.values().copied(), limit);
        let mut dropped = Mark::default();
        self.0.retain(|_, mark| keep_if_later(*mark, until, &mut dropped));
        dropped
    }

    pub(crate) fn drop_covered(&mut self, all: Mark) {
        self.0.retain(|_, mark| !mark.is_covered_by(all));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Mark)> {
        self.0.iter().map(|(name, mark)| (&**name, *mark))
    }
}

/// The time of the mark that an eighth of `limit` is not later than.
fn nth_oldest(marks: impl Iterator<Item = Mark>, limit: usize) -> u64 {
    let mut times: Vec<u64> = marks.map(Mark::latest).collect();
    let last = times.len().saturating_sub(1);
    if times.is_empty() {
        return 0;
    }
    *times.select_nth_unstable((limit / 8).min(last)).1
}

fn keep_if_later(mark: Mark, until: u64, dropped: &mut Mark) -> bool {
    let is_later = mark.latest() > until;
    if !is_later {
        dropped.merge(mark);
    }
    is_later
}

/// A key as it is recorded.
pub(crate) fn recorded_key(key: &[u8]) -> Cow<'_, [u8]> {
    if key.len() <= MAX_WRITTEN_KEY {
        return Cow::Borrowed(key);
    }
    Cow::Owned([&[HASHED], hash_key(key).as_slice()].concat())
}

/// Marks by host and start of the path. A lookup costs one step for each length among the prefixes of the host.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    any_host: HostPrefixes,
    hosts: HashMap<Box<str>, HostPrefixes, ahash::RandomState>,
}

/// The prefixes of one host.
#[derive(Debug, Default)]
struct HostPrefixes {
    /// How many prefixes have a length.
    lengths: BTreeMap<usize, usize>,
    marks: Names,
}

impl HostPrefixes {
    fn get(&self, path: &[u8]) -> Mark {
        let mut found = Mark::default();
        for length in self.lengths.range(..=path.len()).map(|(length, _)| *length) {
            found.merge(path.get(..length).map_or_else(Mark::default, |start| self.marks.get(start)));
        }
        found
    }

    fn record(&mut self, path: &[u8], mark: Mark) {
        let before = self.marks.len();
        self.marks.record(path, mark, usize::MAX);
        *self.lengths.entry(path.len()).or_default() += self.marks.len() - before;
    }

    fn retain(&mut self, mut keep: impl FnMut(Mark) -> bool) {
        self.marks.0.retain(|_, mark| keep(*mark));
        self.lengths.clear();
        for path in self.marks.0.keys() {
            *self.lengths.entry(path.len()).or_default() += 1;
        }
    }
}

impl Prefixes {
    pub(crate) fn is_empty(&self) -> bool {
        self.any_host.marks.is_empty() && self.hosts.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.any_host.marks.len() + self.hosts.values().map(|host| host.marks.len()).sum::<usize>()
    }

    pub(crate) fn get(&self, host: &str, path: &str) -> Mark {
        let mut found = self.any_host.get(path.as_bytes());
        if let Some(prefixes) = self.hosts.get(host) {
            found.merge(prefixes.get(path.as_bytes()));
        }
        found
    }

    /// Records a purge. If there are `limit` prefixes already, drops the oldest, and returns what they amount to.
    pub(crate) fn record(&mut self, host: Option<&str>, path: &str, mark: Mark, limit: usize) -> Mark {
        let dropped = if self.len() >= limit { self.drop_oldest(limit) } else { Mark::default() };
        let prefixes = match host {
            Some(host) => self.hosts.entry(host.into()).or_default(),
            None => &mut self.any_host,
        };
        prefixes.record(path.as_bytes(), mark);
        dropped
    }

    fn drop_oldest(&mut self, limit: usize) -> Mark {
        let until = nth_oldest(self.iter().map(|(_, _, mark)| mark), limit);
        let mut dropped = Mark::default();
        self.retain(|mark| keep_if_later(mark, until, &mut dropped));
        dropped
    }

    pub(crate) fn drop_covered(&mut self, all: Mark) {
        self.retain(|mark| !mark.is_covered_by(all));
    }

    fn retain(&mut self, mut keep: impl FnMut(Mark) -> bool) {
        self.any_host.retain(&mut keep);
        for prefixes in self.hosts.values_mut() {
            prefixes.retain(&mut keep);
        }
        self.hosts.retain(|_, prefixes| !prefixes.marks.is_empty());
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Option<&str>, &[u8], Mark)> {
        let any_host = self.any_host.marks.iter().map(|(path, mark)| (None, path, mark));
        let hosts = self
            .hosts
            .iter()
            .flat_map(|(host, prefixes)| prefixes.marks.iter().map(move |(path, mark)| (Some(&**host), path, mark)));
        any_host.chain(hosts)
    }
}
