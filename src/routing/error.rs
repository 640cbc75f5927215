//! Errors in the text of a host, a path or a method, and their messages.

use std::fmt;

/// Why a text is not a valid pattern. The message states the problem and the correction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatternError {
    /// The host is empty.
    HostEmpty,
    /// The host is longer than the 253 bytes that DNS allows.
    HostLength(String),
    /// A label of the host is empty or longer than 63 bytes.
    HostLabel(String),
    /// The host has a character that is not valid in host names.
    HostCharacter(String, char),
    /// The host has a port.
    HostPort(String),
    /// The host looks like an IPv6 address, but is invalid or lacks brackets.
    HostAddress(String),
    /// The host has a wildcard that is not its whole first label.
    HostWildcard(String),
    /// The path does not start with a slash.
    PathStart(String),
    /// The path has a query or a fragment.
    PathQuery(String, char),
    /// The path has white space or a control character.
    PathCharacter(String, char),
    /// The path has two consecutive slashes.
    PathEmptySegment(String),
    /// The path has a segment `.` or `..`, literal or percent-encoded.
    PathDotSegment(String),
    /// The list of methods is empty.
    MethodsEmpty,
    /// The text is not a method.
    MethodName(String),
    /// The text is a standard method in wrong case.
    MethodCase(String),
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostEmpty
            | Self::HostLength(_)
            | Self::HostLabel(_)
            | Self::HostCharacter(..)
            | Self::HostPort(_)
            | Self::HostAddress(_)
            | Self::HostWildcard(_) => self.host(f),
            Self::PathStart(_)
            | Self::PathQuery(..)
            | Self::PathCharacter(..)
            | Self::PathEmptySegment(_)
            | Self::PathDotSegment(_) => self.path(f),
            Self::MethodsEmpty | Self::MethodName(_) | Self::MethodCase(_) => self.method(f),
        }
    }
}

impl std::error::Error for PatternError {}

impl PatternError {
    fn host(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostLength(host) => {
                write!(f, "host {host:?} is too long; a host name has at most 253 characters")
            }
            Self::HostLabel(host) => write!(
                f,
                "host {host:?} has an empty or too long label; a label has 1 to 63 \
                 characters, as in \"www.example.com\""
            ),
            Self::HostCharacter(host, character) => write!(
                f,
                "host {host:?} has the character {character:?}; only letters, digits, '-', '_' \
                 and '.' are valid; write other scripts in their \"xn--\" form"
            ),
            Self::HostPort(host) => {
                write!(f, "host {host:?} has a port; write the host only; ports are ignored")
            }
            Self::HostAddress(host) => {
                write!(f, "host {host:?} is not an IPv6 address in brackets; write it like \"[2001:db8::1]\"")
            }
            Self::HostWildcard(host) => write!(
                f,
                "host {host:?} has a misplaced '*'; it can only be the whole first label, as in \
                 \"*.example.com\", or \"*\" for any host"
            ),
            _ => write!(
                f,
                "the host is empty; write a name like \"example.com\" or \"*.example.com\", or \
                 \"*\" for any host"
            ),
        }
    }

    fn path(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PathQuery(path, character) => write!(
                f,
                "path {path:?} has a {character:?}; routes do not match a query or fragment; \
                 write only the path in front of it"
            ),
            Self::PathCharacter(path, character) => write!(
                f,
                "path {path:?} has the character {character:?}; write it percent-encoded, as \
                 requests have it (a space is %20)"
            ),
            Self::PathEmptySegment(path) => {
                write!(f, "path {path:?} has two consecutive slashes; write one, as in \"/a/b\"")
            }
            Self::PathDotSegment(path) => {
                write!(f, "path {path:?} has a segment \".\" or \"..\"; write the resolved path")
            }
            Self::PathStart(path) => {
                write!(f, "path {path:?} does not start with '/'; write it from the root, as in \"/api\"")
            }
            _ => Ok(()),
        }
    }

    fn method(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MethodName(name) => {
                write!(f, "{name:?} is not a method; write a name like GET, POST or PURGE without spaces")
            }
            Self::MethodCase(name) => write!(
                f,
                "method {name:?} would never match, methods are case-sensitive; write {:?}",
                name.to_ascii_uppercase()
            ),
            _ => write!(
                f,
                "the list of methods is empty, so it matches no request; name a method such as \
                 GET, or leave the list out to match any method"
            ),
        }
    }
}
