//! What a changed `discover` list does to the backends that the sources have found, as sentences.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::backend_address::BackendAddress;
use crate::decision::snapshot::Snapshot;
use crate::discovery::Target;
use crate::discovery::kept::Kept;
use crate::pool::Pool;

/// The most addresses in a sentence.
const SHOWN: usize = 5;

/// The effects of `after` on the lists of sources in `before`. Nothing is asked of a source: what a new one will find is not
/// known.
#[must_use]
pub fn discovered(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut sentences = Vec::new();
    for (name, new) in &after.pools {
        let old = before.pools.get(name);
        if !old.is_some_and(|old| Arc::ptr_eq(old, new)) {
            of_pool(&format!("pool `{name}`"), old.map(AsRef::as_ref), new, &mut sentences);
        }
    }
    sentences
}

fn of_pool(pool: &str, old: Option<&Pool>, new: &Pool, sentences: &mut Vec<String>) {
    let before: Vec<&Arc<Kept>> = old.into_iter().flat_map(|old| old.sources().iter()).collect();
    let stays = members(new);
    for kept in new.sources().iter() {
        let source = kept.name();
        match before.iter().find(|known| known.name() == source) {
            None => {
                sentences.push(format!("{pool}: source `{source}` added; which backends it finds is not known yet"))
            }
            Some(known) if Arc::ptr_eq(known, kept) => {}
            Some(known) => sentences.push(format!("{pool}: source `{source}` {}", effect(known, &stays))),
        }
    }
    for kept in before.iter().filter(|kept| !new.sources().iter().any(|known| known.name() == kept.name())) {
        sentences.push(format!("{pool}: source `{}` removed; it {}", kept.name(), effect(kept, &stays)));
    }
}

/// The addresses that a pool has without asking its sources.
fn members(pool: &Pool) -> BTreeSet<BackendAddress> {
    let configured = pool.spec().members.iter().filter_map(|member| match member.target {
        Target::Address(address) => Some(address),
        Target::Name { .. } => None,
    });
    let found = pool.sources().iter().flat_map(|kept| kept.current()).map(|found| found.address);
    configured.chain(found).collect()
}

/// Which of the backends of a source stay in the pool.
fn effect(source: &Kept, stays: &BTreeSet<BackendAddress>) -> String {
    let current = source.current();
    let leave: Vec<String> = current
        .iter()
        .map(|found| found.address)
        .filter(|one| !stays.contains(one))
        .map(|one| one.to_string())
        .collect();
    match (current.len(), leave.len()) {
        (0, _) => "has no backends yet".to_owned(),
        (all, 0) => format!("keeps its {all} backends until its next list"),
        (all, gone) => {
            let more = if gone > SHOWN { ", …" } else { "" };
            let names = leave.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            format!("keeps {} of its {all} backends; these leave: {names}{more}", all - gone)
        }
    }
}
