//! gRPC on the wire: five bytes before each message, the status in the trailers. A backend with one method for
//! each kind of call, and a client that returns everything it receives.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::server_config;

/// A message in its frame.
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len().try_into().unwrap());
    framed.put_slice(message);
    framed.freeze()
}

/// Sends bytes as flow control allows.
pub async fn send(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let Some(room) = poll_fn(|cx| stream.poll_capacity(cx)).await.transpose()? else {
            // The peer has reset the stream.
            return Ok(());
        };
        stream.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}

/// The messages of one direction, and its trailers.
pub struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    pub fn new(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, h2::Error> {
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
            }
            match self.body.data().await {
                Some(data) => {
                    let data = data?;
                    self.body.flow_control().release_capacity(data.len())?;
                    self.buffer.extend_from_slice(&data);
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => panic!("the stream ended inside a message"),
            }
        }
    }

    pub async fn trailers(&mut self) -> Result<HeaderMap, h2::Error> {
        Ok(self.body.trailers().await?.unwrap_or_default())
    }
}

/// The status that the health service reports: `grpc.health.v1.HealthCheckResponse.ServingStatus`.
pub const SERVING: u8 = 1;
pub const NOT_SERVING: u8 = 2;

#[derive(Default)]
struct State {
    health: AtomicU8,
    connections: AtomicUsize,
    /// The headers of each call.
    calls: Mutex<Vec<HeaderMap>>,
    /// The services in health requests.
    services: Mutex<BTreeSet<Vec<u8>>>,
    /// The outcome of calls to `/lab/Outcome`.
    outcome: Mutex<&'static str>,
}

/// A gRPC server on its own thread, which ends with the test process.
pub struct GrpcBackend {
    pub port: u16,
    state: Arc<State>,
    /// The reasons for which calls to `/lab/Hang` were reset.
    pub resets: Receiver<h2::Reason>,
}

impl GrpcBackend {
    /// Serves HTTP/2, with TLS or without.
    pub fn start(tls: bool) -> Self {
        let state = Arc::new(State::default());
        state.health.store(SERVING, Ordering::Relaxed);
        let (resets_sender, resets) = channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        let acceptor = tls.then(|| tokio_rustls::TlsAcceptor::from(server_config(&["h2"])));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (state, resets, acceptor) = (Arc::clone(&shared), resets_sender.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        match acceptor {
                            None => connection(stream, state, resets).await,
                            Some(acceptor) => match acceptor.accept(stream).await {
                                Ok(stream) => connection(stream, state, resets).await,
                                Err(e) => eprintln!("lab: TLS: {e}"),
                            },
                        }
                    });
                }
            });
        });
        Self { port, state, resets }
    }

    pub fn set_health(&self, health: u8) {
        self.state.health.store(health, Ordering::Relaxed);
    }

    /// Sets the outcome of further calls to `/lab/Outcome`.
    pub fn set_outcome(&self, status: &'static str) {
        *self.state.outcome.lock() = status;
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The headers of all calls, without health checks.
    pub fn calls(&self) -> Vec<HeaderMap> {
        self.state.calls.lock().clone()
    }

    /// The messages of health requests.
    pub fn services(&self) -> BTreeSet<Vec<u8>> {
        self.state.services.lock().clone()
    }
}

async fn connection<S>(stream: S, state: Arc<State>, resets: Sender<h2::Reason>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    state.connections.fetch_add(1, Ordering::Relaxed);
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (state, resets) = (Arc::clone(&state), resets.clone());
        tokio::spawn(async move {
            if let Err(e) = call(request, respond, &state, &resets).await {
                eprintln!("lab: call: {e}");
            }
        });
    }
    state.connections.fetch_sub(1, Ordering::Relaxed);
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn outcome(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    trailers.insert("x-lab-trailer", HeaderValue::from_static("kept"));
    trailers
}

fn trailers_only(respond: &mut h2::server::SendResponse<Bytes>, status: &'static str) -> Result<(), h2::Error> {
    let mut response = head();
    response.headers_mut().extend(outcome(status));
    respond.send_response(response, true).map(drop)
}

async fn end_as_told(mut respond: h2::server::SendResponse<Bytes>, state: &State) -> Result<(), h2::Error> {
    let status = *state.outcome.lock();
    let mut stream = respond.send_response(head(), false)?;
    send(&mut stream, frame(b"message")).await?;
    stream.send_trailers(outcome(status))
}

async fn check_health(
    mut messages: Messages,
    mut respond: h2::server::SendResponse<Bytes>,
    state: &State,
) -> Result<(), h2::Error> {
    if let Some(message) = messages.next().await? {
        state.services.lock().insert(message.to_vec());
    }
    let mut stream = respond.send_response(head(), false)?;
    send(&mut stream, frame(&[8, state.health.load(Ordering::Relaxed)])).await?;
    stream.send_trailers(outcome("0"))
}

/// Handles the method that the path names.
async fn call(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    state: &State,
    resets: &Sender<h2::Reason>,
) -> Result<(), h2::Error> {
    let (parts, body) = request.into_parts();
    let mut messages = Messages::new(body);
    if parts.uri.path() == "/grpc.health.v1.Health/Check" {
        return check_health(messages, respond, state).await;
    }
    state.calls.lock().push(parts.headers);
    match parts.uri.path() {
        // Echoes each message as it arrives: unary and bidirectional streaming.
        "/lab/Echo" | "/shop.v1.Orders/Echo" => {
            let mut stream = respond.send_response(head(), false)?;
            while let Some(message) = messages.next().await? {
                send(&mut stream, frame(&message)).await?;
            }
            stream.send_trailers(outcome("0"))
        }
        // Client streaming: responds with the number of messages.
        "/lab/Count" => {
            let mut count = 0;
            while messages.next().await?.is_some() {
                count += 1;
            }
            let mut stream = respond.send_response(head(), false)?;
            send(&mut stream, frame(count.to_string().as_bytes())).await?;
            stream.send_trailers(outcome("0"))
        }
        // Server streaming: the request message is the number of responses.
        "/lab/Repeat" => {
            let count = messages.next().await?.unwrap_or_default();
            let count: usize = std::str::from_utf8(&count).unwrap().parse().unwrap();
            let mut stream = respond.send_response(head(), false)?;
            for number in 0..count {
                send(&mut stream, frame(number.to_string().as_bytes())).await?;
            }
            stream.send_trailers(outcome("0"))
        }
        "/lab/TooLate" => {
            let mut stream = respond.send_response(head(), false)?;
            stream.send_trailers(outcome("4"))
        }
        // The outcome that the test set, after a message or without one.
        "/lab/Outcome" => end_as_told(respond, state).await,
        "/lab/OutcomeOnly" => trailers_only(&mut respond, *state.outcome.lock()),
        "/lab/TrailersOnly" => trailers_only(&mut respond, "5"),
        // Sends nothing, or only a header, until the call is reset.
        "/lab/Hang" => {
            resets.send(poll_fn(|cx| respond.poll_reset(cx)).await?).ok();
            Ok(())
        }
        "/lab/HangBehindHeader" => {
            let mut stream = respond.send_response(head(), false)?;
            resets.send(poll_fn(|cx| stream.poll_reset(cx)).await?).ok();
            Ok(())
        }
        "/lab/Reset" => {
            respond.send_reset(h2::Reason::INTERNAL_ERROR);
            Ok(())
        }
        _ => trailers_only(&mut respond, "12"),
    }
}

/// A complete response.
#[derive(Debug)]
pub struct Reply {
    pub head: http::response::Parts,
    pub messages: Vec<Bytes>,
    pub trailers: HeaderMap,
    /// Whether the header ended the stream.
    pub is_trailers_only: bool,
}

impl Reply {
    /// The gRPC status, from the trailers or from the header.
    pub fn status(&self) -> &str {
        let found = self.trailers.get("grpc-status").or_else(|| self.head.headers.get("grpc-status"));
        found.map_or("", |status| status.to_str().unwrap())
    }
}

/// A client's connection.
#[derive(Clone)]
pub struct Channel(h2::client::SendRequest<Bytes>);

impl Channel {
    pub async fn connect(port: u16) -> Self {
        Self::over(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await
    }

    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    /// Opens a call; more header fields may be given.
    pub async fn open(&self, path: &str, more: &[(&str, &str)]) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        self.open_at(&format!("http://localhost{path}"), more).await
    }

    async fn open_at(&self, url: &str, more: &[(&str, &str)]) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        let mut sender = self.0.clone().ready().await.unwrap();
        sender.send_request(request.body(()).unwrap(), false).unwrap()
    }

    /// A complete call: sends these messages, then reads the whole response.
    pub async fn call(&self, path: &str, more: &[(&str, &str)], messages: &[&[u8]]) -> Reply {
        self.call_at(&format!("http://localhost{path}"), more, messages).await
    }

    /// Like [`Channel::call`], at any host.
    pub async fn call_at(&self, url: &str, more: &[(&str, &str)], messages: &[&[u8]]) -> Reply {
        let (response, mut sending) = self.open_at(url, more).await;
        let sent = async {
            for message in messages {
                send(&mut sending, frame(message)).await?;
            }
            sending.send_data(Bytes::new(), true)
        };
        // A rejected call need not be sent completely.
        let (_, reply) = tokio::join!(sent, read(response));
        reply.unwrap()
    }
}

/// Reads a response to its end.
pub async fn read(response: h2::client::ResponseFuture) -> Result<Reply, h2::Error> {
    let (head, body) = response.await?.into_parts();
    let is_trailers_only = body.is_end_stream();
    let mut stream = Messages::new(body);
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await? {
        messages.push(message);
    }
    let trailers = stream.trailers().await?;
    Ok(Reply { head, messages, trailers, is_trailers_only })
}
