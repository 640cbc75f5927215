//! The matcher of a route: patterns for host and path, and their parsing.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use http::Method;

use super::Table;
use super::conditions::Conditions;
use super::error::PatternError;
use super::host_name::{LONGEST_HOST, canonical};
use super::methods::Methods;

/// The longest label that DNS allows.
const LONGEST_LABEL: usize = 63;

/// Which requests a route matches. Displayed in one line, such as `GET *.example.com/api (header x-version = 2)`, without
/// methods if it matches any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matcher {
    /// The host pattern.
    pub host: HostPattern,
    /// The path pattern.
    pub path: PathPattern,
    /// The methods.
    pub methods: Methods,
    /// Further conditions.
    pub conditions: Conditions,
    /// The order among routes with conditions of the same host and path: the highest comes first.
    pub priority: i32,
}

impl Matcher {
    /// Whether it matches a request with this host and path by any of its methods and conditions. A table finds the route of a request;
    /// this is for operators.
    #[must_use]
    pub fn selects(&self, host: Option<&str>, path: &str) -> bool {
        let place = Self { methods: Methods::any(), conditions: Conditions::default(), ..self.clone() };
        Table::build([(place, ())]).is_ok_and(|table| table.find(host, path, &Method::GET).is_some())
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_any() {
            write!(f, "{} ", self.methods)?;
        }
        write!(f, "{}{}", self.host, self.path)?;
        if !self.conditions.is_empty() {
            write!(f, " ({})", self.conditions)?;
        }
        Ok(())
    }
}

/// Which hosts a route matches.
///
/// As text: `*`, `example.com`, `[2001:db8::1]` or `*.example.com`. A pattern that is constructed rather than
/// parsed is normalised like the host of a request, but not validated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostPattern {
    /// Every host, and requests without a host.
    #[default]
    Any,
    /// This host only.
    Exact(String),
    /// Every host that ends with a dot and this suffix; stored without `*.`.
    Wildcard(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.is_empty() {
            return Err(PatternError::HostEmpty);
        }
        if let Some(inner) = text.strip_prefix('[') {
            check_address(text, inner)?;
            return Ok(Self::Exact(canonical(text)));
        }
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        check_name(text, name.strip_suffix('.').unwrap_or(name))?;
        let name = canonical(name);
        Ok(if wildcard { Self::Wildcard(name) } else { Self::Exact(name) })
    }
}

/// Checks an address in brackets; `inner` is the text after the first one.
fn check_address(text: &str, inner: &str) -> Result<(), PatternError> {
    match inner.split_once(']') {
        Some((_, rest)) if rest.starts_with(':') => Err(PatternError::HostPort(text.to_owned())),
        Some((address, "")) if is_address(address) => Ok(()),
        _ => Err(PatternError::HostAddress(text.to_owned())),
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

/// Checks a host name; `text` is for the message.
fn check_name(text: &str, name: &str) -> Result<(), PatternError> {
    let whole = || text.to_owned();
    if is_address(name) {
        return Err(PatternError::HostAddress(whole()));
    }
    for character in name.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => {}
            '*' => return Err(PatternError::HostWildcard(whole())),
            ':' if is_port(name) => return Err(PatternError::HostPort(whole())),
            _ => return Err(PatternError::HostCharacter(whole(), character)),
        }
    }
    if name.split('.').any(|label| label.is_empty() || label.len() > LONGEST_LABEL) {
        return Err(PatternError::HostLabel(whole()));
    }
    if name.len() > LONGEST_HOST {
        return Err(PatternError::HostLength(whole()));
    }
    Ok(())
}

fn is_port(name: &str) -> bool {
    name.split_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Which paths a route matches: everything below a prefix of whole segments, or one path.
///
/// As text it is the path, such as `/api`, parsed as a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    path: String,
    exact: bool,
}

impl PathPattern {
    /// A prefix, or with `exact` a single path.
    ///
    /// # Errors
    ///
    /// If the path does not start with a slash, or has a query, a fragment, white space, a control character,
    /// an empty segment or a dot segment.
    pub fn new(path: impl Into<String>, exact: bool) -> Result<Self, PatternError> {
        let path = path.into();
        check_path(&path)?;
        Ok(Self { path, exact })
    }

    /// The path as configured.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether only the exact path matches.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Whether the path ends with a slash.
    pub(super) fn ends_with_slash(&self) -> bool {
        self.path.ends_with('/')
    }

    /// The segments between the slashes.
    pub(super) fn segments(&self) -> impl Iterator<Item = &str> {
        // A valid path has empty segments only before its first and after its last slash.
        self.path.split('/').filter(|segment| !segment.is_empty())
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.exact { " (exact)" } else { "" };
        write!(f, "{}{mark}", self.path)
    }
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::new(text, false)
    }
}

fn check_path(path: &str) -> Result<(), PatternError> {
    let whole = || path.to_owned();
    let Some(rest) = path.strip_prefix('/') else {
        return Err(PatternError::PathStart(whole()));
    };
    for character in path.chars() {
        if matches!(character, '?' | '#') {
            return Err(PatternError::PathQuery(whole(), character));
        }
        if character.is_whitespace() || character.is_control() {
            return Err(PatternError::PathCharacter(whole(), character));
        }
    }
    let inner = rest.strip_suffix('/').unwrap_or(rest);
    if path != "/" && inner.split('/').any(str::is_empty) {
        return Err(PatternError::PathEmptySegment(whole()));
    }
    if inner.split('/').any(is_dot_segment) {
        return Err(PatternError::PathDotSegment(whole()));
    }
    Ok(())
}

/// Whether clients remove the segment; they also do so when its dots are percent-encoded.
fn is_dot_segment(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}
