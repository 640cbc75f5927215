//! Runs a program in callgrind, and reads its counters.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long callgrind may take to write a dump.
const DUMP_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether callgrind works here.
pub(crate) fn is_available() -> bool {
    let runs = |command: &mut Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let trial = ["--tool=callgrind", "--callgrind-out-file=/dev/null", "true"];
    runs(Command::new("valgrind").args(trial)) && runs(Command::new("callgrind_control").arg("--version"))
}

/// A command that runs `program` in callgrind, with its output in `folder`.
pub(crate) fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}/out", folder.display())).arg(program);
    command
}

/// Sets the counters of the process to zero.
pub(crate) fn zero(pid: u32) -> io::Result<()> {
    control(&["-z", &pid.to_string()])
}

/// The number of instructions since [`zero`].
pub(crate) fn dump(pid: u32, folder: &Path) -> io::Result<u64> {
    control(&["-d", &pid.to_string()])?;
    let file = folder.join("out.1");
    let until = Instant::now() + DUMP_TIMEOUT;
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let totals = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
        if let Some(count) = totals.and_then(|totals| totals.trim().parse().ok()) {
            return Ok(count);
        }
        if Instant::now() > until {
            return Err(io::Error::other("callgrind has written no dump"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn control(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("callgrind_control").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("callgrind_control failed: {}", String::from_utf8_lossy(&output.stderr))))
}
