//! The verified identity of a client, in the form of the headers for backends.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

use super::certificates::hexadecimal;

/// The verified identity of a client; computed once per connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The subject in the format of RFC 4514, in ASCII: `CN=alice,O=Example`.
    pub subject: HeaderValue,
    /// SHA-256 of the certificate (DER) in lower-case hexadecimal digits.
    pub fingerprint: HeaderValue,
    /// The serial number in lower-case hexadecimal digits.
    pub serial: HeaderValue,
    expires: SystemTime,
}

impl ClientIdentity {
    /// The identity in a verified certificate.
    ///
    /// # Errors
    /// A message, if the certificate cannot be parsed.
    pub(super) fn of(der: &[u8]) -> Result<Self, String> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|e| format!("client certificate: {e}"))?;
        let expires = u64::try_from(parsed.validity.not_after.timestamp()).unwrap_or(0);
        let value = |text: &str| HeaderValue::from_str(text).map_err(|e| format!("client certificate: {e}"));
        Ok(Self {
            subject: value(&distinguished_name(parsed.subject()))?,
            fingerprint: value(&hexadecimal(digest(&SHA256, der).as_ref()))?,
            serial: value(&hexadecimal(parsed.raw_serial()))?,
            expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
        })
    }

    /// An identity for tests.
    #[cfg(test)]
    pub(crate) fn for_tests(subject: &str, fingerprint: &str) -> Self {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let expires = SystemTime::UNIX_EPOCH;
        Self { subject: value(subject), fingerprint: value(fingerprint), serial: value("01"), expires }
    }

    /// Whether the certificate has expired. A resumed session carries it without verification.
    pub(super) fn has_expired(&self, now: SystemTime) -> bool {
        self.expires < now
    }
}

/// The names in a certificate: the common name, and its DNS names, e-mail addresses and URIs.
pub(super) fn certificate_names(der: &[u8]) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return Vec::new() };
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned));
    let mut names: Vec<String> = common.collect();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
                Some((*name).to_owned())
            }
            _ => None,
        }));
    }
    names
}

/// A name in the format of RFC 4514 §2: the last part first, special characters escaped. Bytes beyond ASCII are
/// escaped too (§2.4), so the text is a valid header value.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let parts = parts.iter().rev().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"));
    parts.collect::<Vec<_>>().join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let identifier = attribute.attr_type();
    let name = oid2abbrev(identifier, oid_registry()).map_or_else(|_| identifier.to_id_string(), str::to_owned);
    match attribute.as_str() {
        Ok(value) => format!("{name}={}", escaped(value)),
        Err(_) => format!("{name}=#{}", hexadecimal(attribute.as_slice())),
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for (index, byte) in value.bytes().enumerate() {
        let edge = (index == 0 && (byte == b' ' || byte == b'#')) || (index + 1 == value.len() && byte == b' ');
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' | b'=' => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' if edge => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            // Writing to a String cannot fail.
            other => write!(text, "\\{other:02X}").unwrap_or(()),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

    fn identity(parts: &[(DnType, &str)]) -> ClientIdentity {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.serial_number = Some(vec![0x0a, 0xff].into());
        params.not_after = date_time_ymd(2030, 1, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientIdentity::of(certificate.der()).unwrap()
    }

    #[test]
    fn special_characters_in_subjects_are_escaped() {
        for (parts, written) in [
            (vec![(DnType::OrganizationName, "Example"), (DnType::CommonName, "alice")], "CN=alice,O=Example"),
            (vec![(DnType::CommonName, "alice,O=Admins")], r"CN=alice\,O\=Admins"),
            (vec![(DnType::CommonName, " #a\"+;<>\\ ")], r#"CN=\ #a\"\+\;\<\>\\\ "#),
            (vec![(DnType::CommonName, "#1")], r"CN=\#1"),
            (vec![(DnType::CommonName, "a\r\nX-Admin: 1")], r"CN=a\0D\0AX-Admin: 1"),
            (vec![(DnType::CommonName, "Zoë")], r"CN=Zo\C3\AB"),
            (vec![], ""),
        ] {
            assert_eq!(identity(&parts).subject, written);
        }
    }

    #[test]
    fn identity_has_serial_fingerprint_and_expiry_of_the_certificate() {
        let identity = identity(&[(DnType::CommonName, "alice")]);
        assert_eq!(identity.serial, "0aff");
        assert_eq!(identity.fingerprint.len(), 64);
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000);
        assert!(!identity.has_expired(end) && identity.has_expired(end + Duration::from_secs(1)));
    }

    #[test]
    fn invalid_certificate_is_an_error() {
        assert!(ClientIdentity::of(b"").is_err() && ClientIdentity::of(&[0x30, 0]).is_err());
    }
}
