//! Where access lines go: standard output or a file, written by a thread of its own.
//!
//! Request threads format a line and hand it over; they never wait for a disk. When the destination
//! does not keep up, lines are dropped and counted rather than requests slowed down, and the count
//! is announced. A file survives log rotation: after SIGUSR1 it is opened anew by its name.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};

use serde::Deserialize;

use super::record::{Format, Record};
use crate::event::Event;

/// The `access_log:` block, as written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How a line is written.
    pub format: Format,
    /// The file; standard output unless told.
    pub file: Option<PathBuf>,
    /// Whether nothing is written at all.
    pub off: bool,
}

/// Lines that may wait for the writer; about 16 MiB of them.
const WAITING_MAX: usize = 65_536;

enum Message {
    Line(String),
    Reopen,
    Flush(SyncSender<()>),
}

/// The sending end, cheap to clone into every request thread.
#[derive(Clone)]
pub struct AccessLog {
    format: Format,
    sender: Option<SyncSender<Message>>,
    lost: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the destination and starts the writer. Must not be called before a daemon has forked,
    /// since threads do not survive that.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn start(config: &Config) -> io::Result<Self> {
        let lost = Arc::new(AtomicU64::new(0));
        if config.off {
            return Ok(Self { format: config.format, sender: None, lost });
        }
        let destination = Destination::open(config.file.clone())?;
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        let writer = Writer { destination, lost: Arc::clone(&lost) };
        std::thread::Builder::new().name("access log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { format: config.format, sender: Some(sender), lost })
    }

    /// Hands a line to the writer.
    pub fn write(&self, record: &Record<'_>) {
        let Some(sender) = &self.sender else { return };
        let mut line = String::with_capacity(384);
        record.write(self.format, &mut line);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sender.try_send(Message::Line(line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file anew, after a rotation has renamed it.
    pub fn reopen(&self) {
        self.tell(Message::Reopen);
    }

    /// Waits until all lines handed over so far are written.
    pub fn flush(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        self.tell(Message::Flush(done));
        // An error means that the writer is gone, and its lines with it.
        wait.recv().ok();
    }

    fn tell(&self, message: Message) {
        if let Some(sender) = &self.sender {
            sender.send(message).ok();
        }
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

/// Bytes gathered before a write, when lines come faster than they can be written one by one.
const GATHER: usize = 64 * 1024;

struct Writer {
    destination: Destination,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        let mut gathered = String::with_capacity(2 * GATHER);
        while let Ok(message) = receiver.recv() {
            self.take(message, &mut gathered);
            // Whatever waits already goes into the same write.
            while gathered.len() < GATHER {
                match receiver.try_recv() {
                    Ok(message) => self.take(message, &mut gathered),
                    Err(_) => break,
                }
            }
            self.put(&mut gathered);
        }
    }

    fn take(&mut self, message: Message, gathered: &mut String) {
        match message {
            Message::Line(line) => gathered.push_str(&line),
            Message::Reopen => {
                self.put(gathered);
                self.reopen();
            }
            Message::Flush(done) => {
                self.put(gathered);
                done.send(()).ok();
            }
        }
    }

    fn put(&mut self, gathered: &mut String) {
        if gathered.is_empty() {
            return;
        }
        let mut reason = "the log did not keep up".to_owned();
        if let Err(e) = self.destination.write(gathered.as_bytes()) {
            let lines = gathered.bytes().filter(|b| *b == b'\n').count();
            // A count of lines in memory fits into 64 bits.
            self.lost.fetch_add(lines as u64, Ordering::Relaxed);
            reason = e.to_string();
        }
        gathered.clear();
        let lines = self.lost.swap(0, Ordering::Relaxed);
        if lines > 0 {
            Event::LogLinesLost { lines, reason }.announce();
        }
    }

    fn reopen(&mut self) {
        let Destination::File { path, .. } = &self.destination else {
            return;
        };
        match Destination::open(Some(path.clone())) {
            Ok(destination) => self.destination = destination,
            // The old file is still open, so lines go on being written there.
            Err(e) => log::error!("{e}; the old file stays in use"),
        }
    }
}
