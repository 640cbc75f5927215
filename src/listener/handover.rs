//! Socket handover: passes the listening sockets to a new process, so that a restart loses no connection.
//!
//! The new process (`--upgrade`) waits at the upgrade socket. The old process, triggered by SIGQUIT, connects
//! there and sends each listening socket with its name. The connection stays open: when the new process accepts
//! connections, it sends one byte, and only then the old process stops. If the new process dies before, the old
//! one sees the connection close and continues to serve.
//!
//! Pingora's own handover sends all sockets in one message, at most 32 with 2 KiB of names, and stops the old
//! process even if the new one fails.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::sockets::Socket;

/// How long the new process waits for the old one.
const WAIT_FOR_OLD: Duration = Duration::from_secs(60);
/// How long the old process waits for the new one at each step.
const WAIT_FOR_NEW: Duration = Duration::from_secs(30);
/// How long the old process waits until a separately started new process listens at its upgrade socket.
pub const WAIT_FOR_STARTED: Duration = Duration::from_secs(5);
/// The longest name of a socket; an address is far shorter.
const NAME_MAX: usize = 255;
/// The new process accepts connections; its process id follows in four bytes.
const READY: u8 = b'R';
/// The new process cannot start; the reason follows as text.
const FAILED: u8 = b'F';
/// The longest reason in bytes.
const REASON_MAX: u64 = 4096;

/// The result for the new process: the sockets, and the means to report readiness.
pub struct Received {
    /// The sockets.
    pub sockets: Vec<Socket>,
    /// Reports readiness to the old process.
    pub ready: Ready,
}

/// Reports to the old process that it may stop. Dropping it without a report keeps the old process serving.
pub struct Ready(UnixStream);

impl Ready {
    /// Reports that this process accepts connections.
    ///
    /// # Errors
    /// If the old process has gone, which is harmless.
    pub fn report(mut self) -> io::Result<()> {
        let [a, b, c, d] = std::process::id().to_be_bytes();
        self.0.write_all(&[READY, a, b, c, d])
    }

    /// Reports why this process cannot start.
    pub fn fail(mut self, reason: &str) {
        // Without the report the old process sees the connection close.
        self.0.write_all(&[FAILED]).and_then(|()| self.0.write_all(reason.as_bytes())).ok();
    }
}

/// Waits at `path` for the old process and receives its sockets.
///
/// # Errors
/// A message, if no process connects or its data is invalid.
#[expect(clippy::disallowed_methods, reason = "waiting for another process happens in real time")]
pub fn receive(path: &Path) -> io::Result<Received> {
    make_private_folder(path)?;
    remove_stale_socket(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + WAIT_FOR_OLD;
    let accepted = loop {
        match listener.accept() {
            Ok((stream, _)) => break Ok(stream),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                break Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no old process handed over its sockets within {WAIT_FOR_OLD:?}; send it SIGQUIT"),
                ));
            }
            Err(e) => break Err(e),
        }
    };
    std::fs::remove_file(path).ok();
    let stream = accepted?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(WAIT_FOR_NEW))?;
    let mut sockets = Vec::new();
    while let Some((name, fd)) = receive_one(&stream)? {
        sockets.push(Socket::from_descriptor(name, fd)?);
    }
    Ok(Received { sockets, ready: Ready(stream) })
}

/// Creates the folder of `path` with private permissions, if it does not exist. A process that can reach the
/// upgrade socket can take over the listeners.
///
/// # Errors
/// If the folder cannot be created.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) else {
        return Ok(());
    };
    let with_path =
        |e: io::Error| io::Error::new(e.kind(), format!("cannot create the folder {}: {e}", folder.display()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(with_path)
}

/// Removes a socket that an earlier process left at `path`.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Sends the sockets to the new process that waits at `path`, and returns its process id, if it sends one, once
/// it accepts connections. `wait` is the time for it to listen at the upgrade socket; `check` runs
/// before each attempt to connect, and its error ends the wait.
///
/// # Errors
/// If there is no new process, or it ended before it was ready. This process then still owns the sockets.
pub fn send(
    path: &Path,
    sockets: &[(String, RawFd)],
    wait: Duration,
    check: impl FnMut() -> io::Result<()>,
) -> io::Result<Option<u32>> {
    let mut stream = connect(path, wait, check)?;
    stream.set_read_timeout(Some(WAIT_FOR_NEW))?;
    stream.set_write_timeout(Some(WAIT_FOR_NEW))?;
    for (name, fd) in sockets {
        send_one(&stream, name, Some(*fd))?;
    }
    send_one(&stream, "", None)?;
    let mut message = [0];
    stream
        .read_exact(&mut message)
        .map_err(|e| io::Error::new(e.kind(), format!("the new process did not become ready: {e}")))?;
    match message {
        [READY] => {
            let mut id = [0; 4];
            Ok(stream.read_exact(&mut id).ok().map(|()| u32::from_be_bytes(id)))
        }
        [FAILED] => {
            let mut reason = String::new();
            stream.take(REASON_MAX).read_to_string(&mut reason)?;
            Err(io::Error::other(format!("the new process: {reason}")))
        }
        _ => Err(io::Error::other("the new process sent an unknown message")),
    }
}

/// Connects to the new process, which may need a moment to listen.
#[expect(clippy::disallowed_methods, reason = "waiting for another process happens in real time")]
fn connect(path: &Path, wait: Duration, mut check: impl FnMut() -> io::Result<()>) -> io::Result<UnixStream> {
    let deadline = Instant::now() + wait;
    loop {
        check()?;
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(e) => {
                let problem =
                    format!("no new process listens at {}: {e}; start one with `--upgrade` first", path.display());
                return Err(io::Error::new(e.kind(), problem));
            }
        }
    }
}

/// One message: a byte with the length of the name, the name, and the socket as ancillary data. An empty name
/// ends the list.
fn send_one(stream: &UnixStream, name: &str, fd: Option<RawFd>) -> io::Result<()> {
    let length = u8::try_from(name.len()).map_err(|_| io::Error::other("the name of a socket is too long"))?;
    let message: Vec<u8> = std::iter::once(length).chain(name.bytes()).collect();
    let fds: Vec<RawFd> = fd.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights[..] };
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent == message.len() { Ok(()) } else { Err(io::Error::other("the message was truncated")) }
}

fn receive_one(mut stream: &UnixStream) -> io::Result<Option<(String, OwnedFd)>> {
    let mut length = [0];
    let fd = receive_with_fd(stream, &mut length)?;
    let [length] = length;
    if length == 0 {
        return Ok(None);
    }
    let mut name = [0; NAME_MAX];
    let name =
        name.get_mut(..usize::from(length)).ok_or_else(|| io::Error::other("the name of a socket is too long"))?;
    stream.read_exact(name)?;
    let name = std::str::from_utf8(name).map_err(io::Error::other)?.to_owned();
    let fd = fd.ok_or_else(|| io::Error::other(format!("no socket was attached to {name}")))?;
    Ok(Some((name, fd)))
}

/// Reads exactly the first byte of a message, to which its socket is attached.
#[expect(unsafe_code, reason = "received descriptors are plain numbers")]
fn receive_with_fd(stream: &UnixStream, first: &mut [u8; 1]) -> io::Result<Option<OwnedFd>> {
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(first)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    if message.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part {
            // SAFETY: the kernel has just created this descriptor for this process, and nothing else uses it.
            return Ok(fds.first().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn path() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("l7lb-handover-{}-{:x}.sock", std::process::id(), fastrand::u64(..)))
    }

    #[test]
    fn any_number_of_sockets_is_received_by_name() {
        let sockets: Vec<Socket> =
            (0..100).flat_map(|_| Socket::group(&"127.0.0.1:0".parse().unwrap(), 1, Vec::new()).unwrap()).collect();
        let addresses: Vec<String> = sockets.iter().map(Socket::address).collect();
        let named: Vec<(String, RawFd)> =
            sockets.iter().enumerate().map(|(i, s)| (format!("socket-{i}"), s.as_fd().as_raw_fd())).collect();
        let path = path();
        let receiving = std::thread::spawn({
            let path = path.clone();
            move || {
                let received = receive(&path).unwrap();
                received.ready.report().unwrap();
                received.sockets
            }
        });
        let id = send(&path, &named, WAIT_FOR_STARTED, || Ok(())).unwrap();
        assert_eq!(id, Some(std::process::id()));
        let received = receiving.join().unwrap();
        assert_eq!(received.iter().map(Socket::address).collect::<Vec<_>>(), addresses);
        assert_eq!(received.last().unwrap().name, "socket-99");
        assert!(!path.exists());
    }

    #[test]
    fn failed_start_is_reported_and_a_missing_process_is_not_waited_for() {
        let path = path();
        let receiving = std::thread::spawn({
            let path = path.clone();
            move || receive(&path).unwrap().ready.fail("a port is taken")
        });
        let error = send(&path, &[], WAIT_FOR_STARTED, || Ok(())).unwrap_err().to_string();
        receiving.join().unwrap();
        assert_eq!(error, "the new process: a port is taken");
        let gone = || Err(io::Error::other("it ended"));
        assert_eq!(send(&path, &[], Duration::from_secs(3600), gone).unwrap_err().to_string(), "it ended");
    }

    #[test]
    fn death_of_the_new_process_is_reported() {
        let path = path();
        let receiving = std::thread::spawn({
            let path = path.clone();
            move || drop(receive(&path).unwrap())
        });
        let error = send(&path, &[], WAIT_FOR_STARTED, || Ok(())).unwrap_err().to_string();
        receiving.join().unwrap();
        assert!(error.contains("did not become ready"), "{error}");
    }
}
