//! Where access lines go: standard output or a file, written by a thread of its own.
//!
//! Request threads format a line and hand it over; they never wait for a disk. When the destination
//! does not keep up, lines are dropped and counted rather than requests slowed down, and the count
//! is announced. A file survives log rotation: after SIGUSR1 it is opened anew by its name.

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

/// The `access_log:` block, as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How a line is written.
    pub format: Format,
    /// The file; standard output unless told.
    pub file: Option<PathBuf>,
    /// Whether nothing is written at all.
    pub off: bool,
}

/// Bytes that may wait for the writer.
const WAITING_MAX: usize = 16 << 20;

/// Room for an ordinary line.
const LINE: usize = 512;

/// How long the writer gathers lines before it writes. Waking it for each line would cost more than
/// the line (measured: half of all CPU time), and nobody reads a log faster.
const GATHER: Duration = Duration::from_millis(10);

/// What request threads and the writer share.
#[derive(Default)]
struct Waiting {
    lines: String,
    /// Lines that found no room.
    lost: u64,
    reopen: bool,
    /// Where lines go from now on, where that has changed.
    next: Option<Destination>,
    /// Counts requests to flush, and how many of them are served.
    flushes: u64,
    flushed: u64,
}

struct Shared {
    /// How lines are written; `None` where they are not.
    format: ArcSwapOption<Format>,
    waiting: Mutex<Waiting>,
    /// Tells the writer that there is something to do, and who flushes that it is done.
    changed: Condvar,
}

/// The sending end, cheap to clone into every request thread.
#[derive(Clone)]
pub struct AccessLog(Arc<Shared>);

/// The access log, once it runs: it has a thread, and threads begin late.
pub type Slot = Arc<Mutex<Option<AccessLog>>>;

/// Settings whose file is open.
pub struct Opened {
    format: Option<Format>,
    destination: Destination,
}

impl Opened {
    /// Opens what `config` names.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn of(config: &Config) -> io::Result<Self> {
        let file = if config.off { None } else { config.file.clone() };
        Ok(Self { format: (!config.off).then_some(config.format), destination: Destination::open(file)? })
    }
}

impl AccessLog {
    /// Opens the destination and starts the writer. Must not be called before a daemon has forked,
    /// since threads do not survive that.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn start(config: &Config) -> io::Result<Self> {
        let Opened { format, destination } = Opened::of(config)?;
        let shared = Arc::new(Shared {
            format: ArcSwapOption::new(format.map(Arc::new)),
            waiting: Mutex::default(),
            changed: Condvar::default(),
        });
        let writer = Writer { destination, shared: Arc::clone(&shared), lost: 0, announced: None };
        std::thread::Builder::new().name("access log".to_owned()).spawn(move || writer.run())?;
        Ok(Self(shared))
    }

    /// From now on lines are written as `opened` says; those that wait still go where they were to go.
    pub fn replace(&self, opened: Opened) {
        self.0.format.store(opened.format.map(Arc::new));
        self.0.waiting.lock().next = Some(opened.destination);
        self.0.changed.notify_all();
    }

    /// Adds a line to those that wait to be written.
    pub fn write(&self, record: &Record<'_>) {
        let shared = &self.0;
        let Some(format) = shared.format.load().as_deref().copied() else { return };
        // Written before the lock is taken: all workers share it.
        let mut line = String::with_capacity(LINE);
        record.write(format, &mut line);
        let mut waiting = shared.waiting.lock();
        if waiting.lines.len() >= WAITING_MAX {
            waiting.lost += 1;
            return;
        }
        let first = waiting.lines.is_empty();
        waiting.lines.push_str(&line);
        drop(waiting);
        if first {
            shared.changed.notify_all();
        }
    }

    /// Opens the file anew, after a rotation has renamed it.
    pub fn reopen(&self) {
        self.0.waiting.lock().reopen = true;
        self.0.changed.notify_all();
    }

    /// Waits until all lines so far are written, or the destination has taken too long.
    pub fn flush(&self) {
        let shared = &self.0;
        let mut waiting = shared.waiting.lock();
        waiting.flushes += 1;
        let awaited = waiting.flushes;
        shared.changed.notify_all();
        let patience = Duration::from_secs(1);
        shared.changed.wait_while_for(&mut waiting, |waiting| waiting.flushed < awaited, patience);
    }
}

/// What lines are written to.
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

/// How often lost lines are announced at most: a full disk would fill the other log too.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);

struct Writer {
    destination: Destination,
    shared: Arc<Shared>,
    /// Lines that were lost and not announced yet.
    lost: u64,
    announced: Option<Instant>,
}

/// What the writer has to do besides writing lines.
struct Taken {
    reopen: bool,
    next: Option<Destination>,
    flushes: u64,
    lost: u64,
}

impl Writer {
    fn run(mut self) {
        let mut lines = String::new();
        loop {
            let Taken { reopen, next, flushes, lost } = self.take(&mut lines);
            self.put(&lines, lost);
            lines.clear();
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

    /// Waits for something to do, gathers for a moment, and takes all that waits by swapping buffers.
    fn take(&self, lines: &mut String) -> Taken {
        let mut waiting = self.shared.waiting.lock();
        let urgent = |waiting: &Waiting| waiting.reopen || waiting.next.is_some() || waiting.flushes > waiting.flushed;
        self.shared.changed.wait_while(&mut waiting, |waiting| waiting.lines.is_empty() && !urgent(waiting));
        self.shared.changed.wait_while_for(&mut waiting, |waiting| !urgent(waiting), GATHER);
        std::mem::swap(&mut waiting.lines, lines);
        Taken {
            reopen: std::mem::take(&mut waiting.reopen),
            next: waiting.next.take(),
            flushes: waiting.flushes,
            lost: std::mem::take(&mut waiting.lost),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "how often to announce is a matter of real time")]
    fn put(&mut self, lines: &str, lost: u64) {
        self.lost += lost;
        let mut reason = "the log did not keep up".to_owned();
        if let Err(e) = self.destination.write(lines.as_bytes()) {
            // A count of lines in memory fits into 64 bits.
            self.lost += lines.bytes().filter(|b| *b == b'\n').count() as u64;
            reason = e.to_string();
        }
        if self.lost > 0 && self.announced.is_none_or(|announced| announced.elapsed() >= ANNOUNCE_EVERY) {
            Event::LogLinesLost { lines: std::mem::take(&mut self.lost), reason }.announce();
            self.announced = Some(Instant::now());
        }
    }

    fn reopen(&mut self) {
        let Destination::File { path, .. } = &self.destination else { return };
        match Destination::open(Some(path.clone())) {
            Ok(destination) => self.destination = destination,
            // The old file is still open, so lines go on being written there.
            Err(e) => log::error!("{e}; the old file stays in use"),
        }
    }
}
