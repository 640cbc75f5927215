//! The thread that writes lines.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::Output;
use super::destination::Destination;
use super::syslog::Sent;
use super::{Shared, Waiting};
use crate::base::event::Event;

/// How long the writer collects lines before it writes. Waking it for each line would cost more than the line
/// itself (measured: half of all CPU time).
const GATHER: Duration = Duration::from_millis(10);

/// The shortest interval of reports about lost lines: a full disk would fill the operator log too.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);

/// The pause before another attempt to reach a syslog receiver; it doubles up to the second value.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

pub(super) struct Writer {
    destination: Destination,
    shared: Arc<Shared>,
    announced: Option<Instant>,
    /// Whether the receiver was unreachable at the last attempt.
    unreachable: bool,
}

/// Work of the writer besides writing lines.
struct Taken {
    reopen: bool,
    next: Option<(Destination, usize)>,
    flushes: u64,
}

/// Whether the process ends or the destination changes, so that lines cannot wait any longer.
fn is_ending(waiting: &Waiting) -> bool {
    waiting.next.is_some() || waiting.flushes > waiting.flushed
}

impl Writer {
    pub(super) fn new(destination: Destination, shared: Arc<Shared>) -> Self {
        Self { destination, shared, announced: None, unreachable: false }
    }

    pub(super) fn run(mut self) {
        let mut lines = String::new();
        loop {
            let Taken { reopen, next, flushes } = self.take(&mut lines);
            let end = next.as_ref().map_or(lines.len(), |(_, end)| *end);
            let (before, after) = lines.split_at_checked(end).unwrap_or((&lines, ""));
            self.deliver(before, flushes, next.is_some());
            if let Some((next, _)) = next {
                self.destination = next;
                self.deliver(after, flushes, false);
            }
            lines.clear();
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
        let urgent = |waiting: &Waiting| waiting.reopen || is_ending(waiting);
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

    /// Writes lines, and counts those that are lost. `replaced` if the destination changes after them.
    fn deliver(&mut self, lines: &str, flushes: u64, replaced: bool) {
        if matches!(self.destination, Destination::Syslog(_)) {
            self.send(lines, flushes, replaced);
        } else {
            let result = self.destination.write(lines.as_bytes());
            self.settle(count(lines), result.err().map(|e| (count(lines), e)));
        }
        self.report(flushes);
    }

    /// Sends lines to a syslog receiver. While it is down or slow, they wait, unless the process ends or the destination
    /// changes. Meanwhile further lines wait in the buffer, which has a limit.
    #[expect(clippy::disallowed_methods, reason = "whether a receiver makes progress is a matter of real time")]
    fn send(&mut self, mut lines: &str, flushes: u64, replaced: bool) {
        let (mut pause, mut last) = (PAUSE.0, false);
        while !lines.is_empty() {
            let Destination::Syslog(syslog) = &mut self.destination else { return };
            let Sent { taken, lost, error } = syslog.send(lines, Instant::now());
            let (done, rest) = lines.split_at_checked(taken).unwrap_or((lines, ""));
            let place = syslog.place();
            let text = error.as_ref().map(ToString::to_string);
            self.settle(count(done), error.map(|e| (lost, e)));
            self.note_reachability(&place, text.filter(|_| !rest.is_empty() || lost > 0));
            if last && !rest.is_empty() {
                // It had its last chance.
                self.settle(count(rest), Some((count(rest), io::ErrorKind::TimedOut.into())));
                return;
            }
            if !done.is_empty() {
                pause = PAUSE.0;
            }
            lines = rest;
            if !lines.is_empty() {
                self.report(flushes);
                last = self.wait(pause, flushes) || replaced;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }

    /// Waits before another attempt. Returns whether it is the last one.
    fn wait(&self, pause: Duration, flushes: u64) -> bool {
        let mut waiting = self.shared.waiting.lock();
        let is_last =
            |waiting: &Waiting| waiting.next.is_some() || waiting.flushes > flushes || flushes > waiting.flushed;
        self.shared.changed.wait_while_for(&mut waiting, |waiting| !is_last(waiting), pause);
        is_last(&waiting)
    }

    /// Counts lines that were written or lost.
    fn settle(&self, lines: u64, failure: Option<(u64, io::Error)>) {
        let mut waiting = self.shared.waiting.lock();
        waiting.writing = waiting.writing.saturating_sub(lines);
        if let Some((lost, e)) = failure.filter(|(lost, _)| *lost > 0) {
            waiting.lost += lost;
            waiting.error = e.to_string();
        }
    }

    /// Logs once when a receiver cannot be reached, and once when it can be again.
    fn note_reachability(&mut self, place: &str, problem: Option<String>) {
        let is_unreachable = problem.is_some();
        match problem {
            Some(problem) if !self.unreachable => {
                log::warn!("the access log cannot reach syslog at {place}: {problem}; its lines wait");
            }
            None if self.unreachable => log::info!("the access log reaches syslog at {place} again"),
            _ => {}
        }
        self.unreachable = is_unreachable;
    }

    /// Reports lost lines if that is due, or if `flushes` has changed: then the process ends.
    #[expect(clippy::disallowed_methods, reason = "how often to announce is a matter of real time")]
    fn report(&mut self, flushes: u64) {
        let mut waiting = self.shared.waiting.lock();
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
        match &mut self.destination {
            Destination::Stdout => {}
            Destination::Syslog(syslog) => syslog.disconnect(),
            Destination::File { path, .. } => match Destination::open(&Output::File(path.clone())) {
                Ok(destination) => self.destination = destination,
                // The previous file is still open and stays in use.
                Err(e) => log::error!("{e}; the previous file stays in use"),
            },
        }
    }
}

/// The number of complete lines.
fn count(lines: &str) -> u64 {
    memchr::memchr_iter(b'\n', lines.as_bytes()).count() as u64
}
