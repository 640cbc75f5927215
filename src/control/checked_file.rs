//! Files of the process's own state: versioned, with a checksum, and replaced as a whole.
//!
//! A file is written under another name that then replaces the old one, so that a crash leaves one of the two. A file
//! that cannot be read, or is not exactly what this module writes, is moved aside and reported.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::base::event::Event;

/// The version of the format.
const VERSION: u32 = 2;
/// The largest file that is read: a hundred thousand overrides have half of it.
const SIZE_MAX: u64 = 64 << 20;

/// A file as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned<T> {
    version: u32,
    /// CRC-32 of the content as compact JSON, in hexadecimal digits.
    checksum: String,
    content: T,
}

/// The content of a file; `None` if it does not exist.
///
/// # Errors
/// Why it cannot be used.
pub fn read<T: Serialize + DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let text = match std::fs::metadata(path) {
        Ok(file) if file.len() > SIZE_MAX => return Err(format!("it has {} bytes, more than {SIZE_MAX}", file.len())),
        Ok(_) => std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("cannot be read: {e}")),
    };
    parse(&text).map(Some)
}

/// The content in the text of a file.
///
/// # Errors
/// Why it cannot be used.
pub fn parse<T: Serialize + DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    #[derive(Deserialize)]
    struct AnyVersion {
        version: u32,
    }
    let damaged = |e: serde_json::Error| format!("damaged: {e}");
    let AnyVersion { version } = serde_json::from_slice(text).map_err(damaged)?;
    if version != VERSION {
        return Err(format!("its version is {version}, not {VERSION}"));
    }
    let file: Versioned<T> = serde_json::from_slice(text).map_err(damaged)?;
    if checksum(&file.content)? != file.checksum {
        return Err("damaged: the checksum differs".to_owned());
    }
    Ok(file.content)
}

/// Replaces the file.
///
/// # Errors
/// If it cannot be written; then the old one stays.
pub fn write<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    let new = with_ending(path, "new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    let checksum = checksum(content).map_err(io::Error::other)?;
    let mut text = serde_json::to_vec_pretty(&Versioned { version: VERSION, checksum, content })?;
    text.push(b'\n');
    file.write_all(&text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    // The name is on disk once the folder is.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn checksum<T: Serialize>(content: &T) -> Result<String, String> {
    let text = serde_json::to_vec(content).map_err(|e| e.to_string())?;
    Ok(format!("{:08x}", crc32fast::hash(&text)))
}

/// Reports a file that cannot be used, and keeps it for the operator under another name.
pub fn set_aside(path: &Path, reason: &str) {
    let aside = with_ending(path, "damaged");
    let kept = match std::fs::rename(path, &aside) {
        Ok(()) => format!("kept as {}", aside.display()),
        Err(e) => format!("and cannot be renamed: {e}"),
    };
    report(path, format!("{reason}; it is ignored, the file is {kept}"));
}

/// Reports a file that cannot be used.
pub fn report(path: &Path, reason: String) {
    Event::StateFileFailed { file: path.display().to_string(), reason }.announce();
}

/// The path with another ending.
#[must_use]
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_file_is_read_again_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(read::<Vec<u8>>(&path), Ok(None), "a missing file");
        write(&path, &vec![1, 2]).unwrap();
        assert_eq!(read(&path), Ok(Some(vec![1, 2])));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no other file stays");
    }

    #[test]
    fn file_with_any_damage_is_rejected_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write(&path, &vec!["one".to_owned(), "two".to_owned()]).unwrap();
        let text = std::fs::read(&path).unwrap();
        for length in 0..text.len() - 2 {
            assert!(parse::<Vec<String>>(&text[..length]).is_err(), "cut after {length} bytes");
        }
        for index in 0..text.len() {
            let mut changed = text.clone();
            changed[index] ^= 1;
            let read = parse::<Vec<String>>(&changed);
            // A changed space means the same.
            assert!(read.is_err() || read == Ok(vec!["one".to_owned(), "two".to_owned()]), "byte {index} changed");
        }
        let later = String::from_utf8(text).unwrap().replace("\"version\": 2", "\"version\": 3");
        assert_eq!(parse::<Vec<String>>(later.as_bytes()), Err("its version is 3, not 2".to_owned()));
    }
}
