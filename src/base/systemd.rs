//! What the service manager is told, where it is systemd and the unit says `Type=notify`: that the
//! process is ready, reloads, stops, and is alive (sd_notify(3)). Elsewhere nothing is said.

use std::time::Duration;

use sd_notify::NotifyState;

/// All listeners accept; also the end of a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read anew, until [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(e) => log::warn!("cannot tell the service manager the time: {e}"),
    }
}

/// The process finishes what is in flight and leaves, within `limit`, however short the unit's own limit
/// (`TimeoutStopSec=`) is.
pub fn stopping(limit: Duration) {
    let extension = format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros());
    tell(&[NotifyState::Stopping, NotifyState::Custom(&extension)]);
}

/// Another process serves from now on; this one finishes what is in flight.
pub fn replaced(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// The process is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often to say [`alive`]: twice in the time after which the service manager would restart us
/// (`WatchdogSec=`); `None` where it would not.
#[must_use]
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(what) {
        log::warn!("cannot tell the service manager: {e}");
    }
}
