//! Chooses a content coding by Accept-Encoding (RFC 9110 §12.5.3).

use schemars::JsonSchema;
use serde::Deserialize;

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Coding {
    /// Its name in Content-Encoding.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// The weights that a client gives, in thousandths.
#[derive(Default)]
struct Weights {
    zstd: Option<u16>,
    br: Option<u16>,
    gzip: Option<u16>,
    identity: Option<u16>,
    others: Option<u16>,
}

impl Weights {
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<u16>> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match () {
            () if is(b"zstd") => Some(&mut self.zstd),
            () if is(b"br") => Some(&mut self.br),
            // A recipient considers x-gzip equivalent (RFC 9110 §8.4.1.3).
            () if is(b"gzip") || is(b"x-gzip") => Some(&mut self.gzip),
            () if is(b"identity") => Some(&mut self.identity),
            () if is(b"*") => Some(&mut self.others),
            () => None,
        }
    }

    fn of(&self, coding: Coding) -> u16 {
        let named = match coding {
            Coding::Zstd => self.zstd,
            Coding::Br => self.br,
            Coding::Gzip => self.gzip,
        };
        named.or(self.others).unwrap_or(0)
    }
}

/// The offered coding with the highest weight, the first of equal ones. `None` if the client accepts none of them, or
/// prefers the body as it is. Without Accept-Encoding, nothing is coded.
#[must_use]
pub fn choose<'a>(values: impl IntoIterator<Item = &'a [u8]>, offered: &[Coding]) -> Option<Coding> {
    let mut weights = Weights::default();
    for item in values.into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
        let Some((name, weight)) = parse(item) else { continue };
        if let Some(slot) = weights.slot(name) {
            // If a coding is listed twice, the refusal counts.
            *slot = Some(slot.map_or(weight, |before| before.min(weight)));
        }
    }
    let (mut chosen, mut highest) = (None, 0);
    for coding in offered {
        if weights.of(*coding) > highest {
            (chosen, highest) = (Some(*coding), weights.of(*coding));
        }
    }
    chosen.filter(|_| weights.identity.is_none_or(|identity| identity <= highest))
}

/// The name of a coding and its weight. An item that is not valid is ignored.
fn parse(item: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = item.splitn(2, |byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next()?;
    let Some(weight) = parts.next() else { return Some((name, 1000)) };
    let weight = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="))?;
    Some((name, thousandths(weight)?))
}

/// A weight of at most three decimals (RFC 9110 §12.4.2), in thousandths.
pub(super) fn thousandths(weight: &[u8]) -> Option<u16> {
    let (whole, decimals) = weight.split_first()?;
    let whole = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    let decimals = match decimals.split_first() {
        None => &[],
        Some((b'.', decimals)) if decimals.len() <= 3 => decimals,
        Some(_) => return None,
    };
    let (mut sum, mut place) = (whole, 100);
    for digit in decimals {
        sum += digit.is_ascii_digit().then(|| u16::from(digit - b'0'))? * place;
        place /= 10;
    }
    (sum <= 1000).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::Coding::{Br, Gzip, Zstd};
    use super::*;

    #[test]
    fn coding_is_chosen_by_weight_and_then_by_the_order_of_the_server() {
        for (value, chosen) in [
            ("", None),
            ("gzip", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("GZIP ; q=1", Some(Gzip)),
            ("GZIP;q=1.000", Some(Gzip)),
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Br)),
            ("gzip;q=1, br;q=0.9, zstd;q=0.001", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*;q=0.5, zstd;q=0", Some(Br)),
            ("*;q=0", None),
            ("gzip;q=0", None),
            ("gzip, *;q=0", Some(Gzip)),
            ("gzip;q=0.5, identity", None),
            ("gzip;q=0.5, identity;q=0.5", Some(Gzip)),
            ("identity;q=0", None),
            ("identity;q=0, gzip;q=0.1", Some(Gzip)),
            ("identity, *;q=0", None),
            ("gzip;q=0, gzip", None),
            ("deflate", None),
            ("gzipp, gz ip, zstd2", None),
        ] {
            assert_eq!(choose([value.as_bytes()], &[Zstd, Br, Gzip]), chosen, "{value:?}");
        }
        assert_eq!(choose([], &[Zstd]), None);
        assert_eq!(choose([&b"gzip"[..], b"br"], &[Gzip, Br]), Some(Gzip), "several lines, and another order");
        assert_eq!(choose([&b"zstd, gzip"[..]], &[Gzip]), Some(Gzip));
    }

    #[test]
    fn invalid_weights_are_ignored() {
        for weight in ["2", "1.001", "-1", "0.1234", ".5", "0,5", "nan", "", "1.", "1e0", "0.5x", "0x1", "\u{661}"] {
            let value = format!("gzip;q={weight}");
            let chosen = choose([value.as_bytes()], &[Gzip]);
            assert_eq!(chosen, (weight == "1.").then_some(Gzip), "{value:?}");
        }
        let long = "gzip;q=0,".repeat(10_000) + "br";
        assert_eq!(choose([long.as_bytes()], &[Gzip, Br]), Some(Br));
        assert_eq!(choose([&b"\xff\xfe;q=\x80, ;;;, ,,,"[..]], &[Gzip]), None);
    }
}
