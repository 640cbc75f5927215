//! What the service manager hears, played by a datagram socket.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{UNWATCHED, reloaded};
use crate::lab::{Backend, Lab, PATIENCE, free_port};
use crate::one_pool;

/// Takes what is said at once, as a manager does: the kernel keeps ten messages, and who says more is not heard.
fn listen(manager: UnixDatagram) -> mpsc::Receiver<String> {
    let (give, take) = mpsc::channel();
    std::thread::spawn(move || {
        let mut space = [0; 1024];
        while let Ok(length) = manager.recv(&mut space) {
            let message = String::from_utf8_lossy(&space[..length]).trim_end().to_owned();
            if give.send(message).is_err() {
                return;
            }
        }
    });
    take
}

/// The next message that is not the watchdog's.
fn heard(messages: &mpsc::Receiver<String>) -> String {
    loop {
        let message = messages.recv_timeout(PATIENCE).unwrap();
        if message != ALIVE {
            return message;
        }
    }
}

const ALIVE: &str = "WATCHDOG=1";

#[test]
fn systemd_hears_of_the_start_reloads_and_the_end_and_that_it_lives() {
    let one = Backend::start("one");
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    // Ends the thread some time after the last word.
    manager.set_read_timeout(Some(PATIENCE * 3)).unwrap();
    let messages = listen(manager);
    let period = Duration::from_millis(200).as_micros().to_string();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", period.as_str())];
    let mut lab = Lab::start_with(Arc::clone(&folder), &one_pool(free_port(), &[&one], UNWATCHED), &environment);
    assert_eq!(heard(&messages), "READY=1");
    reloaded(&lab);
    let reloading = heard(&messages);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(heard(&messages), "READY=1");
    // One that is said from here on.
    messages.try_iter().for_each(drop);
    assert_eq!(messages.recv_timeout(PATIENCE).as_deref(), Ok(ALIVE));
    lab.signal(Signal::SIGTERM);
    // The grace period of 30 s, and a little.
    assert_eq!(heard(&messages), "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000");
    assert!(lab.wait_exit(PATIENCE).success());
}
