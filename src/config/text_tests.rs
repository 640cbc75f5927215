//! Files as editors write them: byte-order marks, encodings, and indentation with tabs.

use super::load;
use super::redacted::RedactedConfig;

const MARK: &str = "\u{feff}";

fn problems(text: &str) -> Vec<String> {
    let Err(diagnostics) = load::parse(text, "f", &|_| None) else { panic!("{text:?} is accepted") };
    diagnostics.iter().map(|d| format!("{d}")).collect()
}

#[test]
fn configuration_with_a_byte_order_mark_is_read_and_its_positions_are_unchanged() {
    let good = "listeners: 8080\npools: { p: { backends: 8081 } }\nroutes: { path: /, pool: p }\n";
    let loaded = load::read(&format!("{MARK}{good}"), "f", &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
    let shown = RedactedConfig::of(&loaded.source);
    assert_eq!(shown.written["listeners"], 8080);
    let plain = load::read(good, "f", &|_| None).unwrap_or_else(|e| panic!("{e:?}"));
    assert_ne!(shown.sha256, RedactedConfig::of(&plain.source).sha256, "the hash is that of the file");
    for bad in ["bogus: 1\n", "listeners: [\n", "a: 1\na: 2\n"] {
        assert_eq!(problems(&format!("{MARK}{bad}")), problems(bad));
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{MARK}{good}")).unwrap();
    assert!(load::open(file.path()).is_ok());
    std::fs::write(file.path(), format!("{MARK}server: {{ threads: 7 }}\n")).unwrap();
    assert_eq!(load::server(Some(file.path())).map(|server| server.threads).unwrap_or_default(), 7);
}

#[test]
fn tab_in_the_indentation_is_named_with_its_position() {
    for (text, line, column) in [
        ("listeners:\n\t- address: 0.0.0.0:80\n", 2, 1),
        ("pools:\n  p:\n\tbackends: [a:1]\n", 3, 1),
        ("pools:\n  p:\n  \tbackends: [a:1]\n", 3, 3),
        ("pools:\n  p:\n    protocol: h2c\n\t\tbackends: [a:1]\n", 4, 1),
        ("pools:\n  p:\n    balance: random\n\tbackends:\n      - a:1\n", 4, 1),
        ("routes:\n  - path: /\n\tpool: p\n", 3, 1),
    ] {
        let said = problems(text);
        let expected =
            format!("f:{line}:{column}: error: the line is indented with a tab, and YAML allows only spaces");
        assert!(said.len() == 1 && said[0].starts_with(&expected), "{text:?}: {said:?}");
        assert!(said[0].contains("expand -t 2"), "{said:?}");
    }
    assert!(!problems("a: [\tb\n")[0].contains("a tab"), "a tab elsewhere is not the fault");
}

#[test]
fn key_with_a_no_break_space_is_named() {
    let said = problems("listeners: 80\nroutes:\n\u{a0}\u{a0}- path: /\n");
    assert!(
        said.iter().any(|d| d.contains("f:3:1: error") && d.contains("the key `- path` contains a no-break space")),
        "{said:?}"
    );
}

#[test]
fn text_that_yaml_reads_as_something_else_gets_a_hint_to_quote_it() {
    for (text, hint) in [
        ("routes:\n  - { host: *.example.com, path: / }\n", "for example \"*.example.com\""),
        ("routes:\n  - path: /\n    host: *.example.com\n", "for example \"*.example.com\""),
        ("routes:\n  - host: *\n    path: /\n", "for example \"*.example.com\""),
        ("listeners: [{ address: [::]:8080 }]\n", "for example \"[::]:8080\""),
        ("listeners:\n  - address: [::]:8080\n", "for example \"[::]:8080\""),
        ("routes:\n  - { path: @api }\n", "put the text in quotes"),
        ("routes:\n  - path: `/api`\n", "put the text in quotes"),
    ] {
        let said = problems(text);
        assert!(said.len() == 1 && said[0].contains(hint), "{text:?}: {said:?}");
    }
}
