//! Notifications to the service manager, which is a datagram socket of the test.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{UNWATCHED, reloaded};
use crate::lab::{Backend, Lab, PATIENCE, free_port};
use crate::one_pool;

/// Receives messages without delay, as a service manager does. The kernel queues only ten datagrams on the socket;
/// further ones are lost.
fn listen(manager: UnixDatagram) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut space = [0; 1024];
        while let Ok(length) = manager.recv(&mut space) {
            let message = String::from_utf8_lossy(&space[..length]).trim_end().to_owned();
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The next message other than the watchdog's.
fn next_message(messages: &mpsc::Receiver<String>) -> String {
    loop {
        let message = messages.recv_timeout(PATIENCE).unwrap();
        if message != ALIVE {
            return message;
        }
    }
}

const ALIVE: &str = "WATCHDOG=1";

#[test]
fn systemd_is_notified_of_readiness_reload_stop_and_watchdog() {
    let one = Backend::start("one");
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    // Ends the thread after the last message.
    manager.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    let messages = listen(manager);
    let period = Duration::from_millis(200).as_micros().to_string();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", period.as_str())];
    let mut lab = Lab::start_with(Arc::clone(&folder), &one_pool(free_port(), &[&one], UNWATCHED), &environment);
    assert_eq!(next_message(&messages), "READY=1");
    reloaded(&lab);
    let reloading = next_message(&messages);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next_message(&messages), "READY=1");
    // The watchdog must send one after this point.
    messages.try_iter().for_each(drop);
    assert_eq!(messages.recv_timeout(PATIENCE).as_deref(), Ok(ALIVE));
    lab.signal(Signal::SIGTERM);
    // The grace period of 30 s, plus a margin.
    assert_eq!(next_message(&messages), "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000");
    assert!(lab.wait_exit(PATIENCE).success());
}
