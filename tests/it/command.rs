//! The command line: its output and exit codes.

use std::os::unix::fs::PermissionsExt;

use crate::lab::authority::Authority;
use crate::lab::run;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn check_reports_all_faults_and_exits_with_2() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/config/bad/unknown-keys.yaml");
    let output = run(&["check", file]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("7 faults"), "{stderr}");
    assert!(stderr.contains("unknown-keys.yaml:2:5: error at listeners[0].adress: unknown key `adress`"), "{stderr}");
    assert!(stderr.contains("did you mean `address`?"), "{stderr}");
}

#[test]
fn usage_errors_exit_with_2_and_valid_files_with_0() {
    for arguments in [&["run"][..], &["nonsense"], &["run", "--conf", "/does/not/exist.yaml"], &["--bogus"], &[]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let valid = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/reference.yaml");
    for arguments in
        [&["check", valid][..], &["-t", "-c", valid], &["run", "--test", "--conf", valid], &["--version"], &["--help"]]
    {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[test]
fn cert_writes_a_private_key_and_overwrites_it_only_with_force() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    assert!(run(&["cert", "--folder", directory]).status.success());
    let key = folder.path().join("localhost-key.pem");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read_to_string(&key).unwrap();
    let again = run(&["cert", "--folder", directory]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--force"));
    assert_eq!(std::fs::read_to_string(&key).unwrap(), before);
    assert!(run(&["cert", "--folder", directory, "--force"]).status.success());
    assert_ne!(std::fs::read_to_string(&key).unwrap(), before);
}

/// Valid, but with a warning: the pool has no health check.
const WITH_WARNING: &str = "listeners: [{ address: 127.0.0.1:8080 }]\n\
    pools: { p: { health_check: { type: none }, backends: [{ address: '127.0.0.1:1' }] } }\n\
    routes: [{ path: /, pool: p }]\n";

#[test]
fn warnings_are_reported_and_fail_the_check_only_with_strict() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("warning.yaml");
    std::fs::write(&file, WITH_WARNING).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, code) in [
        (&["check", file][..], 0),
        (&["check", "--strict", file], 2),
        (&["-t", "-c", file], 0),
        (&["check", "--strict", concat!(env!("CARGO_MANIFEST_DIR"), "/conf/reference.yaml")], 0),
    ] {
        let output = run(arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        let has_warning = stderr.contains("warning.yaml:2:31: warning at pools.p.health_check.type: ");
        assert_eq!(has_warning, arguments.contains(&file), "{stderr}");
    }
}

#[test]
fn check_prints_diagnostics_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (warning, invalid) = (folder.path().join("warning.yaml"), folder.path().join("invalid.yaml"));
    std::fs::write(&warning, WITH_WARNING).unwrap();
    std::fs::write(&invalid, WITH_WARNING.replace("pool: p }", "pool: q }")).unwrap();
    let output = run(&["check", "--format", "json", warning.to_str().unwrap(), invalid.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "", "stderr is empty");
    let diagnostics: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let diagnostics = diagnostics.as_array().unwrap();
    assert_eq!(diagnostics.len(), 2, "{diagnostics:?}");
    for (diagnostic, severity, path, line, column) in [
        (&diagnostics[0], "warning", "pools.p.health_check.type", 2, 31),
        (&diagnostics[1], "error", "routes[0].pool", 3, 21),
    ] {
        assert_eq!((diagnostic["severity"].as_str(), diagnostic["path"].as_str()), (Some(severity), Some(path)));
        assert_eq!((diagnostic["line"].as_u64(), diagnostic["column"].as_u64()), (Some(line), Some(column)));
        assert!(diagnostic["file"].is_string() && diagnostic["problem"].is_string() && diagnostic["hint"].is_string());
    }
}

/// As in `l7lb schema | head -1`, where the reader closes the pipe early.
#[test]
fn closed_output_pipe_is_not_a_failure() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/reference.yaml");
    let request = "GET http://localhost:8080/";
    let commands: [&[&str]; 3] =
        [&["schema"], &["check", "--format", "json", file], &["explain", request, "--conf", file]];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_l7lb")).args(arguments).stdout(writer).output();
        let output = output.unwrap();
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// The files that the examples in docs/configuration refer to, in a folder that replaces `/etc/l7lb`.
fn files_of_examples() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("clients");
    authority.issue(&["www.example.com"]).write(folder.path(), "www");
    authority.issue(&["lb.example.com"]).write(folder.path(), "admin");
    crate::admin::write_token(folder.path(), "deploy", crate::admin::OPERATOR);
    std::fs::copy("tests/config/keys/jwks.json", folder.path().join("jwks.json")).unwrap();
    for (name, text) in [("clients.pem", authority.pem()), ("backends-ca.pem", authority.pem())] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    for name in ["countries.mmdb", "users.htpasswd"] {
        let fixture = format!("{}/tests/config/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(fixture, folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("ticket-keys"), "AAEC".repeat(16)).unwrap();
    std::fs::write(folder.path().join("cookie-keys"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
    folder
}

#[test]
fn examples_of_the_configuration_pages_pass_the_check_without_warnings() {
    let folder = files_of_examples();
    let path = folder.path().to_str().unwrap();
    let file = folder.path().join("example.yaml");
    for page in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration")).unwrap() {
        let page = page.unwrap().path();
        let text_of_page = std::fs::read_to_string(&page).unwrap();
        let examples: Vec<&str> =
            text_of_page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(!examples.is_empty(), "{} has no example", page.display());
        for example in examples {
            std::fs::write(&file, example.replace("/etc/l7lb", path)).unwrap();
            let output = run(&["check", "--strict", file.to_str().unwrap()]);
            assert!(output.status.success(), "{}: {}", page.display(), text(&output.stderr));
        }
    }
}
