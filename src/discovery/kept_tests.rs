//! The last good list of a source under failures, removals and hostile addresses.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use pingora_load_balancing::Backend;
use pingora_load_balancing::discovery::ServiceDiscovery;

use super::*;
use crate::discovery::source::{failed, list};

/// Returns the results in turn, then waits forever.
struct Scripted(Mutex<Vec<Result<Vec<u16>, &'static str>>>);

#[async_trait]
impl ServiceDiscovery for Scripted {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let next = if self.0.lock().is_empty() { None } else { Some(self.0.lock().remove(0)) };
        match next {
            Some(Ok(ports)) => Ok((list(ports.into_iter().map(at)), HashMap::new())),
            Some(Err(reason)) => failed(reason),
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Source for Scripted {
    async fn changed(&self) {}
}

fn at(port: u16) -> Found {
    Found::at(BackendAddress::Inet(([127, 0, 0, 1], port).into()))
}

fn kept(hold: Duration, results: Vec<Result<Vec<u16>, &'static str>>) -> Kept {
    let rules = Rules { addresses: AddressRules::default(), hold, max_moved: None, accepts_empty: false };
    Kept::new("p".into(), SourceName("scripted".into()), rules, Arc::new(Scripted(Mutex::new(results))))
}

fn ports(kept: &Kept) -> Vec<u16> {
    kept.current().iter().map(|found| found.address.port()).collect()
}

#[tokio::test(start_paused = true)]
async fn last_good_list_stays_while_the_source_fails_and_recovery_replaces_it() {
    let results = vec![Ok(vec![2, 1]), Err("refused"), Err("refused"), Ok(vec![1, 2, 3])];
    let kept = Arc::new(kept(Duration::from_secs(30), results));
    let mut changes = kept.changes();
    let running = tokio::spawn({
        let kept = Arc::clone(&kept);
        async move { kept.run().await }
    });
    changes.changed().await.unwrap();
    assert_eq!(ports(&kept), [1, 2]);
    kept.attempted().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((ports(&kept), kept.status().failure), (vec![1, 2], Some("refused".to_owned())));
    changes.changed().await.unwrap();
    assert_eq!((ports(&kept), kept.status().failure), (vec![1, 2, 3], None));
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn first_failure_counts_as_an_attempt_and_a_hanging_source_fails_after_its_timeout() {
    let kept = Arc::new(kept(Duration::ZERO, Vec::new()));
    let running = tokio::spawn({
        let kept = Arc::clone(&kept);
        async move { kept.run().await }
    });
    kept.attempted().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(kept.status().failure.as_deref(), Some("no list within 10s"));
    running.abort();
}

#[test]
fn missing_backends_stay_until_the_removal_has_persisted() {
    let kept = kept(Duration::from_secs(30), Vec::new());
    let (now, wall) = (Instant::now(), Timestamp::now());
    let accept = |list: &[u16], seconds: u64| {
        kept.accept(list.iter().map(|port| at(*port)).collect(), now + Duration::from_secs(seconds), wall).unwrap();
        (ports(&kept), kept.status().held)
    };
    assert_eq!(accept(&[1, 2, 3, 4], 0), (vec![1, 2, 3, 4], 0));
    assert_eq!(accept(&[1, 9], 1), (vec![1, 2, 3, 4, 9], 3), "additions apply at once");
    assert_eq!(accept(&[], 2), (vec![1, 2, 3, 4, 9], 5), "an empty list never applies");
    assert_eq!(accept(&[1, 9], 3), (vec![1, 2, 3, 4, 9], 3));
    assert_eq!(accept(&[1, 9], 33), (vec![1, 9], 0));
    assert_eq!(accept(&[9], 34), (vec![9], 0), "half of them");
}

#[test]
fn changed_settings_apply_and_rejected_addresses_are_counted() {
    let kept = kept(Duration::ZERO, Vec::new());
    let (now, wall) = (Instant::now(), Timestamp::now());
    let heavy = Found { weight: 7, ..at(1) };
    let none = Found::at("0.0.0.0:80".parse().unwrap());
    kept.accept(vec![at(1), at(1), none.clone(), none], now, wall).unwrap();
    assert_eq!(ports(&kept), [1], "an address counts once");
    assert_eq!(kept.status().rejected, Some((2, "0.0.0.0:80: it is not the address of one host".to_owned())));
    kept.accept(vec![heavy.clone()], now, wall).unwrap();
    assert_eq!((kept.current(), kept.status().rejected), (vec![heavy], None));
}

#[test]
fn list_that_is_too_long_is_rejected_as_a_whole() {
    let kept = kept(Duration::ZERO, Vec::new());
    let address = |n: u32| Found::at(BackendAddress::Inet((std::net::Ipv4Addr::from(0x0A00_0000 + n), 80).into()));
    let (now, wall) = (Instant::now(), Timestamp::now());
    kept.accept((0..10).map(address).collect(), now, wall).unwrap();
    let error = kept.accept((0..20_001).map(address).collect(), now, wall).unwrap_err();
    assert_eq!(error, "the list has 20001 backends, more than 20000");
    assert_eq!(kept.current().len(), 10);
}

#[test]
fn list_of_an_earlier_process_is_used_until_the_source_returns_one() {
    let kept = kept(Duration::ZERO, Vec::new());
    kept.restore(vec![at(1), Found::at("unix:/run/docker.sock".parse().unwrap())], Some(Timestamp::now()));
    assert_eq!(ports(&kept), [1], "the rules for addresses apply to it");
    kept.accept(vec![at(2)], Instant::now(), Timestamp::now()).unwrap();
    kept.restore(vec![at(1)], None);
    assert_eq!(ports(&kept), [2]);
}

#[tokio::test(start_paused = true)]
async fn list_that_moves_too_many_requests_is_held_back_until_it_persists_or_is_accepted() {
    let max_moved = Some("20%".parse().unwrap());
    let rules =
        Rules { addresses: AddressRules::default(), hold: Duration::from_secs(30), max_moved, accepts_empty: false };
    let source = Arc::new(Scripted(Mutex::default()));
    let kept = Kept::new("p".into(), SourceName("scripted".into()), rules, source);
    let start = Instant::now();
    let list = |ports: &[u16], seconds: u64| {
        let listed = ports.iter().map(|port| at(*port)).collect();
        kept.accept(listed, start + Duration::from_secs(seconds), Timestamp::now()).unwrap();
    };
    list(&[1, 2, 3, 4], 0);
    assert!(!kept.accept_held(), "nothing is held");
    list(&[1, 2, 3, 4, 5], 1);
    assert_eq!(ports(&kept), [1, 2, 3, 4, 5], "a fifth moves");
    list(&[1, 2, 3, 6, 7], 2);
    assert_eq!((ports(&kept), kept.status().moves), (vec![1, 2, 3, 4, 5], Some(0.4)), "nothing of it applies");
    list(&[1, 2, 3, 6, 7], 31);
    assert_eq!(ports(&kept), [1, 2, 3, 4, 5]);
    list(&[1, 2, 3, 6, 7], 32);
    assert_eq!((ports(&kept), kept.status().moves), (vec![1, 2, 3, 6, 7], None), "it has persisted");
    list(&[1, 2, 8, 9, 10], 40);
    assert!(kept.accept_held());
    list(&[1, 2, 8, 9, 10], 41);
    assert_eq!(ports(&kept), [1, 2, 8, 9, 10], "an operator has accepted it");
    list(&[1, 2, 3, 4, 5], 42);
    assert_eq!(ports(&kept), [1, 2, 8, 9, 10], "only that one");
}
