//! Errors of accept loops: reported once, with the limit and the remedy, and then at most every minute.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use parking_lot::Mutex;

use super::event::Event;

/// The time between two reports while errors continue.
const REPEAT: Duration = Duration::from_secs(60);
/// The time without an error after which the next error is a new incident. At the limit, each connection that ends
/// allows one more, so a successful accept is no recovery.
const RECOVERED: Duration = Duration::from_secs(10);

/// The errors of all accept loops of the same purpose.
#[derive(Debug, Default)]
pub struct AcceptErrors(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    error: Option<Instant>,
    report: Option<Instant>,
}

impl Times {
    /// Records an error; whether it must be reported.
    fn is_due(&mut self, now: Instant) -> bool {
        let passed =
            |time: Option<Instant>, least| time.is_none_or(|time| now.saturating_duration_since(time) >= least);
        let due = passed(self.error, RECOVERED) || passed(self.report, REPEAT);
        self.error = Some(now);
        if due {
            self.report = Some(now);
        }
        due
    }
}

impl AcceptErrors {
    /// Reports `error` as an event, unless that has just been done.
    pub fn report(&self, error: &io::Error, now: Instant) {
        if self.0.lock().is_due(now) {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            Event::AcceptFailed { reason: reason(error, limit) }.announce();
        }
    }
}

/// Whether no file can be opened because file descriptors have run out.
#[must_use]
pub fn descriptors_exhausted() -> bool {
    let opened = std::fs::File::open("/dev/null");
    let code = opened.err().and_then(|e| e.raw_os_error()).map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE))
}

/// The reason with the remedy; `limit` is that of the process.
fn reason(error: &io::Error, limit: u64) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => format!(
            "all {limit} file descriptors of the process are in use; raise the limit (`LimitNOFILE=`, `ulimit -n`) or \
             lower `connection_limits.total`"
        ),
        Some(Errno::ENFILE) => {
            "all file descriptors of the system are in use; raise the limit (`sysctl fs.file-max`)".to_owned()
        }
        Some(Errno::ENOBUFS | Errno::ENOMEM) => format!("{error}; give the system more memory for sockets"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_reported_at_once_then_every_minute_and_again_after_a_recovery() {
        let (mut times, start) = (Times::default(), start());
        let mut at = |tenths: u64| times.is_due(start + Duration::from_millis(100 * tenths));
        assert!(at(0));
        let reported: Vec<u64> = (1..1300).filter(|tenths| at(*tenths)).collect();
        assert_eq!(reported, [600, 1200], "ten errors a second");
        assert!(!at(1398), "9.9 s without an error");
        assert!(at(1498), "10 s without an error");
        assert!(!at(1499));
    }

    #[expect(clippy::disallowed_methods, reason = "an arbitrary start of the test's own time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn exhausted_descriptors_are_named_with_the_limit_and_the_remedy() {
        let process = reason(&io::Error::from(Errno::EMFILE), 1024);
        assert!(process.starts_with("all 1024 file descriptors of the process"), "{process}");
        assert!(process.contains("LimitNOFILE=") && process.contains("connection_limits.total"), "{process}");
        assert!(reason(&io::Error::from(Errno::ENFILE), 1024).contains("fs.file-max"));
        assert_eq!(reason(&io::Error::other("odd"), 1024), "odd");
    }
}
