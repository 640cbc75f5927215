//! Notifications to systemd for units with `Type=notify` (sd_notify(3)): ready, reloading, stopping and
//! watchdog. Without systemd nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

/// All listeners accept; also sent at the end of a reload.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The configuration is being reloaded, until [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(e) => log::warn!("cannot read the clock for the service manager: {e}"),
    }
}

/// The process finishes its requests and exits within `limit`, even if the unit's own limit (`TimeoutStopSec=`)
/// is shorter.
pub fn stopping(limit: Duration) {
    let extension = format!("EXTEND_TIMEOUT_USEC={}", limit.as_micros());
    notify(&[NotifyState::Stopping, NotifyState::Custom(&extension)]);
}

/// Another process serves from now on; this one finishes its requests.
pub fn replaced(pid: u32) {
    notify(&[NotifyState::MainPid(pid)]);
}

/// The process is alive.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// The interval of [`alive`]: half of the time after which systemd would restart the process (`WatchdogSec=`);
/// `None` without a watchdog.
#[must_use]
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn notify(what: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(what) {
        log::warn!("cannot notify the service manager: {e}");
    }
}
