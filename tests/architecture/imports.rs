//! The import graph of `src`: which file imports which, and the cycles in it.
//!
//! A file imports another one if it names a path of it: in a `use`, or in an expression that starts with
//! `crate`, `super`, or the name of a child module. Code for tests and comments do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The path of a module below the crate, such as `["pool", "endpoint"]`.
pub(crate) type Module = Vec<String>;

/// The files below `src` and their imports.
pub(crate) struct Graph {
    /// The file of each module.
    pub(crate) files: BTreeMap<Module, PathBuf>,
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

impl Graph {
    /// Reads `files`, which are below `src`.
    pub(crate) fn read(src: &Path, files: &[PathBuf]) -> Self {
        let files: BTreeMap<Module, PathBuf> =
            files.iter().filter_map(|file| Some((module(src, file)?, file.clone()))).collect();
        let imports = files
            .iter()
            .map(|(module, file)| {
                let paths = paths(&code(file));
                let targets = paths.iter().filter_map(|path| target(&files, module, path));
                (module.clone(), targets.filter(|target| target != module).collect())
            })
            .collect();
        Self { files, imports }
    }

    /// Every import, as the importing and the imported module.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (&Module, &Module)> {
        self.imports.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)))
    }

    /// The groups of files that import each other, directly or through other files.
    pub(crate) fn cycles(&self) -> Vec<BTreeSet<&Module>> {
        let reachable: BTreeMap<&Module, BTreeSet<&Module>> =
            self.files.keys().map(|from| (from, self.reachable(from))).collect();
        let mut cycles = BTreeSet::new();
        for (from, targets) in &reachable {
            let cycle: BTreeSet<&Module> =
                targets.iter().copied().filter(|to| reachable[*to].contains(*from)).collect();
            if cycle.len() > 1 {
                cycles.insert(cycle);
            }
        }
        cycles.into_iter().collect()
    }

    fn reachable<'a>(&'a self, from: &'a Module) -> BTreeSet<&'a Module> {
        let mut seen = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            open.extend(self.imports[module].iter().filter(|to| seen.insert(*to)));
        }
        seen
    }
}

/// The module of a file. `None` for the roots of the crates.
fn module(src: &Path, file: &Path) -> Option<Module> {
    let below = file.strip_prefix(src).unwrap().with_extension("");
    let mut names: Module = below.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    if names.last().is_some_and(|name| name == "mod") {
        names.pop();
    }
    (names != ["lib"] && names != ["main"]).then_some(names)
}

/// The text of a file without comments, without its test module, and without the paths of restricted visibility.
pub(crate) fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| without_visibility(line) + "\n").collect()
}

/// Removes the path in `pub(in path)`, which is not an import.
fn without_visibility(line: &str) -> String {
    match line.split_once("pub(in ").and_then(|(before, rest)| Some((before, rest.split_once(')')?.1))) {
        Some((before, after)) => format!("{before}pub{after}"),
        None => line.to_owned(),
    }
}

/// Every path that a text names, with `use` trees expanded.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for part in code.split("use ").skip(1) {
        expand(&[], part.split(';').next().unwrap(), &mut paths);
    }
    for word in code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        let names: Vec<String> = word.split("::").map(str::to_owned).collect();
        // A word that ends in `::` starts a tree, which is expanded above.
        if names.len() > 1 && !word.ends_with("::") {
            paths.push(names);
        }
    }
    paths
}

/// Expands `a::{b, c::{d, e}}` into its paths.
fn expand(prefix: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    let (head, inner) = match tree.split_once('{') {
        Some((head, inner)) => (head, Some(inner.rsplit_once('}').map_or(inner, |(inner, _)| inner))),
        None => (tree.split(" as ").next().unwrap(), None),
    };
    let names = head.split("::").map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let path: Vec<String> = prefix.iter().cloned().chain(names).collect();
    let Some(inner) = inner else {
        return paths.push(path);
    };
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                expand(&path, &inner[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner[start..].trim().is_empty() {
        expand(&path, &inner[start..], paths);
    }
}

/// The module that `path` belongs to, as named in `from`.
fn target(files: &BTreeMap<Module, PathBuf>, from: &Module, path: &[String]) -> Option<Module> {
    let up = path.iter().take_while(|name| *name == "super").count();
    let mut full: Module = match path.first().map(String::as_str)? {
        "crate" => path[1..].to_vec(),
        "self" => from.iter().chain(&path[1..]).cloned().collect(),
        "super" => from[..from.len().saturating_sub(up)].iter().chain(&path[up..]).cloned().collect(),
        _ => {
            let full: Module = from.iter().chain(path).cloned().collect();
            files.contains_key(&full[..=from.len()]).then_some(full)?
        }
    };
    while !full.is_empty() && !files.contains_key(&full) {
        full.pop();
    }
    (!full.is_empty()).then_some(full)
}
