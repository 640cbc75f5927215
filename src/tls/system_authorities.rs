//! The certificate authorities of the system, which verify backends if neither the pool nor the server has others.
//!
//! Pingora's connectors read them when they are created, and panic if that fails. A connector without any authority
//! works for backends without TLS.

use rustls::RootCertStore;

/// A file without an authority, for connectors.
const NONE: &str = "/dev/null";

/// Whether backends can be verified against them.
///
/// # Errors
/// Why this is not possible: they cannot be read, one is invalid, or there is none.
pub fn check() -> Result<(), String> {
    let certificates = rustls_native_certs::load_native_certs().map_err(|e| e.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        // Pingora rejects all if one is invalid.
        roots.add(certificate).map_err(|e| format!("one of them is invalid: {e}"))?;
    }
    if roots.is_empty() {
        return Err("there is none".to_owned());
    }
    Ok(())
}

/// The file of authorities for Pingora's connectors, with which they do not read those of the system. `None`, and they
/// read them, if there is no `configured` file and those of the system can be used.
///
/// # Errors
/// The file without any authority, and why those of the system cannot be used.
pub fn file_for_connectors(configured: Option<&str>) -> Result<Option<String>, (String, String)> {
    match configured {
        Some(file) => Ok(Some(file.to_owned())),
        None => check().map(|()| None).map_err(|reason| (NONE.to_owned(), reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_file_is_used_without_a_look_at_those_of_the_system() {
        assert_eq!(file_for_connectors(Some("/ca.pem")), Ok(Some("/ca.pem".to_owned())));
    }
}
