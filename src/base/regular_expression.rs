//! Regular expressions of the configuration, with limits of their size. Matching takes linear time.

use regex::{Regex, RegexBuilder, bytes};

use super::fault::{Faults, Place};

/// The largest compiled regular expression in bytes.
const COMPILED_MAX: usize = 262_144;
/// The longest regular expression in bytes.
const PATTERN_MAX: usize = 4096;
/// The deepest nesting of groups.
const NESTING_MAX: u32 = 50;

/// A regular expression for text; a fault is reported at `place`.
pub fn compile(pattern: &str, place: &Place, faults: &mut Faults) -> Option<Regex> {
    let mut builder = RegexBuilder::new(pattern);
    let builder = builder.size_limit(COMPILED_MAX).dfa_size_limit(COMPILED_MAX).nest_limit(NESTING_MAX);
    checked(pattern, || builder.build(), place, faults)
}

/// A regular expression for bytes; a fault is reported at `place`.
pub fn compile_for_bytes(pattern: &str, place: &Place, faults: &mut Faults) -> Option<bytes::Regex> {
    let mut builder = bytes::RegexBuilder::new(pattern);
    let builder = builder.size_limit(COMPILED_MAX).dfa_size_limit(COMPILED_MAX).nest_limit(NESTING_MAX);
    checked(pattern, || builder.build(), place, faults)
}

fn checked<R>(
    pattern: &str,
    build: impl FnOnce() -> Result<R, regex::Error>,
    place: &Place,
    faults: &mut Faults,
) -> Option<R> {
    const EXAMPLE: &str = "write for example ^[0-9]+$";
    const SIMPLER: &str = "write a shorter one, with smaller repetitions";
    let (problem, hint) = if pattern.is_empty() {
        ("the regular expression is empty".to_owned(), EXAMPLE)
    } else if pattern.len() > PATTERN_MAX {
        (format!("the regular expression has more than {PATTERN_MAX} bytes"), SIMPLER)
    } else {
        match build() {
            Ok(regex) => return Some(regex),
            Err(regex::Error::CompiledTooBig(_)) => ("the regular expression is too large".to_owned(), SIMPLER),
            Err(e) => {
                let text = e.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                (format!("`{pattern}` is not a regular expression: {reason}"), EXAMPLE)
            }
        }
    };
    faults.add(place.clone(), problem, hint);
    None
}
