//! Calls pass whole, over HTTP/2 to backends with TLS and without.

use bytes::Bytes;

use super::{UNCHECKED, block_on, lab};
use crate::lab::PATIENCE;
use crate::lab::client::tls_config;
use crate::lab::grpc::{Channel, GrpcBackend, Messages, frame, read, send};

#[test]
fn all_kinds_of_calls_pass() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        block_on(async {
            let channel = Channel::connect(port).await;
            let reply = channel.call("/lab/Echo", &[], &[b"once"]).await;
            assert_eq!((reply.status(), &reply.messages[..]), ("0", &[Bytes::from("once")][..]));
            let reply = channel.call("/lab/Count", &[], &[b"a", b"", b"c"]).await;
            assert_eq!((reply.status(), &reply.messages[0][..]), ("0", &b"3"[..]));
            assert_eq!(reply.trailers["x-lab-trailer"], "kept");
            let reply = channel.call("/lab/Repeat", &[], &[b"5"]).await;
            assert_eq!((reply.status(), reply.messages.concat()), ("0", b"01234".to_vec()));
            // Each message is answered before the next is sent.
            let (response, mut sending) = channel.open("/lab/Echo", &[]).await;
            let mut messages = Messages::new(response.await.unwrap().into_body());
            for word in ["one", "two", "three"] {
                send(&mut sending, frame(word.as_bytes())).await.unwrap();
                assert_eq!(messages.next().await.unwrap().unwrap(), word);
            }
            sending.send_data(Bytes::new(), true).unwrap();
            assert_eq!(messages.next().await.unwrap(), None);
            assert_eq!(messages.trailers().await.unwrap()["grpc-status"], "0");
        });
        for headers in backend.calls() {
            assert_eq!(
                (&headers["te"], &headers["content-type"]),
                (&"trailers".parse().unwrap(), &"application/grpc".parse().unwrap())
            );
        }
    }
}

#[test]
fn deadlines_and_refusals_of_the_backend_come_back() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        block_on(async {
            let channel = Channel::connect(port).await;
            let reply = channel.call("/lab/TooLate", &[("grpc-timeout", "250m"), ("x-data-bin", "AAE")], &[b"x"]).await;
            assert_eq!((reply.head.status.as_u16(), reply.status()), (200, "4"));
            let reply = channel.call("/lab/TrailersOnly", &[], &[b"x"]).await;
            assert_eq!((reply.status(), reply.messages.len()), ("5", 0));
            assert!(reply.head.headers.contains_key("grpc-status"), "{reply:?}");
            assert!(reply.is_trailers_only, "{reply:?}");
        });
        assert_eq!(backend.calls()[0]["grpc-timeout"], "250m");
        assert_eq!(backend.calls()[0]["x-data-bin"], "AAE");
    }
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_backend() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        block_on(async {
            let channel = Channel::connect(port).await;
            for path in ["/lab/Hang", "/lab/HangBehindHeader"] {
                let calls = backend.calls().len();
                let (response, mut sending) = channel.open(path, &[]).await;
                send(&mut sending, frame(b"x")).await.unwrap();
                let _kept = if path.ends_with("Header") { Some(response.await.unwrap()) } else { None };
                while backend.calls().len() == calls {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                sending.send_reset(h2::Reason::CANCEL);
                let until = std::time::Instant::now() + PATIENCE;
                let reset = loop {
                    match backend.resets.try_recv() {
                        Ok(reason) => break reason,
                        Err(_) => assert!(std::time::Instant::now() < until, "{path}: no reset"),
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                };
                assert_eq!(reset, h2::Reason::CANCEL, "{path}");
            }
            // The connection goes on.
            assert_eq!(channel.call("/lab/Echo", &[], &[b"x"]).await.status(), "0");
        });
    }
}

#[test]
fn large_messages_pass_in_both_directions() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        let large: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 251) as u8).collect();
        block_on(async {
            let channel = Channel::connect(port).await;
            let reply = channel.call("/lab/Echo", &[], &[&large, b"small"]).await;
            assert_eq!(reply.status(), "0");
            assert!(reply.messages[0] == large && reply.messages[1] == "small");
        });
    }
}

#[test]
fn an_outcome_in_the_middle_of_an_upload_comes_back() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        let large = vec![b'x'; 8 << 20];
        block_on(async {
            let channel = Channel::connect(port).await;
            for _ in 0..3 {
                let reply = channel.call("/lab/TrailersOnly", &[], &[&large]).await;
                assert_eq!(reply.status(), "5");
            }
            assert_eq!(channel.call("/lab/Echo", &[], &[b"x"]).await.status(), "0", "the connection goes on");
        });
    }
}

#[test]
fn grpc_clients_come_over_tls() {
    let backend = GrpcBackend::start(true);
    let port = crate::lab::free_port();
    let lab = crate::lab::Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}', tls: {{ certificates: [{{ certificate: localhost.pem, key: localhost-key.pem }}] }} }}]\n\
         pools:\n  a: {{ {}, {UNCHECKED}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n\
         routes: [{{ path: /lab, pool: a }}]\n",
        super::protocol(true),
        backend.port
    ));
    block_on(async {
        let connector = tokio_rustls::TlsConnector::from(tls_config(lab.folder(), &["h2"]));
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let channel = Channel::over(stream).await;
        let reply = channel.call("/lab/Echo", &[], &[b"one", b"two"]).await;
        assert_eq!((reply.status(), reply.messages.len()), ("0", 2));
        assert_eq!(channel.call("/nowhere", &[], &[b"x"]).await.status(), "12");
    });
}

#[test]
fn a_hundred_calls_at_once_share_connections() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        block_on(async {
            let channel = Channel::connect(port).await;
            let mut open = Vec::new();
            for number in 0..100_u32 {
                let (response, mut sending) = channel.open("/lab/Echo", &[]).await;
                send(&mut sending, frame(number.to_string().as_bytes())).await.unwrap();
                let mut messages = Messages::new(response.await.unwrap().into_body());
                assert_eq!(messages.next().await.unwrap().unwrap(), number.to_string());
                open.push((sending, messages));
            }
            // All are open; the last one talks first.
            for (sending, messages) in open.iter_mut().rev() {
                send(sending, frame(b"again")).await.unwrap();
                assert_eq!(messages.next().await.unwrap().unwrap(), "again");
            }
            assert!(backend.connections() <= 2, "{} connections", backend.connections());
            for (mut sending, mut messages) in open {
                sending.send_data(Bytes::new(), true).unwrap();
                assert_eq!(messages.next().await.unwrap(), None);
                assert_eq!(messages.trailers().await.unwrap()["grpc-status"], "0");
            }
        });
    }
}

#[test]
fn a_call_that_the_backend_resets_does_not_hurt_its_neighbours() {
    let backend = GrpcBackend::start(false);
    let (_lab, port) = lab(&backend, false, UNCHECKED, "");
    block_on(async {
        let channel = Channel::connect(port).await;
        let (response, mut sending) = channel.open("/lab/Echo", &[]).await;
        let mut messages = Messages::new(response.await.unwrap().into_body());
        for round in 0..3 {
            let (refused, mut other) = channel.open("/lab/Reset", &[]).await;
            other.send_data(frame(b"x"), true).ok();
            let reply = read(refused).await.unwrap();
            assert_eq!((reply.head.status.as_u16(), reply.status()), (200, "14"), "{reply:?}");
            send(&mut sending, frame(&[round])).await.unwrap();
            assert_eq!(messages.next().await.unwrap().unwrap(), &[round][..]);
        }
    });
    assert_eq!(backend.connections(), 1);
}
