//! Session tickets with keys from a file, so that several machines resume each other's sessions.
//!
//! A ticket is the name of its key, a nonce, and the session state of the TLS library, sealed with AES-256-GCM
//! (RFC 5116). It is bound to the rules for clients of the listener (see
//! [`ClientAuth`](super::client_auth::ClientAuth)), and contains its own age, because a key may stay in a file
//! longer than a ticket should be valid.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;

use crate::base::fault::{Faults, Place};
use crate::base::text_file;

/// The lifetime of a ticket in seconds: 12 hours, as for the library's own tickets.
const LIFETIME: u32 = 12 * 60 * 60;
const NAME_LENGTH: usize = 16;
const SECRET_LENGTH: usize = 32;
const TIME_LENGTH: usize = size_of::<u64>();

const HINT: &str = "give a file with one key on each line, as `openssl rand -base64 48` makes them; the first one \
                    protects new tickets";

/// One key, and the name by which tickets refer to it.
struct Key {
    name: [u8; NAME_LENGTH],
    secret: RandomizedNonceKey,
}

/// The keys of a file: the first one seals, all of them open.
pub struct Keys(Vec<Key>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ticket keys", self.0.len())
    }
}

/// Reads the keys of a file. Error messages never contain a part of it.
pub(super) fn read(path: &Path, place: &Place, faults: &mut Faults) -> Option<Keys> {
    let mut fault = |problem: String| faults.add(place.clone(), format!("{}: {problem}", path.display()), HINT);
    text_file::read(path).and_then(|text| Keys::parse(text_file::without_mark(&text))).map_err(&mut fault).ok()
}

impl Keys {
    /// Parses keys from lines of base64; empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// The number of the invalid line, or that there is no key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if !line.is_empty() && !line.starts_with('#') {
                keys.push(Key::parse(line).ok_or_else(|| format!("line {number} is not 48 bytes in base64"))?);
            }
        }
        if keys.is_empty() { Err("the file contains no key".to_owned()) } else { Ok(Self(keys)) }
    }

    fn seal(&self, plain: &[u8], rules_hash: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = self.0.first()?;
        let mut sealed = [&now.to_be_bytes(), plain].concat();
        let nonce =
            key.secret.seal_in_place_append_tag(Aad::from(key.associated_data(rules_hash)), &mut sealed).ok()?;
        let ticket = [key.name.as_slice(), nonce.as_ref(), &sealed].concat();
        // TLS has 16 bits for the length of a ticket.
        (ticket.len() <= usize::from(u16::MAX)).then_some(ticket)
    }

    fn open(&self, ticket: &[u8], rules_hash: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LENGTH)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        // Names are not secret, so the comparison need not take constant time.
        let key = self.0.iter().find(|key| key.name == *name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = key.secret.open_in_place(nonce, Aad::from(key.associated_data(rules_hash)), &mut sealed).ok()?;
        let (sealed_at, plain) = opened.split_first_chunk::<TIME_LENGTH>()?;
        let age = now.saturating_sub(u64::from_be_bytes(*sealed_at));
        (age < u64::from(LIFETIME)).then(|| plain.to_vec())
    }
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let bytes = STANDARD.decode(line).ok()?;
        let (name, secret) = bytes.split_first_chunk::<NAME_LENGTH>()?;
        if secret.len() != SECRET_LENGTH {
            return None;
        }
        Some(Self { name: *name, secret: RandomizedNonceKey::new(&AES_256_GCM, secret).ok()? })
    }

    /// The additional authenticated data of a ticket.
    fn associated_data(&self, rules_hash: &[u8]) -> Vec<u8> {
        [self.name.as_slice(), rules_hash].concat()
    }
}

/// The tickets of one listener.
#[derive(Debug)]
pub(super) struct Tickets {
    keys: Arc<Keys>,
    rules_hash: Option<[u8; 32]>,
}

impl Tickets {
    /// Tickets that are valid on listeners with the same keys and the same rules for clients.
    pub(super) fn new(keys: Arc<Keys>, rules_hash: Option<[u8; 32]>) -> Self {
        Self { keys, rules_hash }
    }

    fn rules_hash(&self) -> &[u8] {
        self.rules_hash.as_ref().map_or(&[], <[u8; 32]>::as_slice)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.seal(plain, self.rules_hash(), UnixTime::now().as_secs())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.keys.open(ticket, self.rules_hash(), UnixTime::now().as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(byte: u8) -> String {
        STANDARD.encode([byte; NAME_LENGTH + SECRET_LENGTH])
    }

    fn keys(lines: &[u8]) -> Keys {
        Keys::parse(&lines.iter().map(|byte| line(*byte) + "\n").collect::<String>()).unwrap()
    }

    #[test]
    fn first_key_seals_and_every_key_opens() {
        let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let (before, after) = (old.seal(b"state", b"", 100).unwrap(), both.seal(b"state", b"", 100).unwrap());
        assert_eq!(both.open(&before, b"", 100).unwrap(), b"state");
        assert_eq!(new.open(&after, b"", 100).unwrap(), b"state");
        assert_eq!(new.open(&before, b"", 100), None, "the old key was removed");
        assert_eq!(old.open(&after, b"", 100), None, "the new key was not added yet");
        assert_ne!(old.seal(b"state", b"", 100), Some(before), "a nonce is never reused");
    }

    #[test]
    fn ticket_is_valid_only_for_its_rules_and_lifetime() {
        let keys = keys(&[1]);
        let ticket = keys.seal(b"state", b"rules", 100).unwrap();
        let last = 100 + u64::from(LIFETIME) - 1;
        assert!(keys.open(&ticket, b"rules", last).is_some());
        assert!(keys.open(&ticket, b"rules", last + 1).is_none());
        assert!(keys.open(&ticket, b"other", 100).is_none() && keys.open(&ticket, b"", 100).is_none());
    }

    #[test]
    fn truncated_or_changed_ticket_is_rejected() {
        let keys = keys(&[1]);
        let ticket = keys.seal(b"state", b"", 100).unwrap();
        for length in 0..ticket.len() {
            assert_eq!(keys.open(&ticket[..length], b"", 100), None, "{length}");
        }
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert_eq!(keys.open(&changed, b"", 100), None, "{index}");
        }
        assert_eq!(keys.seal(&vec![0; 65_536], b"", 100), None, "the ticket is too large for TLS");
    }

    #[test]
    fn key_file_is_parsed_strictly_and_never_quoted() {
        let good = line(1);
        assert_eq!(
            format!("{:?}", Keys::parse(&format!("# ours\n\n {good} \r\n{}\n", line(2))).unwrap()),
            "2 ticket keys"
        );
        for (text, problem) in [
            ("".to_owned(), "the file contains no key"),
            ("# none\n".to_owned(), "the file contains no key"),
            (format!("{good}\nsecret!"), "line 2 is not 48 bytes in base64"),
            (STANDARD.encode([1; 47]), "line 1 is not 48 bytes in base64"),
            (STANDARD.encode([1; 80]), "line 1 is not 48 bytes in base64"),
        ] {
            assert_eq!(Keys::parse(&text).unwrap_err(), problem);
        }
    }
}
