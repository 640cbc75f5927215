//! Answers: CNAME chains, times to live, and SRV records.

use hickory_proto::op::OpCode;
use hickory_proto::rr::rdata::{NS, SOA};

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

fn a(owner: &str, ttl: u32, last: u8) -> Record {
    record(owner, ttl, RData::A(A::new(127, 0, 0, last)))
}

fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    record(owner, ttl, RData::CNAME(CNAME(name(target))))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    record("x.", ttl, RData::SOA(SOA::new(name("ns.x."), name("root.x."), 1, 1, 1, 1, minimum)))
}

fn message(answers: &[Record], authorities: &[Record]) -> Message {
    let mut message = Message::response(1, OpCode::Query);
    message.add_answers(answers.iter().cloned()).add_authorities(authorities.iter().cloned());
    message
}

/// The number of records and the time to live in seconds.
fn read(chain: &mut Chain, message: &Message) -> Result<Option<(usize, Option<u64>)>, String> {
    let answer = chain.read(message)?;
    Ok(answer.map(|answer| (answer.records.len(), answer.ttl.map(|ttl| ttl.as_secs()))))
}

fn chain() -> Chain {
    Chain::new(name("api.x."), RecordType::A)
}

#[test]
fn time_to_live_is_the_shortest_of_the_chain() {
    let direct = message(&[a("api.x.", 60, 1), a("api.x.", 30, 2), a("other.x.", 1, 3)], &[]);
    assert_eq!(read(&mut chain(), &direct), Ok(Some((2, Some(30)))));
    let mixed_case = message(&[a("API.x.", 60, 1)], &[]);
    assert_eq!(read(&mut chain(), &mixed_case), Ok(Some((1, Some(60)))));
    let alias = message(&[a("b.x.", 60, 1), cname("a.x.", 9, "b.x."), cname("api.x.", 20, "a.x.")], &[]);
    assert_eq!(read(&mut chain(), &alias), Ok(Some((1, Some(9)))), "whatever their order");
}

#[test]
fn alias_without_its_records_is_asked_for() {
    let mut chain = chain();
    assert_eq!(read(&mut chain, &message(&[cname("api.x.", 20, "b.y.")], &[])), Ok(None));
    assert_eq!(chain.name(), Some(&name("b.y.")));
    assert_eq!(read(&mut chain, &message(&[a("b.y.", 60, 1)], &[])), Ok(Some((1, Some(20)))));
}

#[test]
fn negative_answer_has_no_records_and_the_time_of_the_soa_record() {
    assert_eq!(read(&mut chain(), &message(&[], &[])), Ok(Some((0, None))));
    assert_eq!(read(&mut chain(), &message(&[], &[soa(60, 5)])), Ok(Some((0, Some(5)))));
    let alias = message(&[cname("api.x.", 20, "b.y.")], &[soa(60, 30)]);
    assert_eq!(read(&mut chain(), &alias), Ok(Some((0, Some(20)))));
    let mut missing = message(&[cname("api.x.", 20, "b.y.")], &[]);
    missing.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(read(&mut chain(), &missing), Ok(Some((0, Some(20)))));
    let other_type = message(&[record("api.x.", 1, RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1)))], &[]);
    assert_eq!(read(&mut chain(), &other_type), Ok(Some((0, None))));
}

#[test]
fn loop_of_aliases_is_an_error() {
    let own = message(&[cname("api.x.", 20, "API.x.")], &[]);
    assert!(read(&mut chain(), &own).unwrap_err().contains("form a loop"));
    let two = message(&[cname("api.x.", 20, "b.x."), cname("b.x.", 20, "api.x.")], &[]);
    assert!(read(&mut chain(), &two).unwrap_err().contains("form a loop"));
    let mut chain = chain();
    assert_eq!(read(&mut chain, &message(&[cname("api.x.", 20, "b.x.")], &[])), Ok(None));
    let back = message(&[cname("b.x.", 20, "api.x.")], &[]);
    assert!(read(&mut chain, &back).unwrap_err().contains("form a loop"), "in two messages");
    let many: Vec<Record> = (0..40).map(|i| cname(&format!("n{i}.x."), 9, &format!("n{}.x.", i + 1))).collect();
    let mut chain = Chain::new(name("n0.x."), RecordType::A);
    assert!(read(&mut chain, &message(&many, &[])).unwrap_err().contains("more than 16 CNAME records"));
}

#[test]
fn message_that_names_other_servers_is_a_referral() {
    let ns = record("x.", 60, RData::NS(NS(name("ns.x."))));
    assert!(is_referral(&message(&[], std::slice::from_ref(&ns))));
    assert!(!is_referral(&message(&[], &[ns.clone(), soa(1, 1)])));
    assert!(!is_referral(&message(&[a("api.x.", 1, 1)], &[ns])));
    assert!(!is_referral(&message(&[], &[])));
}

#[test]
fn missing_family_does_not_shorten_the_time_to_live() {
    let time = |seconds| Some(Duration::from_secs(seconds));
    let some = |seconds| Answer { records: vec![1], ttl: time(seconds) };
    let none = |seconds| Answer { records: Vec::new(), ttl: time(seconds) };
    assert_eq!(some(60).and(none(5)).ttl, time(60));
    assert_eq!(none(5).and(some(60)).ttl, time(60));
    assert_eq!(some(60).and(some(5)).ttl, time(5));
    assert_eq!(none(60).and(none(5)).ttl, time(5));
}

/// Address, weight and whether it is a backup, of services with priority, weight, port and target.
fn mapped(services: &[(u16, u16, u16, &str)]) -> Vec<(String, u32, bool)> {
    let addresses = |last: &[u8]| last.iter().map(|last| IpAddr::from([127, 0, 0, *last])).collect::<Vec<_>>();
    let known = [(name("one.x."), addresses(&[1])), (name("two.x."), addresses(&[2, 3])), (name("none.x."), vec![])];
    let srv =
        |(priority, weight, port, target): &(u16, u16, u16, &str)| SRV::new(*priority, *weight, *port, name(target));
    let found = backends(services.iter().map(srv).collect(), &known.into());
    found.into_iter().map(|found| (found.address.to_string(), found.weight, found.backup)).collect()
}

#[test]
fn lowest_priority_is_primary_and_others_are_backups() {
    let found = mapped(&[(20, 5, 81, "one.x."), (10, 3, 80, "two.x."), (10, 1, 82, "none.x."), (30, 9, 80, "one.x.")]);
    let expected =
        [("127.0.0.2:80", 3, false), ("127.0.0.3:80", 3, false), ("127.0.0.1:81", 5, true), ("127.0.0.1:80", 9, true)];
    assert_eq!(found, expected.map(|(address, weight, backup)| (address.to_owned(), weight, backup)));
}

#[test]
fn weights_of_srv_records_are_reduced_in_proportion_and_never_zero() {
    let weights = |weights: &[u16]| {
        let services: Vec<_> = weights.iter().zip(1..).map(|(weight, port)| (1, *weight, port, "one.x.")).collect();
        let mut found = mapped(&services);
        found.sort_by_key(|(address, _, _)| address.clone());
        found.into_iter().map(|(_, weight, _)| weight).collect::<Vec<_>>()
    };
    assert_eq!(weights(&[0, 0]), [1, 1]);
    assert_eq!(weights(&[0, 10, 1000]), [1, 10, 1000]);
    assert_eq!(weights(&[65535, 32768, 1, 0]), [1000, 500, 1, 1]);
}

#[test]
fn service_at_the_root_does_not_exist() {
    let none = Answer { records: vec![RData::SRV(SRV::new(0, 0, 0, Name::root()))], ttl: None };
    assert_eq!(services(none).records, []);
}
