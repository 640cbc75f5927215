//! Normalises the host of a request or a pattern.

/// The longest host name that DNS allows, without its trailing dot.
pub(super) const LONGEST_HOST: usize = 253;

/// The host in lower case, without port and trailing dot.
pub(super) fn canonical(host: &str) -> String {
    bare(host).to_ascii_lowercase()
}

/// Calls `then` with the normalised host, without allocating; `None` if it is too long for a host.
pub(super) fn with_canonical<R>(host: &str, then: impl FnOnce(&str) -> Option<R>) -> Option<R> {
    let name = bare(host);
    if name.len() > LONGEST_HOST {
        return None;
    }
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return then(name);
    }
    let mut buffer = [0; LONGEST_HOST];
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    then(str::from_utf8(lower).ok()?)
}

/// The host without port and trailing dot.
fn bare(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        // In an IPv6 address only a colon after the brackets starts a port.
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && name.starts_with('[') == name.ends_with(']') =>
        {
            name
        }
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}
