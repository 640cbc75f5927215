//! The source with a DNS server in the test: transport, failures, and lists.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{RData, Record};

use super::*;
use crate::base::fault::{Faults, Place};

/// What a server answers to a question; `None` for no answer.
type Answers = dyn Fn(&Name, RecordType, &mut Message) -> Option<()> + Send + Sync;

/// A DNS server at one port, over UDP and TCP.
struct Server {
    address: SocketAddr,
    over_tcp: Arc<AtomicUsize>,
}

impl Server {
    fn start(answers: impl Fn(&Name, RecordType, &mut Message) -> Option<()> + Send + Sync + 'static) -> Self {
        let (udp, tcp) = std::iter::repeat_with(|| {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            UdpSocket::bind(tcp.local_addr().unwrap()).map(|udp| (udp, tcp))
        })
        .find_map(Result::ok)
        .unwrap();
        let (address, over_tcp) = (tcp.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let answers: Arc<Answers> = Arc::new(answers);
        let (of_tcp, count) = (Arc::clone(&answers), Arc::clone(&over_tcp));
        std::thread::spawn(move || serve_udp(&udp, &*answers));
        std::thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                serve_tcp(stream, &*of_tcp);
            }
        });
        Self { address, over_tcp }
    }
}

fn reply(bytes: &[u8], answers: &Answers) -> Option<Message> {
    let question = Message::from_vec(bytes).unwrap();
    let query = question.queries[0].clone();
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.add_query(query.clone());
    answers(query.name(), query.query_type(), &mut reply)?;
    Some(reply)
}

fn serve_udp(socket: &UdpSocket, answers: &Answers) {
    let mut buffer = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut buffer) {
        let Some(mut message) = reply(&buffer[..length], answers) else { continue };
        if message.to_vec().unwrap().len() > 1232 {
            message.answers.truncate(3);
            message.metadata.truncation = true;
        }
        // A forged answer first: it must not count.
        let mut forged = message.clone();
        forged.metadata.id = forged.metadata.id.wrapping_add(1);
        forged.answers = vec![Record::from_rdata(Name::root(), 1, RData::A(A::new(6, 6, 6, 6)))];
        socket.send_to(&forged.to_vec().unwrap(), client).unwrap();
        socket.send_to(&message.to_vec().unwrap(), client).unwrap();
    }
}

fn serve_tcp(mut stream: std::net::TcpStream, answers: &Answers) {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes).unwrap();
    let Some(message) = reply(&bytes, answers) else { return };
    let bytes = message.to_vec().unwrap();
    stream.write_all(&u16::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
}

fn add(message: &mut Message, name: &Name, ttl: u32, data: RData) {
    message.add_answer(Record::from_rdata(name.clone(), ttl, data));
}

fn code(message: &mut Message, code: ResponseCode) -> Option<()> {
    message.metadata.response_code = code;
    Some(())
}

fn source(yaml: &str, accepts_empty: bool) -> DnsSource {
    let config: Config = serde_yaml::from_value(serde_yaml::from_str(yaml).unwrap()).unwrap();
    let mut faults = Faults::default();
    let spec = config.check(accepts_empty, &Place::root(), &mut faults);
    assert!(faults.is_empty(), "{:?}", faults.into_vec());
    DnsSource::new(spec.unwrap())
}

fn at(server: &Server, more: &str) -> DnsSource {
    source(&format!("{{ name: api.x., resolvers: ['{}'], {more} }}", server.address), false)
}

async fn read(source: &DnsSource) -> Result<Vec<String>, String> {
    let (found, _) = source.discover().await.map_err(|e| super::super::reason(&e))?;
    let describe = |found: &Found| format!("{} {} {}", found.address, found.weight, found.backup);
    Ok(super::super::found(&found).iter().map(describe).collect())
}

#[tokio::test]
async fn addresses_of_both_families_are_backends() {
    let server = Server::start(|name, kind, message| {
        match kind {
            RecordType::A => add(message, name, 60, RData::A(A::new(127, 0, 0, 1))),
            RecordType::AAAA => add(message, name, 60, RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 1))),
            _ => {}
        }
        Some(())
    });
    assert_eq!(read(&at(&server, "port: 80")).await.unwrap(), ["127.0.0.1:80 1 false", "[::1]:80 1 false"]);
    assert_eq!(read(&at(&server, "port: 80, family: ipv4")).await.unwrap(), ["127.0.0.1:80 1 false"]);
    assert_eq!(read(&at(&server, "port: 80, family: ipv6")).await.unwrap(), ["[::1]:80 1 false"]);
    assert_eq!(server.over_tcp.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn list_is_read_again_after_its_time_to_live_within_the_bounds() {
    for (ttl, expected) in [(0, 2), (2, 2), (5, 5), (3000, 9)] {
        let server = Server::start(move |name, kind, message| {
            if kind == RecordType::A {
                add(message, name, ttl, RData::A(A::new(127, 0, 0, 1)));
            }
            Some(())
        });
        let source = at(&server, "port: 80, minimum_ttl: 2s, max_ttl: 9s");
        read(&source).await.unwrap();
        assert_eq!(*source.ttl.lock(), Duration::from_secs(expected), "{ttl}");
    }
}

#[tokio::test(start_paused = true)]
async fn change_is_expected_after_the_time_to_live() {
    let source = source("{ name: api.x., port: 80 }", false);
    *source.ttl.lock() = Duration::from_secs(7);
    let before = tokio::time::Instant::now();
    source.changed().await;
    assert_eq!(before.elapsed().as_secs(), 7);
}

#[tokio::test]
async fn thousand_records_arrive_over_tcp() {
    let server = Server::start(|name, kind, message| {
        if kind == RecordType::A {
            for i in 0..1000_u16 {
                let [high, low] = i.to_be_bytes();
                add(message, name, 60, RData::A(A::new(10, 0, high, low)));
            }
        }
        Some(())
    });
    assert_eq!(read(&at(&server, "port: 80")).await.unwrap().len(), 1000);
    assert_eq!(server.over_tcp.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn answer_that_stays_truncated_is_an_error() {
    let server = Server::start(|_, _, message| {
        message.metadata.truncation = true;
        Some(())
    });
    let error = read(&at(&server, "port: 80")).await.unwrap_err();
    assert!(error.contains("the answer is truncated; over TCP: this answer is truncated too"), "{error}");
}

#[tokio::test]
async fn name_without_address_is_an_error_unless_empty_lists_are_accepted() {
    for nothing in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let server = Server::start(move |_, _, message| code(message, nothing));
        assert_eq!(read(&at(&server, "port: 80")).await.unwrap_err(), "the name has no address");
        assert_eq!(read(&at(&server, "type: srv")).await.unwrap_err(), "the name has no SRV record");
        let yaml = format!("{{ name: api.x., port: 80, resolvers: ['{}'] }}", server.address);
        assert_eq!(read(&source(&yaml, true)).await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn failure_for_one_family_is_a_failure_of_the_source() {
    let server = Server::start(|name, kind, message| {
        if kind == RecordType::AAAA {
            return code(message, ResponseCode::ServFail);
        }
        add(message, name, 60, RData::A(A::new(127, 0, 0, 1)));
        Some(())
    });
    let yaml = format!("{{ name: api.x., port: 80, resolvers: ['{}'] }}", server.address);
    for accepts_empty in [false, true] {
        let error = read(&source(&yaml, accepts_empty)).await.unwrap_err();
        assert!(error.starts_with(&format!("resolver {}: it answers ServFail", server.address)), "{error}");
    }
}

#[tokio::test]
async fn loop_of_aliases_is_an_error_of_the_source() {
    let server = Server::start(|name, _, message| {
        let target = if name.to_ascii() == "api.x." { "b.x." } else { "api.x." };
        add(message, name, 60, RData::CNAME(CNAME(Name::from_ascii(target).unwrap())));
        Some(())
    });
    let yaml = format!("{{ name: api.x., port: 80, resolvers: ['{}'] }}", server.address);
    let error = read(&source(&yaml, true)).await.unwrap_err();
    assert_eq!(error, "the CNAME records of `api.x.` form a loop");
}

#[tokio::test]
async fn next_resolver_is_asked_after_a_failure_and_keeps_its_turn() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let broken = Server::start(move |_, _, message| {
        count.fetch_add(1, Ordering::Relaxed);
        code(message, ResponseCode::ServFail)
    });
    let good = Server::start(|name, kind, message| {
        if kind == RecordType::A {
            add(message, name, 60, RData::A(A::new(127, 0, 0, 1)));
        }
        Some(())
    });
    let unused = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let resolvers = format!("['{unused}', '{}', '{}']", broken.address, good.address);
    let source = source(&format!("{{ name: api.x., port: 80, family: ipv4, resolvers: {resolvers} }}"), false);
    for _ in 0..3 {
        assert_eq!(read(&source).await.unwrap(), ["127.0.0.1:80 1 false"]);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn server_that_does_not_respond_is_an_error_within_three_seconds() {
    let server = Server::start(|_, _, _| None);
    let before = tokio::time::Instant::now();
    let error = read(&at(&server, "port: 80")).await.unwrap_err();
    assert!(error.contains("no answer within"), "{error}");
    assert!(before.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn closed_port_of_a_resolver_is_an_error() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let source = source(&format!("{{ name: api.x., port: 80, resolvers: ['{closed}'] }}"), false);
    assert!(read(&source).await.unwrap_err().contains("refused"));
}

#[tokio::test]
async fn server_without_edns_is_asked_without_it() {
    // The test server sees the question only as name and type, so it rejects the first one of each.
    let asked = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |name, _, message| {
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            return code(message, ResponseCode::FormErr);
        }
        add(message, name, 60, RData::A(A::new(127, 0, 0, 1)));
        Some(())
    });
    assert_eq!(read(&at(&server, "port: 80, family: ipv4")).await.unwrap(), ["127.0.0.1:80 1 false"]);
}

#[tokio::test]
async fn services_are_backends_at_the_addresses_of_their_targets() {
    let server = Server::start(|name, kind, message| {
        let text = name.to_ascii();
        match kind {
            RecordType::SRV if text == "_http._tcp.api.x." => {
                for (priority, weight, port, target) in
                    [(1, 60000, 80, "n7.x."), (1, 30000, 81, "n8.x."), (2, 0, 80, "n9.x."), (1, 1, 80, "gone.x.")]
                {
                    let target = Name::from_ascii(target).unwrap();
                    add(message, name, 60, RData::SRV(SRV::new(priority, weight, port, target)));
                }
            }
            RecordType::A if text.starts_with('n') => {
                add(message, name, 4, RData::A(A::new(127, 0, 0, text.as_bytes()[1] - b'0')));
            }
            RecordType::A => return code(message, ResponseCode::NXDomain),
            _ => {}
        }
        Some(())
    });
    let yaml = format!("{{ name: _http._tcp.api.x., type: srv, resolvers: ['{}'] }}", server.address);
    let source = source(&yaml, false);
    let expected = ["127.0.0.7:80 1000 false", "127.0.0.8:81 500 false", "127.0.0.9:80 1 true"];
    assert_eq!(read(&source).await.unwrap(), expected);
    assert_eq!(*source.ttl.lock(), Duration::from_secs(4));
}

#[tokio::test]
async fn thousand_services_are_read() {
    let server = Server::start(|name, kind, message| {
        let text = name.to_ascii();
        match kind {
            RecordType::SRV => {
                for i in 0..1000_u16 {
                    let target = Name::from_ascii(format!("n{i}.x.")).unwrap();
                    add(message, name, 60, RData::SRV(SRV::new(1, 1, 80, target)));
                }
            }
            RecordType::A => {
                let number: u16 = text.trim_matches(['n', 'x', '.']).parse().unwrap();
                let [high, low] = number.to_be_bytes();
                add(message, name, 60, RData::A(A::new(10, 0, high, low)));
            }
            _ => {}
        }
        Some(())
    });
    assert_eq!(read(&at(&server, "type: srv")).await.unwrap().len(), 1000);
}
