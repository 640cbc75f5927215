//! Every input that the fuzzer found worth keeping, through the properties that it tries to break.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on fails; an instant to start from"
)]

#[path = "../fuzz/properties.rs"]
#[allow(unreachable_pub, reason = "the fuzz targets reach it")]
mod properties;

use std::path::{Path, PathBuf};

const FILES_MAX: usize = 60;
const BYTES_MAX: usize = 60 * 1024;

#[test]
fn every_kept_input_holds_what_its_property_says() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, property) in properties::ALL {
        let inputs = inputs(&corpus.join(name));
        assert!((1..=FILES_MAX).contains(&inputs.len()), "{name} has {} files", inputs.len());
        assert!(inputs.iter().map(|(_, data)| data.len()).sum::<usize>() <= BYTES_MAX, "{name} is too large");
        for (file, data) in inputs {
            // Seen only if the property panics.
            println!("{}", file.display());
            property(&data);
        }
    }
}

#[test]
fn each_property_has_a_target_and_a_place_in_the_readme() {
    let fuzz = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let readme = std::fs::read_to_string(fuzz.join("README.md")).unwrap();
    let targets = std::fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count();
    assert_eq!(targets, properties::ALL.len(), "a target without a property, or the other way round");
    for (name, _) in properties::ALL {
        assert!(fuzz.join("fuzz_targets").join(name).with_extension("rs").exists(), "{name}");
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
}

fn inputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}
