//! The methods that a route matches: any, or a list.

use std::fmt;
use std::str::FromStr;

use http::Method;

use super::error::PatternError;

const STANDARD: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Any method, or a non-empty set of methods.
///
/// As text: `*` for any, or names separated by commas: `GET,POST`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Methods {
    // Sorted and without duplicates; empty means any method.
    listed: Vec<Method>,
}

impl Methods {
    /// Matches every method.
    pub fn any() -> Self {
        Self::default()
    }

    /// Matches these methods only.
    ///
    /// # Errors
    ///
    /// Returns [`PatternError::MethodsEmpty`] if there is none.
    pub fn of(methods: impl IntoIterator<Item = Method>) -> Result<Self, PatternError> {
        let mut listed: Vec<Method> = methods.into_iter().collect();
        listed.sort_by(|left, right| left.as_str().cmp(right.as_str()));
        listed.dedup();
        if listed.is_empty() {
            return Err(PatternError::MethodsEmpty);
        }
        Ok(Self { listed })
    }

    /// Whether every method matches.
    pub fn is_any(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether this method matches.
    pub fn matches(&self, method: &Method) -> bool {
        self.is_any() || self.listed.contains(method)
    }

    /// The listed methods; empty if every method matches.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Method> {
        self.listed.iter()
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str("*");
        }
        for (position, method) in self.listed.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{method}")?;
        }
        Ok(())
    }
}

impl FromStr for Methods {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        match text.trim() {
            "*" => Ok(Self::any()),
            "" => Err(PatternError::MethodsEmpty),
            names => Self::of(parse(names.split(',').map(str::trim))?),
        }
    }
}

impl<Name: AsRef<str>> TryFrom<&[Name]> for Methods {
    type Error = PatternError;

    fn try_from(names: &[Name]) -> Result<Self, PatternError> {
        Self::of(parse(names.iter().map(AsRef::as_ref))?)
    }
}

fn parse<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<Method>, PatternError> {
    names.map(parse_one).collect()
}

fn parse_one(name: &str) -> Result<Method, PatternError> {
    let method = Method::from_str(name).map_err(|_| PatternError::MethodName(name.to_owned()))?;
    // The http crate parses "get" as an extension method, which clients do not send.
    let capital = STANDARD.iter().any(|known| known.as_str().eq_ignore_ascii_case(name));
    if capital && !STANDARD.contains(&method) {
        return Err(PatternError::MethodCase(name.to_owned()));
    }
    Ok(method)
}
