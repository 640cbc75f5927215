//! What DNS messages say about a name. Pure: no I/O, no clock.
//!
//! A [`Chain`] follows CNAME records to the records that it looks for, in one message or several.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::super::{Found, WEIGHT_MAX};
use crate::base::backend_address::BackendAddress;

/// The most CNAME records between a name and its records.
const ALIASES_MAX: usize = 16;

/// The records of a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer<T> {
    /// Empty if the name does not exist, or has no such record.
    pub records: Vec<T>,
    /// The shortest time to live of what the answer rests on; `None` if the message does not say.
    pub ttl: Option<Duration>,
}

impl<T> Answer<T> {
    /// Both answers together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.ttl = match (self.records.is_empty(), other.records.is_empty()) {
            // That a name has addresses of one family only need not be asked sooner than its addresses.
            (false, true) => self.ttl,
            (true, false) => other.ttl,
            _ => shorter(self.ttl, other.ttl),
        };
        self.records.extend(other.records);
        self
    }
}

/// The shorter one of two times to live.
pub(super) fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The way from a name to its records.
pub(super) struct Chain {
    kind: RecordType,
    /// The names so far; the last one is looked for.
    names: Vec<Name>,
    ttl: Option<Duration>,
}

impl Chain {
    pub(super) fn new(name: Name, kind: RecordType) -> Self {
        Self { kind, names: vec![name], ttl: None }
    }

    /// The name to ask for.
    pub(super) fn name(&self) -> Option<&Name> {
        self.names.last()
    }

    /// Reads the answer to a question for [`Chain::name`]. `None` if the name it leads to must be asked for.
    ///
    /// # Errors
    /// The CNAME records form a loop, or there are too many.
    pub(super) fn read(&mut self, message: &Message) -> Result<Option<Answer<RData>>, String> {
        let asked = self.names.len();
        loop {
            let Some(name) = self.names.last() else { return Ok(None) };
            let of_name = |record: &&Record| record.name == *name;
            let mut wanted =
                message.answers.iter().filter(of_name).filter(|one| one.record_type() == self.kind).peekable();
            if wanted.peek().is_some() {
                let wanted: Vec<&Record> = wanted.collect();
                let ttl = wanted.iter().map(|record| seconds(record.ttl)).chain(self.ttl).min();
                return Ok(Some(Answer {
                    records: wanted.into_iter().map(|record| record.data.clone()).collect(),
                    ttl,
                }));
            }
            let alias = message.answers.iter().filter(of_name).find_map(|record| match &record.data {
                RData::CNAME(CNAME(target)) => Some((target.clone(), record.ttl)),
                _ => None,
            });
            match alias {
                Some((target, ttl)) => self.follow(target, ttl)?,
                None if self.names.len() > asked && !is_negative(message) => return Ok(None),
                None => return Ok(Some(Answer { records: Vec::new(), ttl: shorter(self.ttl, negative_ttl(message)) })),
            }
        }
    }

    fn follow(&mut self, target: Name, ttl: u32) -> Result<(), String> {
        if self.names.contains(&target) {
            return Err(format!("the CNAME records of `{target}` form a loop"));
        }
        if self.names.len() > ALIASES_MAX {
            return Err(format!("more than {ALIASES_MAX} CNAME records lead to `{target}`"));
        }
        self.ttl = shorter(self.ttl, Some(seconds(ttl)));
        self.names.push(target);
        Ok(())
    }
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(u64::from(ttl))
}

/// Whether a message without the records says that there are none.
fn is_negative(message: &Message) -> bool {
    message.metadata.response_code == ResponseCode::NXDomain || negative_ttl(message).is_some()
}

/// How long the absence of records is known (RFC 2308).
fn negative_ttl(message: &Message) -> Option<Duration> {
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(seconds(record.ttl.min(soa.minimum))),
        _ => None,
    })
}

/// Whether a message names other servers instead of answering.
pub(super) fn is_referral(message: &Message) -> bool {
    let has = |kind| message.authorities.iter().any(|record| record.record_type() == kind);
    message.metadata.response_code == ResponseCode::NoError
        && message.answers.is_empty()
        && has(RecordType::NS)
        && !has(RecordType::SOA)
}

/// The addresses in records.
pub(super) fn addresses(answer: Answer<RData>) -> Answer<IpAddr> {
    let ip = |data: RData| match data {
        RData::A(A(ip)) => Some(IpAddr::V4(ip)),
        RData::AAAA(AAAA(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    };
    Answer { records: answer.records.into_iter().filter_map(ip).collect(), ttl: answer.ttl }
}

/// The services in SRV records. The target `.` means that there is no service (RFC 2782).
pub(super) fn services(answer: Answer<RData>) -> Answer<SRV> {
    let service = |data: RData| match data {
        RData::SRV(srv) if !srv.target.is_root() => Some(srv),
        _ => None,
    };
    Answer { records: answer.records.into_iter().filter_map(service).collect(), ttl: answer.ttl }
}

/// The backends that services are, with the addresses of their targets. Those of the lowest priority are primaries. Of
/// services at the same address, the one with the lowest priority counts.
pub(super) fn backends(mut services: Vec<SRV>, addresses: &BTreeMap<Name, Vec<IpAddr>>) -> Vec<Found> {
    services.sort_by_key(|service| (service.priority, std::cmp::Reverse(service.weight)));
    let lowest = services.first().map(|service| service.priority);
    let largest = services.iter().map(|service| u32::from(service.weight)).max().unwrap_or_default();
    let mut all = Vec::with_capacity(services.len());
    for service in services {
        let found = |ip: &IpAddr| Found {
            weight: weight(service.weight, largest),
            backup: Some(service.priority) != lowest,
            ..Found::at(BackendAddress::from(std::net::SocketAddr::new(*ip, service.port)))
        };
        all.extend(addresses.get(&service.target).into_iter().flatten().map(found));
    }
    all
}

/// The weight of a service. Weights are reduced in proportion if the largest one is above the limit. In an SRV record, 0
/// means a small share, not none.
fn weight(weight: u16, largest: u32) -> u32 {
    let weight = u32::from(weight);
    if largest > WEIGHT_MAX { (weight * WEIGHT_MAX / largest).max(1) } else { weight.max(1) }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
