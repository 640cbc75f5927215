//! Clients that send requests one after the other, each on its own connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Clients at the same time.
const CLIENTS: u64 = 16;

/// One client.
pub(crate) struct Client {
    stream: TcpStream,
    response: Vec<u8>,
    /// Differs from request to request, so that requests have different keys.
    number: u64,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, number: u64) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, response: vec![0; 4096], number: number << 32 })
    }

    /// Sends a request. Returns the head and the body of its response.
    pub(crate) fn request(&mut self) -> io::Result<&[u8]> {
        self.number += 1;
        let number = self.number;
        write!(self.stream, "GET /bytes/128 HTTP/1.1\r\nHost: localhost\r\nX-Key: {number}\r\n\r\n")?;
        let mut length = 0;
        loop {
            let free = self.response.get_mut(length..).unwrap_or_default();
            let read = self.stream.read(free)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length += read;
            let received = self.response.get(..length).unwrap_or_default();
            if !received.starts_with(b"HTTP/1.1 200") {
                return Err(io::Error::other(String::from_utf8_lossy(received).into_owned()));
            }
            let head = received.windows(4).position(|window| window == b"\r\n\r\n");
            if head.is_some_and(|head| length >= head + 4 + 128) {
                return Ok(self.response.get(..length).unwrap_or_default());
            }
        }
    }
}

/// When clients stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After this number of requests in all.
    Requests(u64),
    /// After this time.
    Elapsed(Duration),
}

/// Sends requests with several clients. Returns their number.
pub(crate) fn run(address: SocketAddr, until: Until) -> io::Result<u64> {
    let (begin, sent) = (Instant::now(), AtomicU64::new(0));
    let is_over = |number: u64| match until {
        Until::Requests(count) => number > count,
        Until::Elapsed(length) => begin.elapsed() > length,
    };
    let client = |number: u64| {
        let mut client = Client::connect(address, number)?;
        while !is_over(sent.fetch_add(1, Ordering::Relaxed) + 1) {
            client.request()?;
        }
        sent.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (1..=CLIENTS).map(|number| scope.spawn(move || client(number))).collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
    })?;
    Ok(sent.into_inner())
}
