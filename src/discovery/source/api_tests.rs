//! Registrations: conditions, expiry, draining and restoring.

#![expect(clippy::disallowed_methods, reason = "a test's own clock starts somewhere")]

use super::*;

const A: &str = "127.0.0.1:1";

fn at(address: &str) -> BackendAddress {
    address.parse().unwrap()
}

fn ttl(seconds: u64) -> Settings {
    Settings { ttl: Some(Period::seconds(seconds)), ..Settings::default() }
}

#[test]
fn same_registration_again_is_a_renewal_and_keeps_its_revision() {
    let (registry, now) = (Registry::default(), Instant::now());
    let put = |settings| registry.register(at(A), settings, &Condition::Any, now);
    assert_eq!(put(ttl(5)), Ok(Registered::Added));
    assert_eq!(put(ttl(5)), Ok(Registered::Renewed));
    assert_eq!(registry.get(at(A), now).unwrap().revision, 1);
    assert_eq!(put(Settings { weight: 9, ..ttl(5) }), Ok(Registered::Changed));
    assert_eq!(registry.get(at(A), now).unwrap().revision, 2);
}

#[test]
fn write_whose_condition_does_not_hold_changes_nothing() {
    let (registry, now) = (Registry::default(), Instant::now());
    let put = |condition: Condition| registry.register(at(A), Settings::default(), &condition, now);
    assert_eq!(put(Condition::Match(vec![])), Err(Rejected::Condition(None)));
    assert_eq!(put(Condition::Absent), Ok(Registered::Added));
    assert_eq!(put(Condition::Absent), Err(Rejected::Condition(Some(1))));
    assert_eq!(put(Condition::Match(vec![7])), Err(Rejected::Condition(Some(1))));
    assert_eq!(put(Condition::Match(vec![7, 1])), Ok(Registered::Renewed));
    assert_eq!(registry.remove(at(A), &Condition::Match(vec![7]), now), Err(Rejected::Condition(Some(1))));
    assert_eq!(registry.remove(at("127.0.0.1:2"), &Condition::Any, now), Err(Rejected::Unknown));
}

#[tokio::test]
async fn ended_registration_is_drained_and_then_forgotten() {
    let (registry, now) = (Registry::default(), Instant::now());
    registry.register(at(A), Settings::default(), &Condition::Any, now).unwrap();
    assert_eq!(registry.remove(at(A), &Condition::Any, now), Ok(true));
    assert_eq!(registry.remove(at(A), &Condition::Any, now), Ok(false), "a second removal has no effect");
    let list = registry.discover().await.unwrap().0;
    assert!(super::super::found(&list)[0].drain);
    let limit = Duration::from_secs(60);
    registry.forget_ended(limit, now, |_| true);
    assert!(registry.is_draining());
    registry.forget_ended(limit, now + limit, |_| true);
    assert!(registry.get(at(A), now).is_none(), "at most as long as the limit");
}

#[test]
fn draining_backend_that_is_registered_again_serves_again() {
    let (registry, now) = (Registry::default(), Instant::now());
    registry.register(at(A), Settings::default(), &Condition::Any, now).unwrap();
    registry.remove(at(A), &Condition::Any, now).unwrap();
    assert_eq!(registry.renew(at(A), now), Err(Rejected::Unknown), "a renewal does not bring it back");
    assert_eq!(registry.register(at(A), Settings::default(), &Condition::Absent, now), Ok(Registered::Changed));
    registry.forget_ended(Duration::ZERO, now, |_| false);
    assert!(!registry.get(at(A), now).unwrap().is_draining);
}

#[test]
fn registration_ends_unless_it_is_renewed_in_time() {
    let (registry, now) = (Registry::default(), Instant::now());
    let at_second = |second| now + Duration::from_secs(second);
    registry.register(at(A), ttl(5), &Condition::Any, now).unwrap();
    registry.register(at("127.0.0.1:2"), Settings::default(), &Condition::Any, now).unwrap();
    assert_eq!(registry.next_expiry(), Some(at_second(5)));
    assert_eq!(registry.expire(at_second(4)), []);
    registry.renew(at(A), at_second(4)).unwrap();
    assert_eq!(registry.expire(at_second(8)), []);
    assert_eq!(registry.get(at(A), at_second(8)).unwrap().remaining, Some(Duration::from_secs(1)));
    assert_eq!(registry.expire(at_second(9)), [at(A)]);
    assert_eq!(registry.expire(at_second(10)), [], "it ends once");
    assert_eq!(registry.saved().len(), 1);
}

#[test]
fn restored_registration_gets_a_new_time_to_live_and_no_revision_is_used_twice() {
    let (registry, now) = (Registry::default(), Instant::now());
    let saved = SavedRegistration { address: at(A), settings: ttl(5), revision: 41 };
    registry.replace(vec![saved.clone()], now);
    assert_eq!(registry.saved(), [saved]);
    assert_eq!(registry.get(at(A), now).unwrap().remaining, Some(Duration::from_secs(5)));
    registry.register(at("127.0.0.1:2"), Settings::default(), &Condition::Any, now).unwrap();
    assert_eq!(registry.get(at("127.0.0.1:2"), now).unwrap().revision, 42);
    registry.replace(Vec::new(), now);
    assert!(registry.get(at(A), now).unwrap().is_draining, "it ended in the other process");
}
