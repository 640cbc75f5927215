//! The zone preference of a pool, for operators.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::units::Zone;
use crate::pool::selection::choice::percent;

/// The zone preference of a pool at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ZonePreference {
    /// The zone of this process.
    pub local: Zone,
    /// The capacity that each zone has if all are equal. With at least this, the local zone gets every request.
    pub fair_capacity: f64,
    /// The zones of the primary backends; the one without a name has the backends without a zone.
    pub zones: Vec<ZoneShare>,
}

/// A zone and its share of the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ZoneShare {
    /// Its name; missing for the backends without a zone.
    pub zone: Option<Zone>,
    /// The number of its primary backends.
    pub backends: usize,
    /// The weight of those that may get requests; during slow start only a part of it.
    pub capacity: f64,
    /// Its share of the requests, from 0 to 1.
    pub share: f64,
}

impl ZonePreference {
    /// The share of the requests that backends of `zone` get; `None` for an unknown zone.
    #[must_use]
    pub fn share_of(&self, zone: Option<&Zone>) -> Option<f64> {
        self.zones.iter().find(|one| one.zone.as_ref() == zone).map(|one| one.share)
    }
}

impl fmt::Display for ZonePreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, fair_capacity, zones } = self;
        let own = zones.iter().find(|one| one.zone.as_ref() == Some(local));
        let (capacity, share) = own.map_or((0.0, 0.0), |own| (own.capacity, own.share));
        let all: f64 = zones.iter().map(|one| one.capacity).sum();
        write!(f, "zone {local} is local and gets {}: its capacity of {} is ", percent(share), rounded(capacity))?;
        f.write_str(if share >= 1.0 { "at least" } else { "less than" })?;
        write!(f, " a fair share of {} ({} in {} zones)", rounded(*fair_capacity), rounded(all), zones.len())?;
        for (index, other) in zones.iter().filter(|one| one.share > 0.0 && one.zone.as_ref() != Some(local)).enumerate()
        {
            let name = other.zone.as_ref().map_or("no zone", Zone::as_str);
            write!(f, "{} {name} gets {}", if index == 0 { ";" } else { "," }, percent(other.share))?;
        }
        Ok(())
    }
}

/// At most two digits after the point.
fn rounded(capacity: f64) -> f64 {
    (capacity * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preference(zones: &[(Option<&str>, f64, f64)]) -> ZonePreference {
        let all: f64 = zones.iter().map(|(_, capacity, _)| capacity).sum();
        let zone = |(zone, capacity, share): &(Option<&str>, f64, f64)| ZoneShare {
            zone: zone.map(|zone| zone.parse().unwrap()),
            backends: 1,
            capacity: *capacity,
            share: *share,
        };
        ZonePreference {
            local: "a".parse().unwrap(),
            fair_capacity: all / zones.len() as f64,
            zones: zones.iter().map(zone).collect(),
        }
    }

    #[test]
    fn preference_is_explained_with_percentages_and_its_reason() {
        assert_eq!(
            preference(&[(Some("a"), 2.0, 1.0), (Some("b"), 1.0, 0.0)]).to_string(),
            "zone a is local and gets 100 %: its capacity of 2 is at least a fair share of 1.5 (3 in 2 zones)"
        );
        let small = preference(&[(None, 3.0, 0.25), (Some("a"), 1.0, 0.5), (Some("b"), 2.0, 0.25)]);
        assert_eq!(
            small.to_string(),
            "zone a is local and gets 50 %: its capacity of 1 is less than a fair share of 2 (6 in 3 zones); \
             no zone gets 25 %, b gets 25 %"
        );
        assert_eq!((small.share_of(None), small.share_of(Some(&"c".parse().unwrap()))), (Some(0.25), None));
    }
}
