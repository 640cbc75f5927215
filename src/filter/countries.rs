//! The country of an address, by a file in the MaxMind DB format (version 2), such as GeoLite2 Country.
//!
//! The format: <https://maxmind.github.io/MaxMind-DB/>. The code of a country is `country.iso_code`, as in the files of
//! MaxMind and DB-IP, or `country_code`, as in those of `IPinfo`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use maxminddb::{PathElement, Reader};

use super::watched_file::Watched;

/// The code of a country by ISO 3166-1 alpha-2, in capital letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl FromStr for Country {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match *text.as_bytes() {
            [one, two] if one.is_ascii_uppercase() && two.is_ascii_uppercase() => Ok(Self([one, two])),
            _ => Err(()),
        }
    }
}

/// The countries of addresses.
pub struct Countries(Reader<Vec<u8>>);

impl fmt::Debug for Countries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Countries").field(&self.0.metadata().database_type).finish()
    }
}

impl Countries {
    /// Parses and verifies a whole file, so that later lookups find no damage.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        let reader = Reader::from_source(bytes).map_err(|e| format!("not a file in the MaxMind DB format: {e}"))?;
        reader.verify().map_err(|e| format!("damaged: {e}"))?;
        Ok(Self(reader))
    }

    /// The country of an address; `None` if the file does not have it.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<Country> {
        let found = self.0.lookup(address).ok()?;
        let at = |path: &[PathElement<'_>]| found.decode_path::<&str>(path).ok().flatten()?.parse().ok();
        at(&[PathElement::Key("country"), PathElement::Key("iso_code")])
            .or_else(|| at(&[PathElement::Key("country_code")]))
    }
}

/// A file, or why it cannot be used.
type Opened = Result<Arc<Watched<Countries>>, String>;

/// The files that a configuration uses, each read once.
#[derive(Debug, Default)]
pub struct CountryFiles(RefCell<BTreeMap<PathBuf, Opened>>);

impl CountryFiles {
    /// The contents of a file.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(&self, file: &Path) -> Opened {
        let mut files = self.0.borrow_mut();
        let read = || Watched::open(file, Countries::parse).map(Arc::new);
        files.entry(file.to_owned()).or_insert_with(read).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/countries.mmdb")).unwrap()
    }

    #[test]
    fn country_of_an_address_is_found_in_both_families() {
        let countries = Countries::parse(fixture()).unwrap();
        for (address, country) in [
            ("192.0.2.1", Some("DE")),
            ("192.0.2.200", Some("DE")),
            ("198.51.100.7", Some("US")),
            ("203.0.113.9", Some("FR")),
            ("2001:db8::1", Some("DE")),
            ("127.0.0.1", Some("AT")),
            ("10.0.0.1", None),
            ("2001:db9::1", None),
        ] {
            let found = countries.of(address.parse().unwrap());
            assert_eq!(found, country.map(|code| code.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn damaged_file_is_rejected_or_still_safe() {
        let bytes = fixture();
        for length in 0..bytes.len() {
            assert!(Countries::parse(bytes[..length].to_vec()).is_err(), "cut after {length} bytes");
        }
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 0x55;
            // A changed byte may be a letter of a text, but no lookup panics or runs for ever.
            if let Ok(countries) = Countries::parse(changed) {
                std::hint::black_box(countries.of(IpAddr::from([192, 0, 2, 1])));
                std::hint::black_box(countries.of(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])));
            }
        }
        assert!(Countries::parse(Vec::new()).is_err());
    }

    #[test]
    fn file_is_read_once_for_a_configuration() {
        let files = CountryFiles::default();
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/countries.mmdb"));
        let (one, two) = (files.open(file).unwrap(), files.open(file).unwrap());
        assert!(Arc::ptr_eq(&one, &two));
        assert!(files.open(Path::new("missing.mmdb")).is_err());
    }

    #[test]
    fn code_of_a_country_has_two_capital_letters() {
        for text in ["", "D", "de", "DEU", "D1", "ÄÖ"] {
            assert!(text.parse::<Country>().is_err(), "{text}");
        }
    }
}
