//! A purge, and its line in a journal.
//!
//! `1c291ca3 1700000000.000000001 hard tag product-42`: the CRC-32 of the text after it, the time in seconds since 1970,
//! the kind, the scope. Bytes other than visible ASCII, and `%`, are percent-encoded.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which stored responses a purge concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those with this key or URI key.
    Key(Vec<u8>),
    /// Those with this tag.
    Tag(String),
    /// Those whose path starts with `path`, byte by byte: `/img` covers `/images`, `/img/` does not.
    Prefix {
        /// The normalised host; `None`: all hosts.
        host: Option<String>,
        /// The start of the path.
        path: String,
    },
}

/// What a purge does to a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It is not used again.
    Hard,
    /// It is stale, and used only as far as a stale response may be.
    Soft,
}

/// A purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Which responses it concerns.
    pub scope: Scope,
    /// What it does.
    pub kind: Kind,
    /// It concerns responses stored at this time or before.
    pub at: SystemTime,
}

/// A line is no purge, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedLine;

impl Purge {
    /// The line in a journal, with its line end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let time = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let kind = match self.kind {
            Kind::Hard => "hard",
            Kind::Soft => "soft",
        };
        let scope = match &self.scope {
            Scope::All => "all".to_owned(),
            Scope::Key(key) => format!("key {}", encode(key)),
            Scope::Tag(tag) => format!("tag {}", encode(tag.as_bytes())),
            Scope::Prefix { host: None, path } => format!("prefix {}", encode(path.as_bytes())),
            Scope::Prefix { host: Some(host), path } => {
                format!("host-prefix {} {}", encode(host.as_bytes()), encode(path.as_bytes()))
            }
        };
        let text = format!("{}.{:09} {kind} {scope}", time.as_secs(), time.subsec_nanos());
        format!("{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
    }

    /// Reads a line of a journal, with or without its line end.
    ///
    /// # Errors
    /// The checksum does not match, or the text is not that of a purge.
    pub fn parse_line(line: &str) -> Result<Self, DamagedLine> {
        Self::parse(line).ok_or(DamagedLine)
    }

    fn parse(line: &str) -> Option<Self> {
        let (checksum, text) = line.strip_suffix('\n').unwrap_or(line).split_once(' ')?;
        if checksum != format!("{:08x}", crc32fast::hash(text.as_bytes())) {
            return None;
        }
        let mut words = text.split(' ');
        let (seconds, nanos) = words.next()?.split_once('.')?;
        let at = UNIX_EPOCH.checked_add(Duration::new(seconds.parse().ok()?, nanos.parse().ok()?))?;
        let kind = match words.next()? {
            "hard" => Kind::Hard,
            "soft" => Kind::Soft,
            _ => return None,
        };
        let text_of = |word: Option<&str>| String::from_utf8(decode(word?)?).ok();
        let scope = match words.next()? {
            "all" => Scope::All,
            "key" => Scope::Key(decode(words.next()?)?),
            "tag" => Scope::Tag(text_of(words.next())?),
            "prefix" => Scope::Prefix { host: None, path: text_of(words.next())? },
            "host-prefix" => Scope::Prefix { host: Some(text_of(words.next())?), path: text_of(words.next())? },
            _ => return None,
        };
        words.next().is_none().then_some(Self { scope, kind, at })
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_graphic() && *byte != b'%' {
            text.push(char::from(*byte));
        } else {
            // Writing to a string does not fail.
            write!(text, "%{byte:02X}").unwrap_or_default();
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
#[path = "purge_record_tests.rs"]
mod tests;
