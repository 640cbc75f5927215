//! The access log: standard output, a file or a syslog receiver, written by a separate thread.
//!
//! Request threads format a line and hand it over; they never wait for a disk or a receiver. If the destination is too
//! slow, lines are dropped and counted instead of delaying requests, and the count is reported, at the latest when the
//! process ends. After log rotation SIGUSR1 reopens the file by its name.
//!
//! - [`config`]: the block of the configuration; `sampling`: which requests have a line.
//! - `writer`: the thread; `destination`: standard output or a file; [`syslog`]: a receiver; [`message`]: its messages.

pub mod config;
mod destination;
pub mod message;
mod sampling;
pub mod syslog;
mod writer;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::{Condvar, Mutex};

use config::Output;
pub use config::{Config, Spec};
use destination::Destination;
use sampling::Sampling;
use writer::Writer;

use super::record::Record;
use super::record::layout::Layout;
use crate::base::event::Event;

/// Bytes that may wait to be written, besides those that are being written.
const WAITING_MAX: usize = 16 << 20;

/// The size that few lines exceed.
const LINE: usize = 1024;

/// How lines are made.
#[derive(Debug)]
struct Form {
    layout: Layout,
    sampling: Option<Sampling>,
    /// Whether a line starts with its time, for the header of a syslog message.
    is_for_syslog: bool,
}

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
    /// A new destination, if it has changed, and the end of the waiting lines that belong to the previous one.
    next: Option<(Destination, usize)>,
    /// The number of requested and completed flushes.
    flushes: u64,
    flushed: u64,
}

struct Shared {
    /// How lines are made; `None` if the log is off. Replaced while `waiting` is locked.
    form: ArcSwapOption<Form>,
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
    form: Option<Form>,
    destination: Destination,
}

impl Opened {
    /// Opens the destination of `spec`. A syslog receiver is connected with its first line.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn of(spec: &Spec) -> io::Result<Self> {
        if spec.off {
            return Ok(Self { form: None, destination: Destination::open(&Output::Stdout)? });
        }
        let is_for_syslog = matches!(spec.output, Output::Syslog(_));
        let form = Form { layout: spec.layout.clone(), sampling: spec.sampling.clone(), is_for_syslog };
        Ok(Self { form: Some(form), destination: Destination::open(&spec.output)? })
    }
}

impl AccessLog {
    /// Opens the destination and starts the writer. Must not be called before a daemon has forked, because
    /// threads do not survive a fork.
    ///
    /// # Errors
    /// If the file cannot be opened or the thread cannot be started.
    pub fn start(spec: &Spec) -> io::Result<Self> {
        let Opened { form, destination } = Opened::of(spec)?;
        let shared = Arc::new(Shared {
            form: ArcSwapOption::new(form.map(Arc::new)),
            waiting: Mutex::default(),
            changed: Condvar::default(),
        });
        let writer = Writer::new(destination, Arc::clone(&shared));
        std::thread::Builder::new().name("access log".to_owned()).spawn(move || writer.run())?;
        Ok(Self(shared))
    }

    /// Writes further lines with `opened`; waiting lines still go to the previous destination.
    pub fn replace(&self, opened: Opened) {
        let mut waiting = self.0.waiting.lock();
        self.0.form.store(opened.form.map(Arc::new));
        let end = waiting.next.as_ref().map_or(waiting.lines.len(), |(_, end)| *end);
        waiting.next = Some((opened.destination, end));
        drop(waiting);
        self.0.changed.notify_all();
    }

    /// Adds a line to the buffer.
    pub fn write(&self, record: &Record<'_>) {
        let shared = &self.0;
        let mut line = String::new();
        loop {
            let form = shared.form.load();
            let Some(form) = form.as_ref() else { return };
            if line.is_empty() {
                if form.sampling.as_ref().is_some_and(|sampling| !sampling.keeps(record.status)) {
                    return;
                }
                line.reserve(LINE);
            }
            line.clear();
            // Formatted before the lock is taken, which all workers share.
            if form.is_for_syslog {
                message::push_time(&mut line, record.time);
            }
            record.write(&form.layout, &mut line);
            let mut waiting = shared.waiting.lock();
            if shared.form.load().as_ref().is_none_or(|current| !Arc::ptr_eq(current, form)) {
                // A reload has replaced it meanwhile.
                continue;
            }
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
            return;
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
