//! Which requests have a line, by the status code of their response.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::base::fault::{Faults, Place};
use crate::base::units::Percent;

/// Status codes, as written: `404`, `2xx` or `none`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Statuses(String);

impl From<&str> for Statuses {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusesVisitor)
    }
}

struct StatusesVisitor;

impl Visitor<'_> for StatusesVisitor {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status code or a class, such as 2xx")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
        Ok(text.into())
    }

    fn visit_u64<E: de::Error>(self, status: u64) -> Result<Statuses, E> {
        Ok(Statuses(status.to_string()))
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([1-5]([0-9]{2}|xx)|none)$", "examples": ["2xx", "404"] })
    }
}

/// One more than the largest status code.
const END: usize = 600;

/// For each status code, and 0 for no response: below which random number a request has a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sampling(Arc<[u32]>);

impl Sampling {
    /// Checks the shares; `None` without any.
    pub(super) fn check(shares: &BTreeMap<Statuses, Percent>, place: &Place, faults: &mut Faults) -> Option<Self> {
        if shares.is_empty() {
            return None;
        }
        let mut limits = vec![u32::MAX; END];
        let mut apply = |range: Range<usize>, share: Percent| {
            // Not negative, and at most the maximum, which stands for every request.
            let limit = (share.share() * f64::from(u32::MAX)) as u32;
            limits.get_mut(range).into_iter().flatten().for_each(|known| *known = limit);
        };
        let mut single = Vec::new();
        for (Statuses(key), share) in shares {
            match statuses(key) {
                Some(range) if range.len() > 1 => apply(range, *share),
                Some(range) => single.push((range, *share)),
                None => {
                    let hint = "write a status code such as 404, a class such as `2xx`, or `none` for no response";
                    faults.add(place.key(key), format!("`{key}` is not a status code or a class"), hint);
                }
            }
        }
        // A status code precedes its class.
        single.into_iter().for_each(|(range, share)| apply(range, share));
        Some(Self(limits.into()))
    }

    /// Whether a request with this status code has a line.
    pub(super) fn keeps(&self, status: u16) -> bool {
        match self.0.get(usize::from(status)).copied().unwrap_or(u32::MAX) {
            u32::MAX => true,
            limit => fastrand::u32(..) < limit,
        }
    }
}

/// The status codes of a key.
fn statuses(key: &str) -> Option<Range<usize>> {
    if key == "none" {
        return Some(0..1);
    }
    if let Some(class) = key.strip_suffix("xx") {
        let class = class.parse::<usize>().ok().filter(|class| (1..=5).contains(class) && key.len() == 3)?;
        return Some(class * 100..class * 100 + 100);
    }
    let status = key.parse::<usize>().ok().filter(|status| (100..END).contains(status))?;
    Some(status..status + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_a_status_precedes_that_of_its_class_and_others_are_complete() {
        let shares = [("2xx", "10%"), ("204", "0%"), ("5xx", "100%"), ("none", "0%")];
        let shares = shares.map(|(key, share)| (Statuses::from(key), share.parse().unwrap())).into();
        let mut faults = Faults::default();
        let sampling = Sampling::check(&shares, &Place::root(), &mut faults).unwrap();
        assert!(faults.is_empty());
        let kept = |status| (0..10_000).filter(|_| sampling.keeps(status)).count();
        assert!((800..1200).contains(&kept(200)), "{}", kept(200));
        assert_eq!([204, 0, 404, 500, 599, 999].map(kept), [0, 0, 10_000, 10_000, 10_000, 10_000]);
    }

    #[test]
    fn only_status_codes_classes_and_none_are_keys() {
        for key in ["", "xx", "6xx", "0xx", "22xx", "99", "600", "2XX", "all"] {
            assert_eq!(statuses(key), None, "{key}");
        }
        assert_eq!([statuses("1xx"), statuses("599"), statuses("none")], [Some(100..200), Some(599..600), Some(0..1)]);
    }
}
