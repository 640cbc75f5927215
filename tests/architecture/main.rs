//! Checks of the source tree: import direction, owners of libraries, size of files and folders, language, and that
//! the tables in docs/ name existing tests.
//!
//! `docs/architecture.md` gives the reasons.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod filters;
mod imports;
mod language;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use imports::{Graph, Module, code};

/// The modules in the order of `src/lib.rs`: each may import those before it.
const ORDER: &[&str] = &[
    "base",
    "http",
    "tls",
    "observe",
    "listener",
    "routing",
    "limit",
    "retry",
    "cache",
    "filter",
    "discovery",
    "pool",
    "config",
    "decision",
    "proxy",
    "control",
    "server",
    "cli",
];

/// Imports that the order would allow but the design does not.
const FORBIDDEN: [(&str, &str); 4] =
    [("proxy", "config"), ("listener", "config"), ("listener", "proxy"), ("listener", "pool")];

/// Words that only some modules may say.
const OWNERS: [(&str, &[&str]); 6] = [
    ("use pingora_load_balancing", &["pool", "discovery"]),
    ("use pingora_limits", &["limit"]),
    ("impl ProxyHttp", &["proxy"]),
    ("serde_yaml::from_str", &["config", "discovery"]),
    ("rustls::ServerConfig", &["tls"]),
    ("Server::new_with_opt_and_conf", &["server"]),
];

const LINES_MAX: usize = 500;

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The module that a file below `src` belongs to.
fn module(file: &Path) -> String {
    let below = file.strip_prefix(root().join("src")).unwrap();
    below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn is_test(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem.to_str().unwrap().ends_with("tests"))
}

fn sources() -> Vec<PathBuf> {
    files(&root().join("src")).into_iter().filter(|file| !is_test(file)).collect()
}

fn graph() -> Graph {
    Graph::read(&root().join("src"), &sources())
}

fn layer(module: &str) -> Option<usize> {
    ORDER.iter().position(|known| *known == module)
}

#[test]
fn modules_import_only_modules_before_them() {
    let graph = graph();
    let mut faults = Vec::new();
    for module in graph.files.keys().filter(|module| layer(&module[0]).is_none()) {
        faults.push(format!("`{}` has no place in ORDER", module.join("::")));
    }
    for (from, to) in graph.edges() {
        let (importing, imported) = (from[0].as_str(), to[0].as_str());
        let is_forbidden = layer(imported) > layer(importing) || FORBIDDEN.contains(&(importing, imported));
        if is_forbidden {
            faults.push(format!("`{}` imports `{}`", from.join("::"), to.join("::")));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Folders in which not even files of the same folder import each other.
const ACYCLIC: [&str; 3] = ["pool", "proxy", "listener"];

#[test]
fn files_in_different_folders_do_not_import_each_other() {
    let graph = graph();
    let folder = |module: &Module| graph.files[module].parent().map(Path::to_owned);
    let mut faults = Vec::new();
    for cycle in graph.cycles() {
        let folders: BTreeSet<_> = cycle.iter().map(|module| folder(module)).collect();
        if folders.len() > 1 || cycle.iter().any(|module| ACYCLIC.contains(&module[0].as_str())) {
            faults.push(cycle.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(", "));
        }
    }
    assert!(faults.is_empty(), "import cycles:\n{}", faults.join("\n"));
}

#[test]
fn folders_have_few_entries() {
    for (folder, most) in [("src", 20), ("src/pool", 15)] {
        let count = std::fs::read_dir(root().join(folder)).unwrap().count();
        assert!(count <= most, "{folder} has {count} entries, more than {most}");
    }
}

#[test]
fn every_filter_has_a_page_examples_and_diagnostics() {
    let gaps = filters::gaps(&root());
    assert!(gaps.is_empty(), "{}", gaps.join("\n"));
}

#[test]
fn texts_have_no_banned_phrase() {
    let found = language::banned_phrases(&root());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn each_library_has_its_owner() {
    let mut faults = Vec::new();
    for file in sources() {
        for (word, owners) in OWNERS {
            if code(&file).contains(word) && !owners.contains(&module(&file).as_str()) {
                faults.push(format!("{}: `{word}` belongs to {owners:?}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_say_what_they_are_for_and_stay_short() {
    let mut faults = Vec::new();
    for folder in ["src", "backends", "tests", "benches", "examples", "fuzz/fuzz_targets"] {
        for file in files(&root().join(folder)) {
            let text = std::fs::read_to_string(&file).unwrap();
            if !text.starts_with("//!") {
                faults.push(format!("{}: does not open with what it is for", file.display()));
            }
            if text.lines().count() > LINES_MAX {
                faults.push(format!("{}: longer than {LINES_MAX} lines", file.display()));
            }
            let stem = file.file_stem().unwrap().to_str().unwrap();
            if ["util", "utils", "helper", "helpers", "common", "manager"].contains(&stem) {
                faults.push(format!("{}: a name that says nothing", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn there_is_no_static_but_the_allocator() {
    for file in sources() {
        let statics = code(&file)
            .lines()
            .filter(|line| line.trim_start().starts_with("static ") || line.contains("pub static "))
            .count();
        let allowed = usize::from(file.ends_with("src/main.rs"));
        assert_eq!(statics, allowed, "{}", file.display());
    }
}

/// `body_filters::respond` takes a cause, so no response of l7lb itself is without one.
#[test]
fn responses_of_l7lb_itself_are_written_in_one_place_that_takes_a_cause() {
    let writes = |file: &PathBuf| module(file) == "proxy" && code(file).contains("client.respond(");
    let writers: Vec<PathBuf> = sources().into_iter().filter(writes).collect();
    assert_eq!(writers, [root().join("src/proxy/body_filters.rs")]);
}

/// The text of every file with tests.
fn tests() -> String {
    let files = ["src", "tests"].iter().flat_map(|folder| files(&root().join(folder)));
    files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// What stands between backticks in a line.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Every row of the tables in docs/security.md names tests in its last column, and all of them exist.
#[test]
fn every_promise_of_security_has_its_tests() {
    let page = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let tests = tests();
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule ") && !line.starts_with("| attack "))
        .filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next())
        .collect();
    assert!(rows.len() >= 35, "the tables are there");
    for row in rows {
        assert!(!quoted(row).is_empty(), "no test in: {row}");
        for name in quoted(row) {
            assert!(tests.contains(&format!("fn {name}(")), "{name} does not exist");
        }
    }
}

/// Every row of the table in docs/features.md names a test, and the test exists.
#[test]
fn every_feature_has_a_test() {
    let page = std::fs::read_to_string(root().join("docs/features.md")).unwrap();
    let tests = tests();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains("](")).collect();
    assert!(rows.len() >= 60, "the table is there");
    for row in rows {
        let mut named = quoted(row);
        named.retain(|word| tests.contains(&format!("fn {word}(")));
        assert!(!named.is_empty(), "no existing test is named in: {row}");
        for link in row.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            assert!(root().join("docs").join(link).exists(), "{link} in: {row}");
        }
    }
}
