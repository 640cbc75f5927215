//! One task of a load over HTTP/1.1: one kept-alive connection at a time, on a
//! raw socket, so that no failure is repaired out of sight.

use std::future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::{sleep, timeout};

use super::client::TIMEOUT;
use super::framing::{Extent, answer_extent};
use super::load::{AFTER_FAILURE, Duplex, Plan, Running, Tally, connect};

struct Connection {
    stream: Box<dyn Duplex>,
    /// How many answers have come on it, for the failure messages.
    answers: u64,
}

struct Answer {
    status: u16,
    closes: bool,
}

/// What a connection does while no request is on it.
enum Idle {
    Waiting,
    Closed,
    Talking,
}

/// Asks over and over until told to stop.
pub(super) async fn ask(plan: Arc<Plan>, tally: Tally, running: Running) {
    let request = format!("GET {} HTTP/1.1\r\nhost: {}\r\n\r\n", plan.path, plan.host);
    let mut kept: Option<Connection> = None;
    while running.goes_on() {
        let mut connection = match usable(kept.take(), &plan, &tally).await {
            Ok(connection) => connection,
            Err(error) => {
                tally.failed(error);
                sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        let answered = timeout(TIMEOUT, connection.ask(request.as_bytes())).await;
        match answered.unwrap_or_else(|_| Err(format!("no complete answer within {TIMEOUT:?}"))) {
            Ok(answer) => {
                tally.answered(answer.status);
                connection.answers += 1;
                if !answer.closes {
                    kept = Some(connection);
                }
            }
            Err(error) => {
                let earlier = connection.answers;
                tally.failed(format!("{error} (after {earlier} answers on the connection)"));
                sleep(AFTER_FAILURE).await;
            }
        }
        // Even without a pause the other tasks must get their turn.
        sleep(plan.pause).await;
    }
}

/// The kept connection, or a new one when there is none or it was closed while
/// no request was on it: that a client sees before it sends, and fails nobody.
async fn usable(
    kept: Option<Connection>,
    plan: &Plan,
    tally: &Tally,
) -> Result<Connection, String> {
    if let Some(mut connection) = kept {
        match connection.idle().await {
            Idle::Waiting => return Ok(connection),
            Idle::Closed => tally.lock().closed_idle += 1,
            Idle::Talking => return Err("bytes came that belong to no request".to_owned()),
        }
    }
    let stream = match timeout(TIMEOUT, connect(plan)).await {
        Ok(stream) => stream?,
        Err(_) => return Err(format!("connect: not within {TIMEOUT:?}")),
    };
    tally.lock().connections += 1;
    Ok(Connection { stream, answers: 0 })
}

impl Connection {
    /// Looks, without waiting, at what has come since the last answer.
    async fn idle(&mut self) -> Idle {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let read = future::poll_fn(|context| {
            // Pending is an answer here, not a reason to wait.
            Poll::Ready(Pin::new(&mut self.stream).poll_read(context, &mut buffer))
        });
        match read.await {
            Poll::Pending => Idle::Waiting,
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => Idle::Talking,
            Poll::Ready(_) => Idle::Closed,
        }
    }

    async fn ask(&mut self, request: &[u8]) -> Result<Answer, String> {
        // A failed write is no verdict yet: an answer may have come before it.
        let written = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        let written = written.await;
        let mut received = Vec::new();
        let mut piece = vec![0; 16 * 1024];
        loop {
            let (extent, head) = answer_extent(&received, "GET");
            let status = head.as_ref().map_or(0, |head| head.status());
            let closes = head.as_ref().is_some_and(|head| head.closes());
            match extent {
                Extent::Whole(length) if length < received.len() => {
                    return Err("more bytes came than the answer has".to_owned());
                }
                Extent::Whole(_) => return Ok(Answer { status, closes }),
                Extent::Malformed(reason) => return Err(format!("malformed answer: {reason}")),
                Extent::Partial | Extent::UntilClose => {}
            }
            match self.stream.read(&mut piece).await {
                Ok(0) if extent == Extent::UntilClose => {
                    return Ok(Answer { status, closes: true });
                }
                Ok(0) if received.is_empty() => {
                    return Err(match &written {
                        Ok(()) => "closed without an answer".to_owned(),
                        Err(error) => format!("closed without an answer, write: {error}"),
                    });
                }
                Ok(0) => return Err(format!("cut off after {} bytes", received.len())),
                Ok(length) => received.extend_from_slice(&piece[..length]),
                Err(error) => {
                    return Err(format!("read after {} bytes: {error}", received.len()));
                }
            }
        }
    }
}
