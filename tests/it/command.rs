//! The command line: what it says and how it ends.

use std::os::unix::fs::PermissionsExt;

use crate::lab::run;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_says_all_faults_at_once_and_ends_with_2() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/bad/unknown-keys.yaml");
    let ended = run(&["check", file]);
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2));
    assert!(said.contains("7 faults"), "{said}");
    assert!(said.contains("unknown-keys.yaml:2:5: error at listeners[0].adress: unknown key `adress`"), "{said}");
    assert!(said.contains("did you mean `address`?"), "{said}");
}

#[test]
fn usage_faults_end_with_2_and_good_files_with_0() {
    for arguments in [&["run"][..], &["nonsense"], &["run", "--conf", "/does/not/exist.yaml"], &["--bogus"], &[]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/reference.yaml");
    for arguments in
        [&["check", good][..], &["-t", "-c", good], &["run", "--test", "--conf", good], &["--version"], &["--help"]]
    {
        let ended = run(arguments);
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {}", text(&ended.stderr));
    }
}

#[test]
fn cert_writes_a_private_key_and_replaces_nothing_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    assert!(run(&["cert", "--folder", place]).status.success());
    let key = folder.path().join("localhost-key.pem");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read_to_string(&key).unwrap();
    let again = run(&["cert", "--folder", place]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--force"));
    assert_eq!(std::fs::read_to_string(&key).unwrap(), before);
    assert!(run(&["cert", "--folder", place, "--force"]).status.success());
    assert_ne!(std::fs::read_to_string(&key).unwrap(), before);
}
