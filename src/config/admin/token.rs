//! Token files: one token each. Only the digest of a token is kept.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use super::role::Role;

/// The shortest token in characters: 32 hexadecimal digits are 128 bits.
const LENGTH_MIN: usize = 32;
/// The longest token in characters.
const LENGTH_MAX: usize = 1024;
/// The most bytes of a file with spaces and line ends around its token.
const FILE_MAX: u64 = 4096;
/// How to make a token.
const MAKE: &str = "make one with `openssl rand -hex 32`";

/// A token that a caller can present.
#[derive(Clone)]
pub struct Token {
    /// Its name, for the log.
    pub name: String,
    /// The role of its callers.
    pub role: Role,
    /// Its file.
    pub file: PathBuf,
    pub(super) digest: TokenDigest,
}

impl Token {
    /// Whether `presented` is this token, in a time that depends on neither.
    #[must_use]
    pub fn is(&self, presented: &TokenDigest) -> bool {
        self.digest.is_same(presented)
    }

    /// The token with the current content of its file; `None` if it has not changed.
    ///
    /// # Errors
    /// A sentence without any part of the content.
    pub fn again(&self) -> Result<Option<Self>, String> {
        let digest = read(&self.file).map_err(|(problem, _)| problem)?;
        Ok((!digest.is_same(&self.digest)).then(|| Self { digest, ..self.clone() }))
    }
}

/// The SHA-256 of a token.
#[derive(Clone)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of `token`.
    #[must_use]
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        // SHA-256 has 32 bytes, so this copies all of them.
        bytes.iter_mut().zip(digest(&SHA256, token.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// Whether both are equal, in constant time.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// Reads the text of a token file, without spaces and line ends around the token.
///
/// # Errors
/// A sentence without any part of the content, and a hint.
pub fn read_text(path: &Path) -> Result<String, (String, &'static str)> {
    let shown = path.display();
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut content))
        .map_err(|e| (format!("cannot read {shown}: {e}"), "give a file that contains one token"))?;
    let text = std::str::from_utf8(&content).unwrap_or_default().trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    if content.len() as u64 > FILE_MAX || text.len() > LENGTH_MAX {
        return Err((format!("{shown} is longer than a token of at most {LENGTH_MAX} characters"), MAKE));
    }
    if text.len() < LENGTH_MIN {
        return Err((format!("{shown} contains no token of at least {LENGTH_MIN} characters"), MAKE));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err((format!("{shown} contains more than one token, or other characters than visible ASCII"), MAKE));
    }
    Ok(text.to_owned())
}

pub(super) fn read(path: &Path) -> Result<TokenDigest, (String, &'static str)> {
    read_text(path).map(|text| TokenDigest::of(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_file_with_spaces_and_line_ends_around_its_token_is_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let token = "0123456789abcdef0123456789abcdef";
        for content in [token.to_owned(), format!("{token}\n"), format!(" {token}\r\n\n"), format!("\u{feff}{token}\n")]
        {
            std::fs::write(&file, &content).unwrap();
            assert_eq!(read_text(&file).unwrap(), token, "{content:?}");
        }
    }

    #[test]
    fn token_file_without_exactly_one_long_token_is_rejected_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let long = "s".repeat(LENGTH_MAX + 1);
        for (content, problem) in [
            ("", "contains no token of at least 32 characters"),
            ("secret-secret-secret-secret-sec\n", "contains no token of at least 32 characters"),
            ("secret-secret-secret secret-secret-secret", "contains more than one token"),
            ("secret-secret-secret\nsecret-secret-secret", "contains more than one token"),
            ("secret-sécret-secret-secret-secret", "other characters than visible ASCII"),
            (&long, "is longer than a token"),
        ] {
            std::fs::write(&file, content).unwrap();
            let (said, hint) = read_text(&file).unwrap_err();
            assert!(said.contains(problem) && !said.contains("secret") && !said.contains("sss"), "{content}: {said}");
            assert_eq!(hint, MAKE);
        }
        assert!(read_text(&folder.path().join("none")).unwrap_err().0.starts_with("cannot read "));
    }

    #[test]
    fn digests_of_different_tokens_differ() {
        let one = TokenDigest::of("one");
        assert!(one.is_same(&TokenDigest::of("one")) && !one.is_same(&TokenDigest::of("two")));
    }
}
