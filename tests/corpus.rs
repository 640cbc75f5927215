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

/// Pieces that are special to some parser.
const PIECES: [&[u8]; 36] = [
    b"${",
    b"}",
    b"$${",
    b"$",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b"%00",
    b"%2e",
    b"%2F",
    b"%5c",
    b"%",
    b"%25",
    b"..",
    b".",
    b"/",
    b"//",
    b"\\",
    b"?",
    b"#",
    b"&",
    b"=",
    b";",
    b",",
    b":",
    b"@",
    b"*",
    b"q=0",
    b";q=1",
    b"\xff",
    b"\xc3\xa9",
    b"request.",
    b"request.header.x-v",
];

/// An input with one to eight random changes.
fn mutated(random: &mut fastrand::Rng, inputs: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut data = inputs[random.usize(..inputs.len())].1.clone();
    for _ in 0..random.usize(1..9) {
        let at = random.usize(..=data.len());
        let end = (at + random.usize(..9)).min(data.len());
        match random.u8(..7) {
            0 if at < data.len() => data[at] ^= 1 << random.u8(..8),
            1 => data.insert(at, random.u8(..)),
            2 => drop(data.drain(at..end)),
            3 => drop(data.splice(at..at, data[at..end].to_vec())),
            4 => {
                let other = &inputs[random.usize(..inputs.len())].1;
                let from = random.usize(..=other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ => drop(data.splice(at..at, PIECES[random.usize(..PIECES.len())].iter().copied())),
        }
    }
    data
}

#[test]
fn mutated_corpus_inputs_satisfy_their_properties() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let (count, seed, only) =
        (number("MUTATIONS").unwrap_or(300), number("SEED").unwrap_or(1), std::env::var("PROPERTY").ok());
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, property) in properties::ALL {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let mut inputs = inputs(&corpus.join(name));
        inputs.sort();
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..count {
            let data = mutated(&mut random, &inputs);
            let result = std::panic::catch_unwind(|| property(&data));
            assert!(result.is_ok(), "{name} does not hold for \"{}\"", data.escape_ascii());
        }
        println!("{name}: {count} inputs");
    }
}

fn inputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    files.map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}
