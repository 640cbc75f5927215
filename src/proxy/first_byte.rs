//! The deadline for the first byte of a backend's answer.
//!
//! Pingora has one read timeout for header and body. Ours differ, because an answer that has begun
//! may pause for longer than one may take to begin. Pingora's own is set to the longer of the two;
//! the shorter one is kept here: a timer that closes the connection to the backend, whereupon the
//! read that waits for the answer fails.
//!
//! The timer works on a duplicate of the socket's descriptor. The number that Pingora shows could
//! belong to another connection by the time the timer fires; a duplicate cannot.

use std::net::{Shutdown, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;

/// A running deadline; dropping it calls it off.
pub(super) struct FirstByte {
    timer: AbortHandle,
    expired: Arc<AtomicBool>,
}

impl FirstByte {
    /// Starts the deadline for the connection behind `fd`, which Pingora holds open at this moment.
    pub(super) fn watch(fd: RawFd, limit: Duration) -> Option<Self> {
        let connection = TcpStream::from(duplicate(fd)?);
        let expired = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&expired);
        let timer = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            flag.store(true, Ordering::Release);
            // An error means that the backend has closed the connection at this very moment.
            connection.shutdown(Shutdown::Both).ok();
        });
        Some(Self { timer: timer.abort_handle(), expired })
    }

    /// Whether the deadline passed.
    pub(super) fn expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }
}

impl Drop for FirstByte {
    fn drop(&mut self) {
        self.timer.abort();
    }
}

/// A second descriptor of the same socket.
#[expect(unsafe_code, reason = "Pingora shows the descriptor as a bare number")]
fn duplicate(fd: RawFd) -> Option<OwnedFd> {
    if fd < 0 {
        return None;
    }
    // SAFETY: the number comes from Pingora's `connected_to_upstream` hook, during which Pingora
    // holds the connection, and the borrow ends before the hook returns.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().ok()
}
