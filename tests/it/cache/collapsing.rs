//! Concurrent requests for one response that is not stored yet: the first is forwarded, the others use its response.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::origin::{Origin, ok};
use super::wire::{Client, Kind, Message, get, head, read, read_head};
use super::{cached, configuration, with_store};
use crate::lab::{Lab, PATIENCE, eventually, free_port};

/// Blocks threads until the test opens it.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// Counts the requests that an origin received.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    /// The number of this request, from 1.
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn wait_for(&self, number: usize) {
        eventually("the requests reach the origin", PATIENCE, || self.get() >= number);
    }
}

const FIRST: &[u8] = b"first half, ";
const SECOND: &[u8] = b"second half";
const CACHEABLE: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 23\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";

/// An origin that sends half of a body, and the rest when the gate opens.
fn halved() -> (Origin, Gate, Count) {
    interrupted([CACHEABLE.as_bytes(), FIRST].concat(), SECOND.to_vec())
}

/// An origin that sends the first bytes, and the others when the gate opens.
fn interrupted(first: Vec<u8>, others: Vec<u8>) -> (Origin, Gate, Count) {
    let (gate, count) = (Gate::default(), Count::default());
    let (waiting, counted) = (gate.clone(), count.clone());
    let origin = Origin::start(move |_, stream| {
        counted.next();
        stream.write_all(&first)?;
        waiting.pass();
        stream.write_all(&others)
    });
    (origin, gate, count)
}

/// Sends a GET and reads the head and the first half of the body.
fn first_half(port: u16) -> Client {
    let mut client = Client::connect(port);
    client.send(&head("GET", "/object", &[]));
    assert_eq!(read_head(&mut client.reader).expect("a head").status(), 200);
    let mut half = [0; FIRST.len()];
    client.reader.read_exact(&mut half).expect("the first bytes while the rest is missing");
    assert_eq!(half, FIRST);
    client
}

fn second_half(mut client: Client) {
    let mut half = [0; SECOND.len()];
    client.reader.read_exact(&mut half).unwrap();
    assert_eq!(half, SECOND);
}

/// An origin that delays its first response until the gate opens. `respond` gets the number of the request.
fn first_delayed(
    respond: impl Fn(usize, Message, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> (Origin, Gate, Count) {
    let (gate, count) = (Gate::default(), Count::default());
    let (waiting, counted) = (gate.clone(), count.clone());
    let origin = Origin::start(move |request, stream| {
        let number = counted.next();
        if number == 1 {
            waiting.pass();
        }
        respond(number, request, stream)
    });
    (origin, gate, count)
}

/// Sends a GET request with the first of these values, and the others while its response is delayed.
fn behind_the_first(
    port: u16,
    (gate, count): (&Gate, &Count),
    name: &'static str,
    values: Vec<String>,
) -> Vec<JoinHandle<Message>> {
    let mut fields = values.into_iter().map(|value| (name, value));
    let mut clients = together(port, fields.by_ref().take(1).collect());
    count.wait_for(1);
    clients.extend(together(port, fields.collect()));
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    clients
}

/// Sends GET requests with these fields at once.
fn together(port: u16, fields: Vec<(&'static str, String)>) -> Vec<JoinHandle<Message>> {
    fields
        .into_iter()
        .map(|(name, value)| std::thread::spawn(move || get(port, "/object", &[(name, &value)])))
        .collect()
}

#[test]
fn concurrent_requests_cause_one_request_and_get_the_body_while_it_arrives() {
    let (origin, gate, count) = halved();
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let halves = Count::default();
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let halves = halves.clone();
            std::thread::spawn(move || {
                let client = first_half(port);
                halves.next();
                second_half(client);
            })
        })
        .collect();
    eventually("all clients have the first bytes", PATIENCE, || {
        halves.get() == 50 || clients.iter().any(JoinHandle::is_finished)
    });
    gate.open();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(count.get(), 1);
    assert!(get(port, "/object", &[]).is_hit());
    assert_eq!(count.get(), 1);
}

/// Requests that find nothing stored just before the first response begins must not be forwarded just after it.
#[test]
fn requests_that_arrive_while_a_response_begins_cause_no_second_request() {
    const CLIENTS: usize = 12;
    let counts = Arc::new(Mutex::new(HashMap::<String, usize>::new()));
    let counted = Arc::clone(&counts);
    let origin = Origin::responding(move |request| {
        *counted.lock().unwrap().entry(request.target().to_owned()).or_default() += 1;
        ok("Cache-Control: max-age=60\r\n", "x")
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let start = Arc::new(Barrier::new(CLIENTS));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                let mut client = Client::connect(port);
                for round in 0..200 {
                    start.wait();
                    assert_eq!(client.ask("GET", &format!("/{round}"), &[]).text(), "x");
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let repeated = counts.lock().unwrap().values().filter(|count| **count > 1).count();
    assert_eq!(repeated, 0, "of 200 targets");
}

#[test]
fn slow_client_does_not_slow_other_clients_of_the_same_response() {
    const LENGTH: usize = 16 << 20;
    let count = Count::default();
    let counted = count.clone();
    let origin = Origin::start(move |_, stream| {
        counted.next();
        write!(stream, "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LENGTH}\r\n\r\n")?;
        (0..LENGTH >> 16).try_for_each(|part| stream.write_all(&[part.to_le_bytes()[0]; 1 << 16]))
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    // The first client, which causes the request, does not read.
    let mut slow = Client::connect(port);
    slow.send(&head("GET", "/object", &[]));
    count.wait_for(1);
    for _ in 0..2 {
        let fast = get(port, "/object", &[]);
        assert!(fast.is_complete && fast.body.len() == LENGTH);
    }
    assert_eq!(count.get(), 1);
    let late = read(&mut slow.reader, Kind::Response).unwrap();
    assert!(late.is_complete && late.body.len() == LENGTH);
    assert!(late.body.chunks(1 << 16).enumerate().all(|(part, bytes)| bytes[0] == part.to_le_bytes()[0]));
}

#[test]
fn response_that_is_not_stored_releases_all_waiting_requests_at_once() {
    let (gate, count) = (Gate::default(), Count::default());
    let (waiting, counted) = (gate.clone(), count.clone());
    let together_at_origin = Arc::new(Barrier::new(19));
    let origin = Origin::start(move |request, stream| {
        if counted.next() == 1 {
            waiting.pass();
        } else {
            // Passes only if all 19 arrive without waiting for each other's responses.
            together_at_origin.wait();
        }
        let client = request.field("x-client").unwrap();
        stream.write_all(ok("Cache-Control: no-store\r\n", &client).as_bytes())
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "lock_timeout: 60s");
    let mut clients = together(port, vec![("X-Client", "0".to_owned())]);
    count.wait_for(1);
    clients.extend(together(port, (1..20).map(|number| ("X-Client", number.to_string())).collect()));
    // They arrive at the balancer; nothing shows that they wait, except that they do not reach the origin.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count.get(), 1, "the others wait for the first");
    gate.open();
    for (number, client) in clients.into_iter().enumerate() {
        assert_eq!(client.join().unwrap().text(), number.to_string(), "each client has its own response");
    }
    assert_eq!(count.get(), 20);
}

#[test]
fn first_client_that_leaves_during_the_body_does_not_abort_it_for_others() {
    let (origin, gate, count) = halved();
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let first = first_half(port);
    let second = first_half(port);
    drop(first);
    // The balancer need not notice it before it has something to send.
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    second_half(second);
    assert!(get(port, "/object", &[]).is_hit());
    assert_eq!(count.get(), 1);
}

#[test]
fn first_client_that_leaves_before_the_header_does_not_fail_others() {
    let (gate, count) = (Gate::default(), Count::default());
    let (waiting, counted) = (gate.clone(), count.clone());
    let origin = Origin::start(move |_, stream| {
        counted.next();
        waiting.pass();
        stream.write_all(ok("Cache-Control: max-age=60\r\n", "whole").as_bytes())
    });
    let port = free_port();
    let lab = cached(port, origin.port, "lock_timeout: 60s");
    let mut first = Client::connect(port);
    first.send(&head("GET", "/object", &[]));
    count.wait_for(1);
    let second = std::thread::spawn(move || get(port, "/object", &[]));
    std::thread::sleep(Duration::from_millis(200));
    drop(first);
    lab.wait_for_access("cause=client_closed");
    gate.open();
    assert_eq!(second.join().unwrap().text(), "whole");
    // The request of the first client goes on, or the second client sends its own.
    assert!(count.get() <= 2, "{}", count.get());
}

#[test]
fn request_that_waits_longer_than_the_lock_timeout_is_forwarded() {
    let (origin, gate, count) = first_delayed(|number, _, stream| {
        stream.write_all(ok("Cache-Control: max-age=60\r\n", &format!("response {number}")).as_bytes())
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "lock_timeout: 300ms");
    let first = std::thread::spawn(move || get(port, "/object", &[]));
    count.wait_for(1);
    assert_eq!(get(port, "/object", &[]).text(), "response 2", "although the first is still on its way");
    gate.open();
    assert_eq!(first.join().unwrap().text(), "response 1");
}

#[test]
fn body_that_ends_early_is_incomplete_for_all_clients_and_is_not_stored() {
    let (gate, count) = (Gate::default(), Count::default());
    let (waiting, counted) = (gate.clone(), count.clone());
    let origin = Origin::start(move |_, stream: &mut TcpStream| {
        let number = counted.next();
        stream.write_all(&[CACHEABLE.as_bytes(), FIRST].concat())?;
        if number == 1 {
            waiting.pass();
            return Err(std::io::Error::other("truncated"));
        }
        stream.write_all(SECOND)
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let mut clients: Vec<Client> = (0..3).map(|_| first_half(port)).collect();
    gate.open();
    for client in &mut clients {
        let mut rest = Vec::new();
        client.reader.read_to_end(&mut rest).ok();
        assert!(rest.is_empty(), "{rest:?}");
    }
    assert_eq!(count.get(), 1);
    let next = get(port, "/object", &[]);
    assert!(!next.is_hit() && next.is_complete);
    assert_eq!(count.get(), 2);
}

#[test]
fn cause_of_a_body_that_ends_early_is_in_the_log_line_of_the_first_client() {
    // It waits until the balancer closes the connection.
    let origin = Origin::start(|_, stream| {
        stream.write_all(&[CACHEABLE.as_bytes(), FIRST].concat())?;
        stream.read(&mut [0]).map(drop)
    });
    let port = free_port();
    let route = format!("  - {{ path: /, pool: a, cache: {{ {} }} }}\n", with_store(""));
    let timeout = "passive_health: off, timeouts: { idle: 300ms }";
    let lab = Lab::start(&configuration(port, origin.port, &route).replace("passive_health: off", timeout));
    let _client = first_half(port);
    lab.wait_for_access("cause=idle_timeout");
}

/// A body without a known length exceeds the limit while others read it from the cache.
#[test]
fn response_that_becomes_too_large_is_complete_for_all_clients() {
    let rest = format!("2710\r\n{}\r\n0\r\n\r\n", "x".repeat(10_000));
    let (origin, gate, count) = interrupted(format!("{CHUNKED}c\r\nfirst half, \r\n").into(), rest.into());
    let port = free_port();
    let _lab = cached(port, origin.port, "max_object_size: 4KiB");
    let read_whole = |number: usize| {
        std::thread::spawn(move || {
            let response = get(port, "/object", &[]);
            assert!(response.is_complete, "client {number}");
            assert_eq!(response.body.len(), 10_012, "client {number}");
        })
    };
    let first = read_whole(1);
    count.wait_for(1);
    std::thread::sleep(Duration::from_millis(100));
    let second = read_whole(2);
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    [first, second].into_iter().for_each(|client| client.join().unwrap());
}

/// While the response that is too large still arrives, others neither read it nor wait for each other.
#[test]
fn requests_after_a_response_became_too_large_are_forwarded_at_once() {
    const LENGTH: usize = 4 << 20;
    let start = format!("{CHUNKED}{LENGTH:x}\r\n{}\r\n", "x".repeat(LENGTH));
    let (origin, gate, count) = interrupted(start.into(), b"3\r\nend\r\n0\r\n\r\n".to_vec());
    let port = free_port();
    let _lab = cached(port, origin.port, "max_object_size: 64KiB, lock_timeout: 60s");
    let mut first = Client::connect(port);
    first.send(&head("GET", "/object", &[("Connection", "close")]));
    assert_eq!(read_head(&mut first.reader).expect("a head").status(), 200);
    // Enough to know that the limit is exceeded.
    first.reader.read_exact(&mut vec![0; 1 << 20]).unwrap();
    let others: Vec<_> = (0..3).map(|_| std::thread::spawn(move || get(port, "/object", &[]))).collect();
    count.wait_for(4);
    gate.open();
    for other in others {
        assert_eq!(other.join().unwrap().body.len(), LENGTH + 3);
    }
    let mut body = Vec::new();
    first.reader.read_to_end(&mut body).unwrap();
    assert!(body.ends_with(b"3\r\nend\r\n0\r\n\r\n"), "{} bytes", body.len());
}

#[test]
fn waiting_request_of_another_variant_gets_its_own_response() {
    let (origin, gate, count) = first_delayed(|_, request, stream| {
        let variant = request.field("x-variant").unwrap();
        stream.write_all(ok("Cache-Control: max-age=60\r\nVary: X-Variant\r\n", &variant).as_bytes())
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "lock_timeout: 60s");
    let variants = (0..12).map(|number| (number % 3).to_string()).collect();
    let clients = behind_the_first(port, (&gate, &count), "X-Variant", variants);
    for (number, client) in clients.into_iter().enumerate() {
        assert_eq!(client.join().unwrap().text(), (number % 3).to_string());
    }
}

#[test]
fn waiting_requests_of_other_identities_get_their_own_response() {
    for fields in ["Cache-Control: max-age=60\r\n", "Cache-Control: private, max-age=60\r\n", ""] {
        let (origin, gate, count) = first_delayed(move |_, request, stream| {
            let identity = request.field("authorization").unwrap();
            stream.write_all(ok(fields, &identity).as_bytes())
        });
        let port = free_port();
        let _lab = cached(port, origin.port, "lock_timeout: 60s");
        let users = (0..10).map(|number| format!("user {number}")).collect();
        let clients = behind_the_first(port, (&gate, &count), "Authorization", users);
        for (number, client) in clients.into_iter().enumerate() {
            assert_eq!(client.join().unwrap().text(), format!("user {number}"), "{fields}");
        }
    }
}

#[test]
fn cookie_of_one_response_is_not_sent_to_waiting_clients() {
    let (origin, gate, count) = first_delayed(|number, _, stream| {
        let fields = format!("Cache-Control: max-age=60\r\nSet-Cookie: session={number}\r\n");
        stream.write_all(ok(&fields, "x").as_bytes())
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "lock_timeout: 60s");
    let numbers = (0..10).map(|number| number.to_string()).collect();
    let clients = behind_the_first(port, (&gate, &count), "X-Client", numbers);
    let mut cookies: Vec<_> = clients.into_iter().map(|client| client.join().unwrap().field("set-cookie")).collect();
    cookies.sort();
    cookies.dedup();
    assert_eq!(cookies.len(), 10, "{cookies:?}");
}

/// A 304 is about the response that was validated, although another one was stored in the meantime.
#[test]
fn late_validation_does_not_change_a_response_that_was_stored_meanwhile() {
    let (gate, count) = (Gate::default(), Count::default());
    let (waiting, counted) = (gate.clone(), count.clone());
    let origin = Origin::start(move |_, stream| match counted.next() {
        1 => stream.write_all(ok("Cache-Control: no-cache\r\nETag: \"old\"\r\n", "old").as_bytes()),
        2 => {
            waiting.pass();
            stream.write_all(b"HTTP/1.1 304 Not Modified\r\nETag: \"old\"\r\nCache-Control: max-age=60\r\n\r\n")
        }
        _ => stream.write_all(ok("Cache-Control: max-age=60\r\nETag: \"new\"\r\n", "newer").as_bytes()),
    });
    let port = free_port();
    let _lab = cached(port, origin.port, "lock_timeout: 200ms");
    assert_eq!(get(port, "/object", &[]).text(), "old");
    let validating = std::thread::spawn(move || get(port, "/object", &[]));
    count.wait_for(2);
    assert_eq!(get(port, "/object", &[]).text(), "newer", "after lock_timeout");
    gate.open();
    let late = validating.join().unwrap();
    assert_eq!((late.field("etag").as_deref(), late.text().as_str()), (Some("\"old\""), "old"));
    let next = get(port, "/object", &[]);
    let is_whole = [("\"old\"", "old"), ("\"new\"", "newer")]
        .into_iter()
        .any(|(tag, body)| next.field("etag").as_deref() == Some(tag) && next.text() == body);
    assert!(is_whole, "{next:?}");
}

/// A client that is not HTTP/1.1 uses the same fill.
#[test]
fn http2_client_shares_the_response_with_an_http1_client() {
    let (origin, gate, count) = halved();
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    let first = first_half(port);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let second = runtime.spawn(async move {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        crate::lab::client::get_h2(stream, "http://cache.test/object").await
    });
    std::thread::sleep(Duration::from_millis(200));
    gate.open();
    assert_eq!(runtime.block_on(second).unwrap(), (200, "first half, second half".to_owned()));
    second_half(first);
    assert_eq!(count.get(), 1);
}

/// The body of a stored response can be read at any speed, also byte by byte.
#[test]
fn stored_response_is_read_byte_by_byte() {
    let origin = Origin::responding(|_| ok("Cache-Control: max-age=60\r\n", "0123456789"));
    let port = free_port();
    let _lab = cached(port, origin.port, "");
    get(port, "/object", &[]);
    let client = Client::connect(port);
    let mut stream = client.reader.into_inner();
    for byte in head("GET", "/object", &[]) {
        stream.write_all(&[byte]).unwrap();
    }
    let response = read(&mut BufReader::new(stream), Kind::Response).unwrap();
    assert!(response.is_hit() && response.text() == "0123456789");
}
