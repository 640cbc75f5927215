//! Phrases that the project does not use, because a reader needs to read them twice.
//!
//! Write instead: the name of the subject ("a client", "a request"), the standard term ("rejected", "attempt",
//! "active configuration"), and what happens.

use std::path::{Path, PathBuf};

/// Phrases in lower case. A match starts and ends at a word boundary.
const BANNED: &[&str] = &[
    // Things and programs do not speak.
    "is told",
    "are told",
    "tells",
    "says no",
    "says so",
    "speaks for itself",
    // The subject is missing.
    "nobody",
    "somebody",
    "anybody",
    "whoever",
    "who asks",
    "who waits",
    "what is written",
    "what cannot be",
    // Invented terms.
    "in force",
    "front door",
    "looks after",
    "knows nothing of",
    "sent away",
    "stands in line",
    "is well",
    "is ill",
    // Figures of speech.
    "anew",
    "by and by",
    "in peace",
    "as much as it may",
    "dearest",
];

/// The extensions of the files that people read.
const EXTENSIONS: &[&str] = &["rs", "md", "yaml", "yml", "toml", "json", "sh"];

/// Where to look, below the root of the project.
const FOLDERS: &[&str] = &[
    "src",
    "tests",
    "docs",
    "conf",
    "backends",
    "benches",
    "examples",
    "fuzz",
    "dashboards",
    "certs",
    "README.md",
    "CHANGELOG.md",
    "Cargo.toml",
    "docker-compose.yml",
];

/// Every place with a banned phrase, as `file:line: phrase`.
pub(crate) fn banned_phrases(root: &Path) -> Vec<String> {
    let banned: Vec<String> = BANNED.iter().map(|phrase| words(phrase)).collect();
    let mut found = Vec::new();
    for file in FOLDERS.iter().flat_map(|folder| texts(&root.join(folder))) {
        if file.ends_with(file!()) {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            let line = words(line);
            for phrase in banned.iter().filter(|phrase| line.contains(*phrase)) {
                found.push(format!("{}:{}: `{}`", file.display(), number + 1, phrase.trim()));
            }
        }
    }
    found
}

/// The words of `text` in lower case, each between spaces. An underscore separates words, so names count too.
fn words(text: &str) -> String {
    let mut words = String::from(" ");
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty()) {
        words.push_str(&word.to_lowercase());
        words.push(' ');
    }
    words
}

fn texts(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        return entries.filter(|entry| !entry.ends_with("corpus")).flat_map(|entry| texts(&entry)).collect();
    }
    let is_text = path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
    if is_text { vec![path.to_owned()] } else { Vec::new() }
}
