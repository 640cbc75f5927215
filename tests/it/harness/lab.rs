//! One `l7lb` process in a temporary folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::certs::{self, Certificate};
use super::process::Process;

/// How long `l7lb` has to get ready, or to run to its end.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long the waits that name no time of their own last.
const PATIENCE: Duration = Duration::from_secs(10);

/// A folder with a configuration, and the `l7lb` that runs on it.
///
/// Dropping it kills the process and removes the folder.
pub struct Lab {
    // Before the folder: fields are dropped in order, and the process must not
    // outlive the files it uses.
    process: Process,
    folder: TempDir,
}

/// What a [`Lab`] starts with.
pub struct LabBuilder {
    folder: TempDir,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

/// How a program that ran to its end did.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl LabBuilder {
    /// The folder, which exists from the start.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Adds an argument after `run -c FILE`; `{dir}` in it becomes the folder.
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Sets an environment variable; `{dir}` in its value becomes the folder.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes a file into the folder; `{dir}` in its text becomes the folder.
    pub fn file(self, name: &str, text: &str) -> Self {
        write(self.dir(), name, text);
        self
    }

    /// Makes a self-signed certificate, `{dir}/STEM.crt` with `{dir}/STEM.key`.
    pub fn certificate(self, stem: &str, names: &[&str]) -> Self {
        certs::self_signed(self.dir(), stem, names);
        self
    }

    /// Starts `l7lb run` on this configuration and waits until it is ready;
    /// `{dir}` in the text becomes the folder.
    ///
    /// # Panics
    ///
    /// When it ends, or is not ready in time; the message holds its whole log.
    pub fn start(self, yaml: &str) -> Lab {
        let mut lab = self.start_unready(yaml);
        if lab.process.stderr().wait_for(" ready", 1, DEADLINE).is_none() {
            let status = lab.process.wait_exit(Duration::from_millis(200));
            let state = match status {
                Some(status) => format!("ended ({status}) before it was ready"),
                None => format!("was not ready within {DEADLINE:?}"),
            };
            panic!("l7lb {state}; its log:\n{}", lab.log());
        }
        lab
    }

    /// Starts `l7lb run` like [`LabBuilder::start`] but does not wait.
    pub fn start_unready(self, yaml: &str) -> Lab {
        write(self.dir(), "l7lb.yaml", yaml);
        let mut command = self.command();
        command.args(["run", "-c"]).arg(self.dir().join("l7lb.yaml"));
        command.args(self.arguments.iter().map(|text| filled(self.dir(), text)));
        Lab {
            process: Process::start(command),
            folder: self.folder,
        }
    }

    /// Runs `l7lb` with these arguments alone, in this folder, to its end;
    /// `{dir}` in them becomes the folder.
    ///
    /// # Panics
    ///
    /// When it does not end in time; the message holds what it printed.
    pub fn run_to_end(&self, arguments: &[&str]) -> Finished {
        let mut command = self.command();
        command.args(arguments.iter().map(|text| filled(self.dir(), text)));
        let mut process = Process::start(command);
        let status = process.wait_exit(DEADLINE);
        let (stdout, stderr) = (process.stdout().text(), process.stderr().text());
        let Some(status) = status else {
            panic!("l7lb {arguments:?} did not end within {DEADLINE:?}:\n{stdout}\n{stderr}");
        };
        Finished {
            code: status.code(),
            stdout,
            stderr,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_l7lb"));
        command.current_dir(self.dir());
        for (name, value) in &self.environment {
            command.env(name, filled(self.dir(), value));
        }
        command
    }
}

impl Lab {
    /// A lab to be set up; its folder exists already.
    pub fn builder() -> LabBuilder {
        LabBuilder {
            folder: tempfile::Builder::new()
                .prefix("l7lb-test-")
                .tempdir()
                .expect("a temporary folder"),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// A lab with this configuration, ready; see [`LabBuilder::start`].
    pub fn start(yaml: &str) -> Self {
        Self::builder().start(yaml)
    }

    /// Runs `l7lb` with these arguments to its end in a new folder; see
    /// [`LabBuilder::run_to_end`].
    pub fn run_to_end(arguments: &[&str]) -> Finished {
        Self::builder().run_to_end(arguments)
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Its configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir().join("l7lb.yaml")
    }

    /// Overwrites its configuration, as before a reload; `{dir}` in the text
    /// becomes the folder.
    pub fn rewrite(&self, yaml: &str) {
        write(self.dir(), "l7lb.yaml", yaml);
    }

    /// Writes another file into its folder; `{dir}` in the text becomes the folder.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        write(self.dir(), name, text)
    }

    /// Makes a self-signed certificate in its folder.
    pub fn certificate(&self, stem: &str, names: &[&str]) -> Certificate {
        certs::self_signed(self.dir(), stem, names)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The operator's log so far: all of standard error.
    pub fn log(&self) -> String {
        self.process.stderr().text()
    }

    /// The access log so far: the lines of standard output.
    pub fn access_log(&self) -> Vec<String> {
        self.process.stdout().lines()
    }

    /// Waits for a log line that contains the pattern, and returns it.
    ///
    /// # Panics
    ///
    /// When none comes in time, or the process ends before; with the whole log.
    pub fn wait_for_log(&self, pattern: &str, within: Duration) -> String {
        self.wait_for_nth_log(pattern, 1, within)
    }

    /// Waits for the `nth` log line (from 1) that contains the pattern; panics
    /// like [`Lab::wait_for_log`].
    pub fn wait_for_nth_log(&self, pattern: &str, nth: usize, within: Duration) -> String {
        let line = self.process.stderr().wait_for(pattern, nth, within);
        line.unwrap_or_else(|| {
            let log = self.log();
            panic!("no log line {nth} with {pattern:?} within {within:?}; the log:\n{log}")
        })
    }

    /// Waits for a line of the access log that contains the pattern, and
    /// returns it; panics like [`Lab::wait_for_log`].
    pub fn wait_for_access(&self, pattern: &str) -> String {
        self.wait_for_nth_access(pattern, 1)
    }

    /// Waits for the `nth` line (from 1) of the access log that contains the
    /// pattern; panics like [`Lab::wait_for_log`].
    pub fn wait_for_nth_access(&self, pattern: &str, nth: usize) -> String {
        let line = self.process.stdout().wait_for(pattern, nth, PATIENCE);
        line.unwrap_or_else(|| {
            let (access, log) = (self.process.stdout().text(), self.log());
            panic!(
                "no access line {nth} with {pattern:?} within {PATIENCE:?}; \
                 the access log:\n{access}\nthe log:\n{log}"
            )
        })
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    ///
    /// When it does not end in time; the message holds its whole log.
    pub fn wait_exit(&mut self, within: Duration) -> ExitStatus {
        match self.process.wait_exit(within) {
            Some(status) => status,
            None => panic!("l7lb still runs after {within:?}; its log:\n{}", self.log()),
        }
    }
}

fn filled(folder: &Path, text: &str) -> String {
    let folder = folder.to_str().expect("a temporary folder with a plain name");
    text.replace("{dir}", folder)
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, filled(folder, text)).expect("a file in the lab's folder");
    path
}
