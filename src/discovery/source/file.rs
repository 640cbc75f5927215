//! Backends in a file: YAML or JSON, read again when it changes.
//!
//! The file has a list, or a mapping with the key `backends`. An item is an address, or a mapping with `address` and
//! settings. A file that cannot be read, or has a fault anywhere, is rejected as a whole.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::item::Item;
use super::{FOUND_MAX, Source, failed, list};
use crate::base::fault::{Faults, Place};
use crate::base::file_stamps::Stamps;
use crate::base::text_file;
use crate::discovery::target::RESOLVE_INTERVAL;

/// How often the file is examined.
const POLL: Duration = Duration::from_millis(250);
/// The largest file in bytes.
const SIZE_MAX: u64 = 16 << 20;

/// Configuration of a file with backends.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file. A relative path starts at the working directory of l7lb.
    pub path: PathBuf,
}

impl Config {
    /// Checks the block. The file may appear later.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Option<Spec> {
        if self.path.as_os_str().is_empty() {
            faults.add(place.key("path"), "the path is empty", "write for example /etc/l7lb/api.yaml");
            return None;
        }
        Some(Spec { path: self.path.clone() })
    }
}

/// A checked file source.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The file.
    pub path: PathBuf,
}

/// The content of the file.
#[derive(Debug)]
struct Listed(Vec<Item>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListedVisitor)
    }
}

struct ListedVisitor;

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of backends, or a block with the list `backends`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Listed, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(Listed)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Listed, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Block {
            backends: Vec<Item>,
        }
        Block::deserialize(MapAccessDeserializer::new(map)).map(|block| Listed(block.backends))
    }
}

/// A file as a source of backends.
pub struct FileSource {
    path: PathBuf,
    seen: Mutex<Seen>,
}

/// What was read last.
#[derive(Default)]
struct Seen {
    stamps: Stamps,
    has_names: bool,
}

impl FileSource {
    /// The source of `spec`.
    #[must_use]
    pub fn new(spec: Spec) -> Self {
        // A daemon may change its folder.
        let path = std::path::absolute(&spec.path).unwrap_or(spec.path);
        Self { path, seen: Mutex::default() }
    }

    /// Reads the file on a thread for blocking work.
    async fn read(&self) -> Result<Vec<Item>, String> {
        let path = self.path.clone();
        let read = move || {
            let stamps = Stamps::of([path.clone()].into_iter());
            let items = match std::fs::metadata(&path) {
                Ok(file) if file.len() > SIZE_MAX => Err(format!("the file has more than {SIZE_MAX} bytes")),
                _ => text_file::read(&path).and_then(|text| parse(&text)),
            };
            (stamps, items)
        };
        let (stamps, items) = tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?;
        let has_names = items.as_ref().is_ok_and(|items| items.iter().any(|item| item.target.is_name()));
        *self.seen.lock() = Seen { stamps, has_names };
        items
    }
}

/// The backends in the text of a file.
///
/// # Errors
/// The first fault, with its line and column.
fn parse(text: &str) -> Result<Vec<Item>, String> {
    let text = text_file::without_mark(text);
    let Listed(items) = serde_yaml::from_str(text).map_err(|e| e.to_string())?;
    if items.len() > FOUND_MAX {
        return Err(format!("the file has {} backends, more than {FOUND_MAX}", items.len()));
    }
    let mut seen = BTreeSet::new();
    match items.iter().find(|item| !seen.insert(&item.target)) {
        Some(twice) => Err(format!("`{}` is in the file twice", twice.target)),
        None => Ok(items),
    }
}

#[async_trait]
impl ServiceDiscovery for FileSource {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let items = match self.read().await {
            Ok(items) => items,
            Err(reason) => return failed(reason),
        };
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            match item.target.resolve().await {
                Ok(addresses) => all.extend(item.found(addresses)),
                Err(reason) => return failed(format!("`{}` has no address: {reason}", item.target)),
            }
        }
        Ok((list(all), HashMap::new()))
    }
}

#[async_trait]
impl Source for FileSource {
    async fn changed(&self) {
        let (before, has_names) = {
            let seen = self.seen.lock();
            (seen.stamps.clone(), seen.has_names)
        };
        let poll = async {
            loop {
                tokio::time::sleep(POLL).await;
                let again = before.clone();
                let now = tokio::task::spawn_blocking(move || again.again()).await;
                if now.is_ok_and(|now| now != before) {
                    return;
                }
            }
        };
        if has_names {
            tokio::time::timeout(RESOLVE_INTERVAL, poll).await.ok();
        } else {
            poll.await;
        }
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
