//! The tasks of a load over HTTP/2: some share a connection, and replace it
//! when the server says GOAWAY or it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, client};
use http::Request;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::client::TIMEOUT;
use super::goaway::{GoAway, Watched};
use super::load::{AFTER_FAILURE, Plan, Running, Tally, connect};

/// What the tasks on one connection share.
pub(super) struct Shared {
    plan: Plan,
    tally: Tally,
    current: Mutex<Option<Connection>>,
}

#[derive(Clone)]
struct Connection {
    sender: SendRequest<Bytes>,
    goaway: GoAway,
    ended: Arc<AtomicBool>,
}

/// What became of one request.
enum Outcome {
    Answered(u16),
    /// It never left, or the server declined it in order: nobody acted on it.
    Declined,
    Failed(String),
}

impl Shared {
    /// No connection yet.
    pub(super) fn new(plan: &Plan, tally: &Tally) -> Arc<Self> {
        Arc::new(Self {
            plan: plan.clone(),
            tally: tally.clone(),
            current: Mutex::new(None),
        })
    }

    /// The connection in use, or a new one when it is not to be used any more.
    async fn connection(&self) -> Result<Connection, String> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current
            && connection.is_usable()
        {
            return Ok(connection.clone());
        }
        // Given up before the new one is opened: the requests still on it hold
        // it, and it closes with the last of them.
        *current = None;
        let opened = timeout(TIMEOUT, Connection::open(&self.plan)).await;
        let connection = opened.unwrap_or_else(|_| Err("connect: not in time".to_owned()))?;
        self.tally.lock().connections += 1;
        *current = Some(connection.clone());
        Ok(connection)
    }

    async fn request(&self) -> Outcome {
        let connection = match self.connection().await {
            Ok(connection) => connection,
            Err(error) => return Outcome::Failed(error),
        };
        match timeout(TIMEOUT, connection.ask(&self.plan)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(format!("no complete answer within {TIMEOUT:?}")),
        }
    }
}

/// Asks over and over until told to stop.
pub(super) async fn ask(shared: Arc<Shared>, running: Running) {
    while running.goes_on() {
        match shared.request().await {
            Outcome::Answered(status) => shared.tally.answered(status),
            Outcome::Declined => shared.tally.lock().resent += 1,
            Outcome::Failed(error) => {
                shared.tally.failed(error);
                sleep(AFTER_FAILURE).await;
            }
        }
        // Even without a pause the other tasks must get their turn.
        sleep(shared.plan.pause).await;
    }
}

impl Connection {
    async fn open(plan: &Plan) -> Result<Self, String> {
        let goaway = GoAway::default();
        let stream = Watched::new(connect(plan).await?, goaway.clone());
        let (sender, driver) = client::handshake(stream)
            .await
            .map_err(|error| format!("HTTP/2 handshake: {error}"))?;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        tokio::spawn(async move {
            // Its error reaches every request that it concerns.
            let _ = driver.await;
            flag.store(true, Ordering::SeqCst);
        });
        Ok(Self {
            sender,
            goaway,
            ended,
        })
    }

    fn is_usable(&self) -> bool {
        !self.ended.load(Ordering::SeqCst) && self.goaway.last_stream().is_none()
    }

    async fn ask(&self, plan: &Plan) -> Outcome {
        let scheme = if plan.protocol.is_tls() { "https" } else { "http" };
        let request = Request::get(format!("{scheme}://{}{}", plan.host, plan.path))
            .version(http::Version::HTTP_2)
            .body(())
            .expect("a host and a path");
        // Neither of these has sent anything when it fails.
        let Ok(mut sender) = self.sender.clone().ready().await else {
            return self.unsent();
        };
        let Ok((answer, _)) = sender.send_request(request, true) else {
            return self.unsent();
        };
        let number = answer.stream_id().as_u32();
        match read_whole(answer).await {
            Ok(status) => Outcome::Answered(status),
            Err(error) if self.declined(number, &error) => Outcome::Declined,
            Err(error) => Outcome::Failed(format!("stream {number}: {error}")),
        }
    }

    /// A request that found the connection gone before it was sent.
    fn unsent(&self) -> Outcome {
        self.ended.store(true, Ordering::SeqCst);
        Outcome::Declined
    }

    /// Whether the server has said that it did not act on this stream. The
    /// error alone does not tell: after a GOAWAY, h2 reports it for the streams
    /// below its last id too, should the connection break under them.
    fn declined(&self, number: u32, error: &h2::Error) -> bool {
        let refused = error.is_reset()
            && error.is_remote()
            && error.reason() == Some(Reason::REFUSED_STREAM);
        refused || self.goaway.last_stream().is_some_and(|last| number > last)
    }
}

/// Reads an answer to its end and returns its status.
async fn read_whole(answer: ResponseFuture) -> Result<u16, h2::Error> {
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    // Trailers, if any, are part of the answer.
    body.trailers().await?;
    Ok(status)
}
