//! What the service manager hears, played by a datagram socket.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{UNWATCHED, reloaded};
use crate::lab::{Backend, Lab, PATIENCE, free_port};
use crate::one_pool;

/// The next message that is not the watchdog's.
fn heard(manager: &UnixDatagram) -> String {
    let mut space = [0; 1024];
    loop {
        let length = manager.recv(&mut space).unwrap();
        let message = String::from_utf8_lossy(&space[..length]).into_owned();
        if message.trim_end() != "WATCHDOG=1" {
            return message;
        }
    }
}

#[test]
fn systemd_hears_of_the_start_reloads_and_the_end_and_that_it_lives() {
    let one = Backend::start("one");
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let period = Duration::from_millis(200).as_micros().to_string();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", period.as_str())];
    let mut lab = Lab::start_with(Arc::clone(&folder), &one_pool(free_port(), &[&one], UNWATCHED), &environment);
    assert_eq!(heard(&manager).trim_end(), "READY=1");
    reloaded(&lab);
    let reloading = heard(&manager);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(heard(&manager).trim_end(), "READY=1");
    let mut space = [0; 64];
    let length = manager.recv(&mut space).unwrap();
    assert_eq!(String::from_utf8_lossy(&space[..length]).trim_end(), "WATCHDOG=1");
    lab.signal(Signal::SIGTERM);
    // The grace period of 30 s, and a little.
    assert_eq!(heard(&manager).trim_end(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000");
    assert!(lab.wait_exit(PATIENCE).success());
}
