//! Questions to resolvers: over UDP, over TCP if the answer is truncated, and to the next resolver after a failure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::{Answer, Chain, is_referral};

/// How long one resolver may take.
const ATTEMPT: Duration = Duration::from_millis(900);
/// How long a question may take in all.
const TOTAL: Duration = Duration::from_secs(3);
/// The fewest attempts, so that one lost packet does not matter.
const ATTEMPTS_MIN: usize = 2;
/// The largest answer over UDP in bytes, so that it is not fragmented.
const UDP_MAX: u16 = 1232;

/// The resolvers of a source, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Resolvers {
    servers: Vec<SocketAddr>,
    /// The number of failed attempts. It selects the resolver, so that one which responds keeps its turn.
    failures: AtomicUsize,
}

impl Resolvers {
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, failures: AtomicUsize::new(0) }
    }

    /// The addresses of the resolvers.
    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The records of a name. An answer without records says that there are none.
    ///
    /// # Errors
    /// A sentence for operators: no resolver has an answer, or the CNAME records form a loop.
    pub(super) async fn records(&self, name: &Name, kind: RecordType) -> Result<Answer<RData>, String> {
        let mut chain = Chain::new(name.clone(), kind);
        while let Some(name) = chain.name() {
            let message = match timeout(TOTAL, self.ask(name, kind)).await {
                Ok(message) => message?,
                Err(_) => return Err(format!("no answer for `{name}` within {TOTAL:?}")),
            };
            if let Some(answer) = chain.read(&message)? {
                return Ok(answer);
            }
        }
        Err(format!("no answer for `{name}`"))
    }

    /// Asks one resolver after the other.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, String> {
        let (mut problem, mut has_edns) = ("there is no resolver".to_owned(), true);
        for _ in 0..self.servers.len().max(ATTEMPTS_MIN) {
            let turn = self.failures.load(Ordering::Relaxed);
            let Some(server) = self.servers.get(turn % self.servers.len().max(1)) else { break };
            let question = Question::new(name, kind, has_edns);
            match question.ask(*server).await {
                Ok(message) => return Ok(message),
                Err(Failure { reason, code }) => {
                    problem = format!("resolver {server}: {reason}");
                    // Servers from before 1999 reject EDNS.
                    has_edns &= code != Some(ResponseCode::FormErr);
                }
            }
            // A concurrent question may have moved on already.
            self.failures.compare_exchange(turn, turn.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed).ok();
        }
        Err(problem)
    }
}

/// Why a resolver has no answer.
struct Failure {
    reason: String,
    code: Option<ResponseCode>,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, code: None }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { reason: error.to_string(), code: None }
    }
}

/// A question with its random id.
struct Question(Message);

impl Question {
    fn new(name: &Name, kind: RecordType, has_edns: bool) -> Self {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), kind));
        if has_edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_MAX);
            message.set_edns(edns);
        }
        Self(message)
    }

    /// Asks one resolver over UDP, and over TCP if the answer is truncated.
    async fn ask(&self, server: SocketAddr) -> Result<Message, Failure> {
        let bytes = self.0.to_vec().map_err(|e| e.to_string())?;
        let late = |_| format!("no answer within {ATTEMPT:?}");
        let mut message = timeout(ATTEMPT, self.over_udp(server, &bytes)).await.map_err(late)??;
        if message.metadata.truncation {
            let over_tcp = timeout(ATTEMPT, self.over_tcp(server, &bytes)).await.map_err(late);
            let failed = |failure: Failure| format!("the answer is truncated; over TCP: {}", failure.reason);
            message = over_tcp.map_err(Failure::from).and_then(|result| result).map_err(failed)?;
        }
        match message.metadata.response_code {
            ResponseCode::NoError if is_referral(&message) => {
                Err("it refers to other servers instead of an answer".to_owned().into())
            }
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(message),
            code => Err(Failure { reason: format!("it answers {code:?} ({code})"), code: Some(code) }),
        }
    }

    async fn over_udp(&self, server: SocketAddr, bytes: &[u8]) -> Result<Message, Failure> {
        let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        let socket = UdpSocket::bind((any, 0)).await?;
        // The kernel reports a closed port, and drops packets of others.
        socket.connect(server).await?;
        socket.send(bytes).await?;
        let mut buffer = vec![0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let received = buffer.get(..length).unwrap_or_default();
            // A packet for another question is late, or forged.
            if let Some(answer) = self.read(received) {
                return answer;
            }
        }
    }

    async fn over_tcp(&self, server: SocketAddr, bytes: &[u8]) -> Result<Message, Failure> {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(bytes.len()).map_err(|e| e.to_string())?;
        stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
        let length = stream.read_u16().await?;
        let mut received = vec![0; usize::from(length)];
        stream.read_exact(&mut received).await?;
        let message = self.read(&received).ok_or_else(|| "the answer is for another question".to_owned())??;
        if message.metadata.truncation { Err("this answer is truncated too".to_owned().into()) } else { Ok(message) }
    }

    /// The answer to this question. `None` if it is for another one.
    fn read(&self, bytes: &[u8]) -> Option<Result<Message, Failure>> {
        if !bytes.starts_with(&self.0.metadata.id.to_be_bytes()) {
            return None;
        }
        match Message::from_vec(bytes) {
            Ok(message) if message.metadata.message_type != MessageType::Response => None,
            // An error response may lack the question.
            Ok(message) if message.queries.is_empty() && message.metadata.response_code != ResponseCode::NoError => {
                Some(Ok(message))
            }
            Ok(message) => (message.queries == self.0.queries).then_some(Ok(message)),
            Err(e) => Some(Err(format!("its answer is malformed: {e}").into())),
        }
    }
}
