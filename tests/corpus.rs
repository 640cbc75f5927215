//! Runs the committed fuzzing corpus through the properties of the fuzz targets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a panic fails the test; properties need a current instant"
)]

#[path = "../fuzz/properties.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets use these items")]
mod properties;

use std::path::{Path, PathBuf};

const FILES_MAX: usize = 60;
const BYTES_MAX: usize = 60 * 1024;

#[test]
fn every_corpus_input_satisfies_its_property() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, property) in properties::ALL {
        let inputs = inputs(&corpus.join(name));
        assert!(
            (1..=FILES_MAX).contains(&inputs.len()),
            "{name} has {} inputs; allowed are 1 to {FILES_MAX}",
            inputs.len()
        );
        assert!(
            inputs.iter().map(|(_, data)| data.len()).sum::<usize>() <= BYTES_MAX,
            "the corpus of {name} exceeds {BYTES_MAX} bytes"
        );
        for (file, data) in inputs {
            // `cargo test` shows the name only if the property panics.
            println!("{}", file.display());
            property(&data);
        }
    }
}

#[test]
fn every_property_has_a_fuzz_target_and_a_row_in_the_readme() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let readme = std::fs::read_to_string(fuzz.join("README.md")).unwrap();
    let targets = std::fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count();
    assert_eq!(targets, properties::ALL.len(), "targets and properties differ in number");
    for (name, _) in properties::ALL {
        assert!(fuzz.join("fuzz_targets").join(name).with_extension("rs").exists(), "{name} has no fuzz target");
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not in the README");
    }
}

fn inputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}
