//! Files with backends: their forms and their faults.

use super::super::Found;
use super::*;

async fn read(text: &str) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backends.yaml");
    std::fs::write(&path, text).unwrap();
    let source = FileSource::new(Spec { path });
    let (found, _) = source.discover().await.map_err(|e| super::super::reason(&e))?;
    let describe = |found: &Found| {
        let Found { address, weight, backup, drain, zone, labels } = found;
        let zone = zone.as_ref().map_or("-", |zone| zone.as_str());
        format!("{address} {weight} {backup} {drain} {zone} {labels}")
    };
    Ok(super::super::found(&found).iter().map(describe).collect())
}

#[tokio::test]
async fn every_form_of_the_file_is_read() {
    let expected = ["127.0.0.1:1 1 false false - ", "127.0.0.1:2 5 true true z team=a"];
    for text in [
        "- 127.0.0.1:1\n- { address: '127.0.0.1:2', weight: 5, backup: true, drain: true, zone: z, labels: { team: a } }\n",
        "backends:\n  - address: 127.0.0.1:1\n  - { address: 127.0.0.1:2, weight: 5, backup: true, drain: true, zone: z, labels: { team: a } }",
        "\u{feff}[\"127.0.0.1:1\", {\"address\": \"127.0.0.1:2\", \"weight\": 5, \"backup\": true, \"drain\": true, \"zone\": \"z\", \"labels\": {\"team\": \"a\"}}]",
    ] {
        assert_eq!(read(text).await.as_deref(), Ok(&expected.map(str::to_owned)[..]), "{text}");
    }
    assert_eq!(read("[]").await, Ok(Vec::new()));
    assert!(!read("- localhost:9").await.unwrap().is_empty());
}

#[tokio::test]
async fn fault_in_the_file_is_reported_with_line_and_column() {
    for (text, problem) in [
        ("- 127.0.0.1:1\n- nonsense\n", "`nonsense` has no port"),
        ("- 127.0.0.1:1\n- nonsense\n", "at line 2 column 3"),
        ("- address: 127.0.0.1:1\n  wieght: 3\n", "unknown field `wieght`"),
        ("- address: 127.0.0.1:1\n  weight: 1001\n", "the weight 1001 is more than 1000 at line 1 column 3"),
        ("- address: 127.0.0.1:1\n  labels: { a: \"\\e[0m\" }\n", "no control characters"),
        ("- weight: 3\n", "missing field `address`"),
        ("- 127.0.0.1:1\n- 127.0.0.1:1\n", "`127.0.0.1:1` is in the file twice"),
        ("backends: 3\n", "expected a sequence"),
        ("", "expected a list of backends"),
        ("- 127.0.0.1:1\n- [", "line 2 column 3"),
        ("\0\u{1}", "control characters are not allowed"),
        ("- does-not-exist.invalid:80\n", "`does-not-exist.invalid:80` has no address"),
    ] {
        let error = read(text).await.unwrap_err();
        assert!(error.contains(problem), "{text}: {error}");
    }
    let missing = FileSource::new(Spec { path: "/nonexistent/file".into() });
    let error = missing.discover().await.unwrap_err();
    assert!(super::super::reason(&error).starts_with("cannot read the file"), "{error}");
}
