//! Cache-Control of requests and responses (RFC 9111 §5.2), and Pragma of requests (§5.4).
//!
//! The parser reads all field lines. An unclear field is read as follows:
//!
//! - of a repeated lifetime the first value counts (§4.2.1), of another repeated directive the most restrictive one;
//! - a lifetime that is not a number is 0, so the response is stale (§4.2.1);
//! - a quoted string that does not end may hide a directive, so the field counts as `no-store`;
//! - a malformed argument does not weaken a directive that restricts, and disables one that permits.

use std::borrow::Cow;

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, PRAGMA};

use super::scanner::Scanner;

/// The largest number of seconds; larger ones count as this one (RFC 9111 §1.2.2).
pub const MAX_SECONDS: u64 = 1 << 31;

/// The argument of `no-cache` and `private` of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields {
    /// No argument: the directive applies to the whole response.
    All,
    /// The directive applies only to these fields.
    Names(Vec<HeaderName>),
}

/// The argument of `max-stale` of a request (RFC 9111 §5.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxStale {
    /// The client accepts a stale response of any age.
    Any,
    /// The client accepts a response that has been stale for at most this number of seconds.
    Seconds(u64),
}

/// The directives of a message. Values are in seconds and at most [`MAX_SECONDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// §5.2.1.5, §5.2.2.5.
    pub no_store: bool,
    /// §5.2.1.4, §5.2.2.4, and Pragma (§5.4). A request has no field names.
    pub no_cache: Option<Fields>,
    /// §5.2.2.7.
    pub private: Option<Fields>,
    /// §5.2.2.9.
    pub public: bool,
    /// §5.2.2.2.
    pub must_revalidate: bool,
    /// §5.2.2.8.
    pub proxy_revalidate: bool,
    /// §5.2.2.3.
    pub must_understand: bool,
    /// §5.2.1.6, §5.2.2.6.
    pub no_transform: bool,
    /// RFC 8246. It is advice for clients, so it changes nothing here.
    pub immutable: bool,
    /// §5.2.1.7.
    pub only_if_cached: bool,
    /// §5.2.1.1, §5.2.2.1.
    pub max_age: Option<u64>,
    /// §5.2.2.10.
    pub s_maxage: Option<u64>,
    /// §5.2.1.3.
    pub min_fresh: Option<u64>,
    /// §5.2.1.2.
    pub max_stale: Option<MaxStale>,
    /// RFC 5861 §3.
    pub stale_while_revalidate: Option<u64>,
    /// RFC 5861 §4.
    pub stale_if_error: Option<u64>,
}

impl CacheControl {
    /// The directives of a request. `Pragma: no-cache` counts if the request has no Cache-Control (§5.4).
    ///
    /// A request with neither field costs two look-ups and allocates nothing.
    #[must_use]
    pub fn of_request(headers: &HeaderMap) -> Self {
        if headers.contains_key(CACHE_CONTROL) {
            return Self::of_response(headers);
        }
        let no_cache = has_pragma_no_cache(headers).then_some(Fields::All);
        Self { no_cache, ..Self::default() }
    }

    /// The directives of Cache-Control of a response. See [`super::targeted::Policy`] for those that apply to a CDN.
    #[must_use]
    pub fn of_response(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            for element in Elements::of(line.as_bytes()) {
                directives.record(&element);
            }
        }
        directives
    }

    /// Whether the origin forbids every stale response (§4.2.4): `must-revalidate`, `proxy-revalidate`, `s-maxage`
    /// (§5.2.2.10) and `no-cache` without field names.
    #[must_use]
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some() || self.needs_validation()
    }

    /// Whether the response must be validated before each use: `no-cache` without field names (§5.2.2.4).
    #[must_use]
    pub fn needs_validation(&self) -> bool {
        self.no_cache == Some(Fields::All)
    }

    /// The fields that `private` and `no-cache` name. The stored copy omits them.
    pub fn restricted_fields(&self) -> impl Iterator<Item = &HeaderName> {
        [&self.private, &self.no_cache].into_iter().flatten().flat_map(|fields| match fields {
            Fields::All => [].iter(),
            Fields::Names(names) => names.iter(),
        })
    }

    fn record(&mut self, element: &Element<'_>) {
        if element.argument == Argument::Unterminated {
            self.no_store = true;
        }
        let Some(directive) = Directive::named(element.name) else { return };
        let malformed = matches!(element.argument, Argument::Malformed | Argument::Unterminated);
        let value = match &element.argument {
            Argument::Value(value) => Some(value.as_ref()),
            _ => None,
        };
        match directive.kind() {
            Kind::Restriction => self.set_flag(directive),
            Kind::Permission if malformed => {}
            Kind::Permission => self.set_flag(directive),
            Kind::Fields => {
                self.set_fields(directive, value.filter(|_| !malformed).map_or(Fields::All, field_names));
            }
            Kind::Seconds => self.set_seconds(directive, value.and_then(seconds)),
            Kind::MaxStale if element.argument == Argument::Missing => self.accept_stale(MaxStale::Any),
            Kind::MaxStale => {
                if let Some(seconds) = value.and_then(seconds) {
                    self.accept_stale(MaxStale::Seconds(seconds));
                }
            }
        }
    }

    pub(super) fn set_flag(&mut self, directive: Directive) {
        match directive {
            Directive::NoStore => self.no_store = true,
            Directive::Public => self.public = true,
            Directive::MustRevalidate => self.must_revalidate = true,
            Directive::ProxyRevalidate => self.proxy_revalidate = true,
            Directive::MustUnderstand => self.must_understand = true,
            Directive::NoTransform => self.no_transform = true,
            Directive::Immutable => self.immutable = true,
            Directive::OnlyIfCached => self.only_if_cached = true,
            _ => {}
        }
    }

    /// Adds the argument of `no-cache` or `private`. The whole response is more than some fields.
    pub(super) fn set_fields(&mut self, directive: Directive, fields: Fields) {
        let slot = if directive == Directive::NoCache { &mut self.no_cache } else { &mut self.private };
        match (slot.as_mut(), fields) {
            (Some(Fields::Names(known)), Fields::Names(names)) => known.extend(names),
            (Some(Fields::All), _) => {}
            (_, fields) => *slot = Some(fields),
        }
    }

    /// Adds a directive with seconds; `None` is an argument that is not a number.
    pub(super) fn set_seconds(&mut self, directive: Directive, seconds: Option<u64>) {
        let slot = match directive {
            Directive::MaxAge => &mut self.max_age,
            Directive::SMaxAge => &mut self.s_maxage,
            Directive::StaleWhileRevalidate => &mut self.stale_while_revalidate,
            Directive::StaleIfError => &mut self.stale_if_error,
            Directive::MinFresh => {
                // A larger value restricts more. An invalid one states nothing.
                self.min_fresh = self.min_fresh.max(seconds);
                return;
            }
            _ => return,
        };
        slot.get_or_insert(seconds.unwrap_or(0));
    }

    fn accept_stale(&mut self, accepted: MaxStale) {
        self.max_stale = Some(match (self.max_stale, accepted) {
            (Some(MaxStale::Seconds(known)), MaxStale::Seconds(new)) => MaxStale::Seconds(known.min(new)),
            (Some(known @ MaxStale::Seconds(_)), MaxStale::Any) => known,
            (_, accepted) => accepted,
        });
    }
}

/// A directive that this module knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    NoStore,
    NoCache,
    Private,
    Public,
    MustRevalidate,
    ProxyRevalidate,
    MustUnderstand,
    NoTransform,
    Immutable,
    OnlyIfCached,
    MaxAge,
    SMaxAge,
    MinFresh,
    MaxStale,
    StaleWhileRevalidate,
    StaleIfError,
}

/// The argument that a directive takes, and what a malformed one means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No argument; applies even if it has a malformed one.
    Restriction,
    /// No argument; does not apply if it has a malformed one.
    Permission,
    /// Optional field names.
    Fields,
    /// Seconds.
    Seconds,
    /// Optional seconds.
    MaxStale,
}

impl Directive {
    /// The directive with this name in any case.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        /// The length of the longest known name.
        const LONGEST: usize = "stale-while-revalidate".len();
        let mut buffer = [0; LONGEST];
        let lower = buffer.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"max-age" => Self::MaxAge,
            b"no-cache" => Self::NoCache,
            b"no-store" => Self::NoStore,
            b"private" => Self::Private,
            b"public" => Self::Public,
            b"s-maxage" => Self::SMaxAge,
            b"must-revalidate" => Self::MustRevalidate,
            b"proxy-revalidate" => Self::ProxyRevalidate,
            b"must-understand" => Self::MustUnderstand,
            b"no-transform" => Self::NoTransform,
            b"immutable" => Self::Immutable,
            b"only-if-cached" => Self::OnlyIfCached,
            b"min-fresh" => Self::MinFresh,
            b"max-stale" => Self::MaxStale,
            b"stale-while-revalidate" => Self::StaleWhileRevalidate,
            b"stale-if-error" => Self::StaleIfError,
            _ => return None,
        })
    }

    /// The argument that it takes.
    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::NoStore | Self::MustRevalidate | Self::ProxyRevalidate | Self::NoTransform | Self::OnlyIfCached => {
                Kind::Restriction
            }
            Self::Public | Self::Immutable | Self::MustUnderstand => Kind::Permission,
            Self::NoCache | Self::Private => Kind::Fields,
            Self::MaxAge | Self::SMaxAge | Self::MinFresh | Self::StaleWhileRevalidate | Self::StaleIfError => {
                Kind::Seconds
            }
            Self::MaxStale => Kind::MaxStale,
        }
    }
}

/// Delta-seconds (§1.2.2): digits only. A number above [`MAX_SECONDS`], of any length, counts as that.
pub(super) fn seconds(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add).min(MAX_SECONDS))
}

/// A list of field names. An empty list, or a name that is not one, restricts the whole response.
pub(super) fn field_names(list: &[u8]) -> Fields {
    let members = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    match members.map(HeaderName::from_bytes).collect::<Result<Vec<_>, _>>() {
        Ok(names) if !names.is_empty() => Fields::Names(names),
        _ => Fields::All,
    }
}

fn has_pragma_no_cache(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(PRAGMA).into_iter();
    lines.flat_map(|line| Elements::of(line.as_bytes())).any(|element| element.name.eq_ignore_ascii_case(b"no-cache"))
}

/// One element of the list.
struct Element<'a> {
    name: &'a [u8],
    argument: Argument<'a>,
}

#[derive(PartialEq, Eq)]
enum Argument<'a> {
    Missing,
    /// A token, or a quoted string without its quotes and escapes.
    Value(Cow<'a, [u8]>),
    /// Something that is neither a token nor a quoted string, or is followed by further text.
    Malformed,
    /// A quoted string that does not end.
    Unterminated,
}

/// The elements of one field line.
struct Elements<'a>(Scanner<'a>);

impl<'a> Elements<'a> {
    const fn of(line: &'a [u8]) -> Self {
        Self(Scanner { rest: line })
    }

    fn argument(&mut self) -> Argument<'a> {
        if !self.0.take_if(b'=') {
            return Argument::Missing;
        }
        if self.0.take_if(b'"') {
            return self.quoted();
        }
        match self.0.take_while(is_token) {
            [] => Argument::Malformed,
            token => Argument::Value(Cow::Borrowed(token)),
        }
    }

    /// The rest of a quoted string (RFC 9110 §5.6.4) after its first quote.
    fn quoted(&mut self) -> Argument<'a> {
        let mut unescaped: Option<Vec<u8>> = None;
        loop {
            let plain = self.0.take_while(|byte| !matches!(byte, b'"' | b'\\'));
            if let Some(text) = &mut unescaped {
                text.extend_from_slice(plain);
            }
            if self.0.take_if(b'"') {
                return Argument::Value(unescaped.map_or(Cow::Borrowed(plain), Cow::Owned));
            }
            let [b'\\', escaped, rest @ ..] = self.0.rest else {
                self.0.rest = &[];
                return Argument::Unterminated;
            };
            unescaped.get_or_insert_with(|| plain.to_vec()).push(*escaped);
            self.0.rest = rest;
        }
    }

    /// Skips text up to the next comma outside a quoted string. Returns what the text makes of the argument.
    fn skip_excess(&mut self) -> Option<Argument<'a>> {
        self.0.take_while(is_space);
        let mut excess = None;
        while !matches!(self.0.rest, [] | [b',', ..]) {
            excess = Some(Argument::Malformed);
            self.0.take_while(|byte| !matches!(byte, b',' | b'"'));
            if self.0.take_if(b'"') && self.quoted() == Argument::Unterminated {
                return Some(Argument::Unterminated);
            }
        }
        excess
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        self.0.take_while(|byte| is_space(byte) || byte == b',');
        if self.0.rest.is_empty() {
            return None;
        }
        let name = self.0.take_while(is_token);
        let argument = self.argument();
        let argument = self.skip_excess().unwrap_or(argument);
        Some(Element { name, argument })
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Whether a token may contain the byte (RFC 9110 §5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) || byte.is_ascii_alphanumeric()
}

#[cfg(test)]
#[path = "directives_tests.rs"]
mod tests;
