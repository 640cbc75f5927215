//! Files with users and hashes of their passwords, as Apache's `htpasswd` writes them.
//!
//! Each line is `USER:HASH`; empty lines and lines with `#` at their start are skipped. Hashes are bcrypt (`$2y$`, `$2b$`,
//! `$2a$`) or SHA-crypt (`$5$`, `$6$`; <https://www.akkadia.org/drepper/SHA-crypt.txt>). Others are too cheap to attack, and
//! are faults.

use std::collections::BTreeMap;
use std::fmt;

use http::HeaderValue;
use sha_crypt::{PasswordVerifier, ShaCrypt};

/// The largest file in bytes.
const FILE_MAX: usize = 16 << 20;
/// The largest cost of bcrypt: a check then takes about four seconds.
const COST_MAX: u32 = 16;
/// The rounds of SHA-crypt that are allowed. The upper limit takes some seconds.
const ROUNDS: std::ops::RangeInclusive<u32> = 1_000..=10_000_000;
/// The longest salt of SHA-crypt.
const SALT_MAX: usize = 16;
/// The faults of a file that are reported.
const FAULTS_MAX: usize = 5;
/// Checked in place of a hash if a file has no users: bcrypt with cost 10, of a random text.
const PLACEHOLDER: &str = "$2y$10$abcdefghijklmnopqrstuu8yriKUhsUnYkCb8RR5ejcEpKxj0EEzy";

/// The hash of a password.
#[derive(Clone, PartialEq, Eq)]
pub enum Hash {
    /// bcrypt.
    Bcrypt(String),
    /// SHA-crypt.
    ShaCrypt(String),
}

impl fmt::Debug for Hash {
    /// Without the hash, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bcrypt(_) => "Bcrypt",
            Self::ShaCrypt(_) => "ShaCrypt",
        })
    }
}

impl Hash {
    /// Parses a hash.
    ///
    /// # Errors
    /// Why it is not allowed, without the hash itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bcrypt = ["$2y$", "$2b$", "$2a$"];
        if bcrypt.iter().any(|prefix| text.starts_with(prefix)) {
            let parts: bcrypt::HashParts = text.parse().map_err(|_| "the bcrypt hash is malformed".to_owned())?;
            return match parts.get_cost() {
                4..=COST_MAX => Ok(Self::Bcrypt(text.to_owned())),
                cost => Err(format!("the cost {cost} of bcrypt is not within 4 to {COST_MAX}")),
            };
        }
        if text.starts_with("$5$") || text.starts_with("$6$") {
            return check_sha_crypt(text).map(|()| Self::ShaCrypt(text.to_owned()));
        }
        Err(match text {
            "" => "the hash is missing".to_owned(),
            _ if text.starts_with("$apr1$") || text.starts_with("$1$") => "MD5 can be broken quickly".to_owned(),
            _ if text.starts_with("{SHA}") => "SHA-1 without a salt can be broken quickly".to_owned(),
            _ if text.starts_with('$') || text.starts_with('{') => "the kind of the hash is unknown".to_owned(),
            _ => "the password is in plain text, or its hash can be broken quickly".to_owned(),
        })
    }

    /// The text, for a key of a cache.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Bcrypt(text) | Self::ShaCrypt(text) => text,
        }
    }

    /// Whether it is the hash of this password. Takes as long as the cost of the hash demands. bcrypt uses the first 72 bytes
    /// of a password.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Self::ShaCrypt(text) => {
                let hash = sha_crypt::PasswordHashRef::new(text);
                hash.is_ok_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok())
            }
        }
    }
}

/// Checks `$5$[rounds=N$]SALT$HASH`.
fn check_sha_crypt(text: &str) -> Result<(), String> {
    let digits = if text.starts_with("$5$") { 43 } else { 86 };
    let malformed = || "the SHA-crypt hash is malformed".to_owned();
    let mut fields: Vec<&str> = text.split('$').skip(2).collect();
    if let Some(rounds) = fields.first().and_then(|field| field.strip_prefix("rounds=")) {
        let rounds: u32 = rounds.parse().map_err(|_| malformed())?;
        if !ROUNDS.contains(&rounds) {
            return Err(format!("{rounds} rounds of SHA-crypt are not within {} to {}", ROUNDS.start(), ROUNDS.end()));
        }
        fields.remove(0);
    }
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'/');
    match fields.as_slice() {
        [salt, hash] if (1..=SALT_MAX).contains(&salt.len()) && hash.len() == digits => {
            if is_plain(salt) && is_plain(hash) { Ok(()) } else { Err(malformed()) }
        }
        _ => Err(malformed()),
    }
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name as a header value.
    pub name: HeaderValue,
    /// The hash of the password.
    pub hash: Hash,
}

/// The users of a file.
#[derive(Debug)]
pub struct Users {
    positions: BTreeMap<String, usize>,
    users: Vec<User>,
    placeholder: Hash,
}

impl Users {
    /// Parses a file.
    ///
    /// # Errors
    /// The faults, each with its line.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() > FILE_MAX {
            return Err(format!("it has {} bytes, more than {FILE_MAX}", bytes.len()));
        }
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        let (mut positions, mut users) = (BTreeMap::new(), Vec::new());
        let mut faults = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if let Err(fault) = add(line.trim_end(), &mut positions, &mut users) {
                faults.push(format!("line {}: {fault}", index.saturating_add(1)));
            }
        }
        if faults.is_empty() {
            return Ok(Self { positions, users, placeholder: Hash::Bcrypt(PLACEHOLDER.to_owned()) });
        }
        let more = faults.len().saturating_sub(FAULTS_MAX);
        faults.truncate(FAULTS_MAX);
        let shown = faults.join("; ");
        Err(if more == 0 { shown } else { format!("{shown}; and {more} more") })
    }

    /// A user.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&User> {
        self.users.get(*self.positions.get(name)?)
    }

    /// The hash to check for an unknown user, so that its check takes as long as that of a known one: that of a user whom
    /// `choice` selects.
    #[must_use]
    pub fn substitute(&self, choice: usize) -> &Hash {
        let index = choice.checked_rem(self.users.len()).unwrap_or_default();
        self.users.get(index).map_or(&self.placeholder, |user| &user.hash)
    }

    /// The number of users.
    #[must_use]
    pub fn count(&self) -> usize {
        self.users.len()
    }
}

/// Adds the user of a line.
fn add(line: &str, positions: &mut BTreeMap<String, usize>, users: &mut Vec<User>) -> Result<(), String> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (name, hash) = line.split_once(':').ok_or("there is no colon after the user")?;
    let value = HeaderValue::from_str(name).ok().filter(|_| !name.is_empty() && name.trim() == name);
    let Some(value) = value else { return Err("the user is not a name".to_owned()) };
    users.push(User { name: value, hash: Hash::parse(hash)? });
    match positions.insert(name.to_owned(), users.len().saturating_sub(1)) {
        None => Ok(()),
        Some(_) => Err(format!("the user `{name}` is listed twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes by crypt(3) and `openssl passwd`, each of `secret`.
    const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";
    const SHA256: &str = "$5$salt1$hiwRZDsUs5wiSMbuDFr5GbCtRQbMvPBo5dnQgQnzb26";
    const SHA512: &str =
        "$6$salt2$ThDVFOJeJjm6w2q5U2NaZXinKgWXMp0Cm0.AIBKKqfpujKx56cdBIiog.SqP1uYCpfQo.yGPBLpXFs9ZT0Y5R.";

    #[test]
    fn hash_by_another_program_is_verified() {
        for text in [BCRYPT, SHA256, SHA512] {
            let hash = Hash::parse(text).unwrap();
            assert!(hash.verify(b"secret"), "{text}");
            for wrong in [&b""[..], b"secre", b"secret ", b"Secret", &[b'x'; 1024]] {
                assert!(!hash.verify(wrong), "{text} {wrong:?}");
            }
        }
        // The examples of the specification of SHA-crypt.
        for (text, password) in [
            ("$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", "Hello world!"),
            (
                "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
                "Hello world!",
            ),
        ] {
            assert!(Hash::parse(text).unwrap().verify(password.as_bytes()), "{text}");
        }
    }

    #[test]
    fn weak_or_malformed_hash_is_a_fault_with_its_line_and_without_the_hash() {
        for (line, fault) in [
            ("a", "there is no colon"),
            (":x", "the user is not a name"),
            ("a:", "the hash is missing"),
            ("a:hunter2", "plain text"),
            ("a:$apr1$salt$hashhashhashhashhashha", "MD5"),
            ("a:$1$salt$hashhashhashhashhashha", "MD5"),
            ("a:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "SHA-1"),
            ("a:$argon2id$v=19$m=65536", "unknown"),
            ("a:$2x$10$abcdefghijklmnopqrstuu8yriKUhsUnYkCb8RR5ejcEpKxj0EEzy", "unknown"),
            ("a:$2y$31$abcdefghijklmnopqrstuu8yriKUhsUnYkCb8RR5ejcEpKxj0EEzy", "the cost 31"),
            ("a:$2y$10$short", "malformed"),
            ("a:$5$rounds=999999999$salt$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "999999999 rounds"),
            ("a:$5$rounds=5000x$salt$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "malformed"),
            ("a:$6$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "malformed"),
            ("a:$5$saltstringsaltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8", "malformed"),
        ] {
            let fault_of = Users::parse(format!("# users\n\n{line}\n").into_bytes()).unwrap_err();
            assert!(fault_of.starts_with("line 3: ") && fault_of.contains(fault), "{line}: {fault_of}");
            assert!(!fault_of.contains("hunter2") && !fault_of.contains("5B8vYYiY"), "{fault_of}");
        }
        let twice = format!("a:{SHA256}\na:{SHA256}\n");
        assert_eq!(Users::parse(twice.into_bytes()).unwrap_err(), "line 2: the user `a` is listed twice");
        let many = "a:x\n".repeat(7);
        assert!(Users::parse(many.into_bytes()).unwrap_err().ends_with("; and 2 more"));
        assert!(Users::parse(vec![0xff]).is_err());
    }

    #[test]
    fn unknown_user_has_the_hash_of_a_known_one_and_an_empty_file_a_hash_of_its_own() {
        let users = Users::parse(format!("a:{SHA256}\r\nb:{SHA512}\n").into_bytes()).unwrap();
        assert_eq!((users.count(), users.get("c")), (2, None));
        assert_eq!([users.substitute(0).text(), users.substitute(3).text()], [SHA256, SHA512]);
        let empty = Users::parse(Vec::new()).unwrap();
        assert!(Hash::parse(empty.substitute(7).text()).is_ok());
        assert!(!empty.substitute(7).verify(b""));
    }
}
