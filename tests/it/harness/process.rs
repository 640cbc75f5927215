//! Runs a program, captures what it prints line by line, and leaves nothing of
//! it running.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// The environment variable that marks a program and all that it starts.
const MARK: &str = "L7LB_TEST_MARK";

static MARKS: AtomicU32 = AtomicU32::new(0);

/// The lines of one output, shared between its reader and the test.
#[derive(Clone, Default)]
pub struct Captured {
    shared: Arc<(Mutex<Output>, Condvar)>,
}

#[derive(Default)]
struct Output {
    lines: Vec<String>,
    ended: bool,
}

impl Captured {
    fn read(source: impl Read + Send + 'static) -> Self {
        let captured = Self::default();
        let writer = captured.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                writer.lock().lines.push(line);
                writer.shared.1.notify_all();
            }
            writer.lock().ended = true;
            writer.shared.1.notify_all();
        });
        captured
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// All lines so far as one text.
    pub fn text(&self) -> String {
        let mut text = self.lines().join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        text
    }

    /// The `nth` line (from 1) that contains the pattern, as soon as it is
    /// there; nothing when the time is over or the output has ended before.
    pub fn wait_for(&self, pattern: &str, nth: usize, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        let mut output = self.lock();
        let mut seen = 0;
        let mut found = 0;
        loop {
            while seen < output.lines.len() {
                found += usize::from(output.lines[seen].contains(pattern));
                if found == nth {
                    return Some(output.lines[seen].clone());
                }
                seen += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if output.ended || left.is_zero() {
                return None;
            }
            let waited = self.shared.1.wait_timeout(output, left);
            output = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the output has ended.
    pub fn wait_for_end(&self, within: Duration) {
        let output = self.lock();
        let waited = self
            .shared
            .1
            .wait_timeout_while(output, within, |output| !output.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// A running program. Dropping it kills it, and whatever it started, and reaps it.
pub struct Process {
    child: Child,
    mark: String,
    status: Option<ExitStatus>,
    stdout: Captured,
    stderr: Captured,
}

impl Process {
    /// Starts the program with its outputs captured and nothing on its input.
    pub fn start(mut command: Command) -> Self {
        let number = MARKS.fetch_add(1, Ordering::SeqCst);
        let mark = format!("{}-{number}", std::process::id());
        let mut child = command
            .env(MARK, &mark)
            // It stays in the test's process group on purpose: a test runner
            // that gives up on a test kills the group, and so this too.
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        let stdout = Captured::read(child.stdout.take().expect("piped"));
        let stderr = Captured::read(child.stderr.take().expect("piped"));
        Self {
            child,
            mark,
            status: None,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to its standard output.
    pub fn stdout(&self) -> &Captured {
        &self.stdout
    }

    /// What it wrote to its standard error.
    pub fn stderr(&self) -> &Captured {
        &self.stderr
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("own child");
        }
        self.status
    }

    /// Sends it a signal. It must not have been seen to end before: its id may
    /// be another process's by then.
    pub fn signal(&mut self, signal: Signal) {
        let ended = self.ended();
        assert!(ended.is_none(), "no {signal}: it has ended with {ended:?}");
        signal::kill(as_pid(self.pid()), signal).expect("own child");
    }

    /// Waits for its end, and for the last of its output.
    pub fn wait_exit(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                // Short: a process it left behind may hold the output open.
                self.stdout.wait_for_end(Duration::from_secs(1));
                self.stderr.wait_for_end(Duration::from_secs(1));
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it at once, and reaps it.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            self.child.kill().expect("own child");
            self.status = Some(self.child.wait().expect("own child"));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // What it started has left our family tree with its death, but still
        // carries the mark in its environment.
        for pid in marked(&self.mark) {
            let _ = signal::kill(as_pid(pid), Signal::SIGKILL);
        }
    }
}

/// The running processes that carry the mark.
pub fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    let processes = fs::read_dir("/proc").expect("Linux");
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
        })
        .collect()
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process id"))
}
