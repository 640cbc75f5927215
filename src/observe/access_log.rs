//! The access log: standard output or a file, written by a separate thread.
//!
//! Request threads format a line and hand it over; they never wait for a disk. If the destination is too slow,
//! lines are dropped and counted instead of delaying requests, and the count is reported, at the latest when the
//! process ends. After log rotation SIGUSR1 reopens the file by its name.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::{Condvar, Mutex};
use schemars::JsonSchema;
use serde::Deserialize;

use super::record::{Format, Record};
use crate::base::event::Event;

/// Configuration of the access log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The format of a line.
    pub format: Format,
    /// The file; default: standard output.
    pub file: Option<PathBuf>,
    /// Whether the access log is off.
    pub off: bool,
}

/// Bytes that may wait to be written.
const WAITING_MAX: usize = 16 << 20;

/// The size of a typical line.
const LINE: usize = 512;

/// How long the writer collects lines before it writes. Waking it for each line would cost more than the line
/// itself (measured: half of all CPU time).
const GATHER: Duration = Duration::from_millis(10);

/// The state shared by request threads and the writer.
#[derive(Default)]
struct Waiting {
    lines: String,
    /// The number of these lines, and of those that the writer is writing.
    count: u64,
    writing: u64,
    /// Lines lost since the last report.
    lost: u64,
    /// Lines lost since the start, without those in `lost`.
    lost_before: u64,
    /// The last error of the destination; empty if lines were lost because it was too slow.
    error: String,
    reopen: bool,
    /// A new destination, if it has changed.
    next: Option<Destination>,
    /// The number of requested and completed flushes.
    flushes: u64,
    flushed: u64,
}

struct Shared {
    /// The format of lines; `None` if the log is off.
    format: ArcSwapOption<Format>,
    waiting: Mutex<Waiting>,
    /// Notified when the writer has work, and when a flush is complete.
    changed: Condvar,
}

/// A handle to the access log, cheap to clone into every request thread.
#[derive(Clone)]
pub struct AccessLog(Arc<Shared>);

/// The access log once it runs: its thread starts late.
pub type Slot = Arc<Mutex<Option<AccessLog>>>;

/// Settings with their open file.
pub struct Opened {
    format: Option<Format>,
    destination: Destination,
}

impl Opened {
    /// Opens the destination of `config`.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn of(config: &Config) -> io::Result<Self> {
        let file = if config.off { None } else { config.file.clone() };
        Ok(Self { format: (!config.off).then_some(config.format), destination: Destination::open(file)? })
    }
}

impl AccessLog {
    /// Opens the destination and starts the writer. Must not be called before a daemon has forked, because
    /// threads do not survive a fork.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub fn start(config: &Config) -> io::Result<Self> {
        let Opened { format, destination } = Opened::of(config)?;
        let shared = Arc::new(Shared {
            format: ArcSwapOption::new(format.map(Arc::new)),
            waiting: Mutex::default(),
            changed: Condvar::default(),
        });
        let writer = Writer { destination, shared: Arc::clone(&shared), announced: None };
        std::thread::Builder::new().name("access log".to_owned()).spawn(move || writer.run())?;
        Ok(Self(shared))
    }

    /// Writes further lines with `opened`; waiting lines still go to the previous destination.
    pub fn replace(&self, opened: Opened) {
        self.0.format.store(opened.format.map(Arc::new));
        self.0.waiting.lock().next = Some(opened.destination);
        self.0.changed.notify_all();
    }

    /// Adds a line to the buffer.
    pub fn write(&self, record: &Record<'_>) {
        let shared = &self.0;
        let Some(format) = shared.format.load().as_deref().copied() else { return };
        // Formatted before the lock is taken, which all workers share.
        let mut line = String::with_capacity(LINE);
        record.write(format, &mut line);
        let mut waiting = shared.waiting.lock();
        if waiting.lines.len() >= WAITING_MAX {
            waiting.lost += 1;
            return;
        }
        let first = waiting.lines.is_empty();
        waiting.lines.push_str(&line);
        waiting.count += 1;
        drop(waiting);
        if first {
            shared.changed.notify_all();
        }
    }

    /// The number of lines that could not be written since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let waiting = self.0.waiting.lock();
        waiting.lost_before + waiting.lost
    }

    /// Reopens the file after a rotation.
    pub fn reopen(&self) {
        self.0.waiting.lock().reopen = true;
        self.0.changed.notify_all();
    }

    /// Waits until all lines so far are written, or the destination is too slow, and reports lost lines. The process
    /// must end after it.
    pub fn flush(&self) {
        let shared = &self.0;
        let mut waiting = shared.waiting.lock();
        waiting.flushes += 1;
        let awaited = waiting.flushes;
        shared.changed.notify_all();
        let patience = Duration::from_secs(1);
        shared.changed.wait_while_for(&mut waiting, |waiting| waiting.flushed < awaited, patience);
        if waiting.flushed < awaited {
            // The writer hangs. What it has written of its lines is unknown.
            let lines = waiting.lost + waiting.count + waiting.writing;
            drop(waiting);
            let reason = "the destination did not take them before the process ended".to_owned();
            Event::LogLinesLost { lines, reason }.announce();
        }
    }
}

/// The destination of lines.
enum Destination {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Destination {
    fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stdout);
        };
        let named =
            |e: io::Error| io::Error::new(e.kind(), format!("cannot open the access log {}: {e}", path.display()));
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(named)?;
        Ok(Self::File { path, file })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(bytes),
        }
    }
}

/// The shortest interval of reports about lost lines: a full disk would fill the operator log too.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);

struct Writer {
    destination: Destination,
    shared: Arc<Shared>,
    announced: Option<Instant>,
}

/// Work of the writer besides writing lines.
struct Taken {
    reopen: bool,
    next: Option<Destination>,
    flushes: u64,
}

impl Writer {
    fn run(mut self) {
        let mut lines = String::new();
        loop {
            let Taken { reopen, next, flushes } = self.take(&mut lines);
            let result = self.destination.write(lines.as_bytes());
            lines.clear();
            self.finish(result, flushes);
            if let Some(next) = next {
                self.destination = next;
            }
            if reopen {
                self.reopen();
            }
            self.shared.waiting.lock().flushed = flushes;
            self.shared.changed.notify_all();
        }
    }

    /// Waits for work, collects for a moment, and takes all waiting lines by swapping buffers.
    fn take(&self, lines: &mut String) -> Taken {
        let mut waiting = self.shared.waiting.lock();
        let urgent = |waiting: &Waiting| waiting.reopen || waiting.next.is_some() || waiting.flushes > waiting.flushed;
        let idle = |waiting: &mut Waiting| waiting.lines.is_empty() && !urgent(waiting);
        if waiting.lost > 0 {
            // A report is due even if no further line follows.
            self.shared.changed.wait_while_for(&mut waiting, idle, ANNOUNCE_EVERY);
        } else {
            self.shared.changed.wait_while(&mut waiting, idle);
        }
        self.shared.changed.wait_while_for(&mut waiting, |waiting| !urgent(waiting), GATHER);
        std::mem::swap(&mut waiting.lines, lines);
        waiting.writing = std::mem::take(&mut waiting.count);
        Taken { reopen: std::mem::take(&mut waiting.reopen), next: waiting.next.take(), flushes: waiting.flushes }
    }

    /// Counts the lines of a failed write, and reports lost lines if that is due, or if `flushes` has changed: then
    /// the process ends.
    #[expect(clippy::disallowed_methods, reason = "how often to announce is a matter of real time")]
    fn finish(&mut self, result: io::Result<()>, flushes: u64) {
        let mut waiting = self.shared.waiting.lock();
        let written = std::mem::take(&mut waiting.writing);
        if let Err(e) = result {
            waiting.lost += written;
            waiting.error = e.to_string();
        }
        let ends = flushes > waiting.flushed;
        let is_due = ends || self.announced.is_none_or(|announced| announced.elapsed() >= ANNOUNCE_EVERY);
        if waiting.lost == 0 || !is_due {
            return;
        }
        let (lines, error) = (std::mem::take(&mut waiting.lost), std::mem::take(&mut waiting.error));
        waiting.lost_before += lines;
        drop(waiting);
        let reason = if error.is_empty() { "the destination is too slow".to_owned() } else { error };
        Event::LogLinesLost { lines, reason }.announce();
        self.announced = Some(Instant::now());
    }

    fn reopen(&mut self) {
        let Destination::File { path, .. } = &self.destination else { return };
        match Destination::open(Some(path.clone())) {
            Ok(destination) => self.destination = destination,
            // The previous file is still open and stays in use.
            Err(e) => log::error!("{e}; the previous file stays in use"),
        }
    }
}
