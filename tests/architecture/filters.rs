//! What each filter has besides its code: pages, examples, diagnostics. The list of filters comes from the schema.

use std::path::Path;

use serde_json::Value;

/// The names of all filters.
fn names(root: &Path) -> Vec<String> {
    let schema: Value = serde_json::from_str(&read(root, "conf/schema.json")).unwrap();
    let items = &schema["properties"]["filters"]["anyOf"][0]["items"]["properties"];
    items.as_object().unwrap().keys().filter(|name| *name != "chain").cloned().collect()
}

fn read(root: &Path, file: &str) -> String {
    std::fs::read_to_string(root.join(file)).unwrap_or_default()
}

/// The texts of all files of a folder with this ending.
fn all(root: &Path, folder: &str, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|known| known == ending));
    files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// The complete YAML examples of a page.
fn examples(page: &str) -> impl Iterator<Item = &str> {
    page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next())
}

/// What the filters lack; empty if each is complete.
pub(crate) fn gaps(root: &Path) -> Vec<String> {
    let overview = read(root, "docs/configuration/filters.md");
    let (features, changes) = (read(root, "docs/features.md"), read(root, "CHANGELOG.md"));
    let (reference, everything) = (read(root, "conf/reference.yaml"), read(root, "tests/config/good/everything.yaml"));
    let diagnostics = all(root, "tests/config/bad", "expected");
    let agreement = read(root, "tests/it/filters/agreement.rs");
    let names = names(root);
    assert!(names.len() >= 16, "{names:?}");
    let mut gaps = Vec::new();
    for name in names {
        let row = format!("| [`{name}`](");
        let link = overview.split(&row).nth(1).and_then(|rest| rest.split([')', '#']).next()).unwrap_or("none");
        let page = read(root, &format!("docs/configuration/{link}"));
        let has_example = examples(&page).any(|it| it.contains("\ntests:") && it.contains(&format!("{name}:")));
        let in_diagnostics = |text: &String| text.contains(&format!("].{name}"));
        let feature =
            |line: &str| line.contains(&format!("`{name}`")) || line.contains(&format!("src/filter/{name}.rs"));
        for (present, what) in [
            (!page.is_empty(), "a row with its page in docs/configuration/filters.md"),
            (page.contains(&format!("| `{name}` |")), "its key in a table of its page"),
            (has_example, "an example with tests on its page"),
            (page.contains("## In other proxies"), "its equivalents in other proxies on its page"),
            (features.lines().any(|line| line.starts_with("| ") && feature(line)), "a row in docs/features.md"),
            (changes.contains(&format!("`{name}`")), "an entry in CHANGELOG.md"),
            (reference.contains(&format!("- {name}:")), "an entry in conf/reference.yaml"),
            (everything.contains(&format!("{name}:")), "a use in tests/config/good/everything.yaml"),
            (diagnostics.iter().any(in_diagnostics), "a fault in tests/config/bad"),
            (root.join(format!("src/filter/{name}.rs")).exists(), "a file in src/filter"),
            (agreement.contains(&format!("{name}: ")), "a route in tests/it/filters/agreement.rs"),
        ] {
            if !present {
                gaps.push(format!("the filter `{name}` lacks {what}"));
            }
        }
    }
    gaps
}
