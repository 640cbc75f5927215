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

/// Legal, but with a pool that nobody looks after.
const UNWISE: &str = "listeners: [{ address: 127.0.0.1:8080 }]\n\
    pools: { p: { health_check: { type: none }, backends: [{ address: '127.0.0.1:1' }] } }\n\
    routes: [{ path: /, pool: p }]\n";

#[test]
fn warnings_are_told_and_refuse_nothing_unless_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("unwise.yaml");
    std::fs::write(&file, UNWISE).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, code) in [
        (&["check", file][..], 0),
        (&["check", "--strict", file], 2),
        (&["-t", "-c", file], 0),
        (&["check", "--strict", concat!(env!("CARGO_MANIFEST_DIR"), "/conf/reference.yaml")], 0),
    ] {
        let ended = run(arguments);
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {said}");
        let warned = said.contains("unwise.yaml:2:31: warning at pools.p.health_check.type: ");
        assert_eq!(warned, arguments.contains(&file), "{said}");
    }
}

#[test]
fn programs_read_the_diagnostics_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (unwise, bad) = (folder.path().join("unwise.yaml"), folder.path().join("bad.yaml"));
    std::fs::write(&unwise, UNWISE).unwrap();
    std::fs::write(&bad, UNWISE.replace("pool: p }", "pool: q }")).unwrap();
    let ended = run(&["check", "--format", "json", unwise.to_str().unwrap(), bad.to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(2));
    assert_eq!(text(&ended.stderr), "", "nothing but JSON");
    let told: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let told = told.as_array().unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    for (told, severity, path, line, column) in
        [(&told[0], "warning", "pools.p.health_check.type", 2, 31), (&told[1], "error", "routes[0].pool", 3, 21)]
    {
        assert_eq!((told["severity"].as_str(), told["path"].as_str()), (Some(severity), Some(path)));
        assert_eq!((told["line"].as_u64(), told["column"].as_u64()), (Some(line), Some(column)));
        assert!(told["file"].is_string() && told["problem"].is_string() && told["hint"].is_string());
    }
}

/// As `l7lb schema | head -1` does, which is much less than the pipe would have to hold.
#[test]
fn who_reads_no_further_is_no_failure() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/reference.yaml");
    let request = "GET http://localhost:8080/";
    let asked: [&[&str]; 3] =
        [&["schema"], &["check", "--format", "json", file], &["explain", request, "--conf", file]];
    for arguments in asked {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = std::process::Command::new(env!("CARGO_BIN_EXE_l7lb")).args(arguments).stdout(writer).output();
        let ended = ended.unwrap();
        assert_eq!((ended.status.code(), text(&ended.stderr).as_str()), (Some(0), ""), "{arguments:?}");
    }
}
