//! Calls are proxied unchanged, over HTTP/2 to backends with and without TLS.

use bytes::Bytes;

use super::{UNCHECKED, block_on, lab};
use crate::lab::PATIENCE;
use crate::lab::client::tls_config;
use crate::lab::grpc::{Channel, GrpcBackend, Messages, frame, read, send};

#[test]
fn unary_and_streaming_calls_are_proxied() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        block_on(async {
            let channel = Channel::connect(port).await;
            let response = channel.call("/lab/Echo", &[], &[b"once"]).await;
            assert_eq!((response.status(), &response.messages[..]), ("0", &[Bytes::from("once")][..]));
            let response = channel.call("/lab/Count", &[], &[b"a", b"", b"c"]).await;
            assert_eq!((response.status(), &response.messages[0][..]), ("0", &b"3"[..]));
            assert_eq!(response.trailers["x-lab-trailer"], "kept");
            let response = channel.call("/lab/Repeat", &[], &[b"5"]).await;
            assert_eq!((response.status(), response.messages.concat()), ("0", b"01234".to_vec()));
            // The backend responds to each message before the next is sent.
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
fn deadlines_reach_the_backend_and_its_error_statuses_reach_the_client() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        block_on(async {
            let channel = Channel::connect(port).await;
            let response =
                channel.call("/lab/TooLate", &[("grpc-timeout", "250m"), ("x-data-bin", "AAE")], &[b"x"]).await;
            assert_eq!((response.head.status.as_u16(), response.status()), (200, "4"));
            let response = channel.call("/lab/TrailersOnly", &[], &[b"x"]).await;
            assert_eq!((response.status(), response.messages.len()), ("5", 0));
            assert!(response.head.headers.contains_key("grpc-status"), "{response:?}");
            assert!(response.is_trailers_only, "{response:?}");
        });
        assert_eq!(backend.calls()[0]["grpc-timeout"], "250m");
        assert_eq!(backend.calls()[0]["x-data-bin"], "AAE");
    }
}

#[test]
fn cancelled_call_is_cancelled_at_the_backend() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        block_on(async {
            let channel = Channel::connect(port).await;
            for path in ["/lab/Hang", "/lab/HangBehindHeader"] {
                let calls = backend.calls().len();
                let (response, mut sending) = channel.open(path, &[]).await;
                send(&mut sending, frame(b"x")).await.unwrap();
                let _response = if path.ends_with("Header") { Some(response.await.unwrap()) } else { None };
                while backend.calls().len() == calls {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                sending.send_reset(h2::Reason::CANCEL);
                let deadline = std::time::Instant::now() + PATIENCE;
                let reset = loop {
                    match backend.resets.try_recv() {
                        Ok(reason) => break reason,
                        Err(_) => assert!(std::time::Instant::now() < deadline, "{path}: no reset"),
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                };
                assert_eq!(reset, h2::Reason::CANCEL, "{path}");
            }
            // The client's connection stays usable.
            assert_eq!(channel.call("/lab/Echo", &[], &[b"x"]).await.status(), "0");
        });
    }
}

#[test]
fn large_messages_are_proxied_in_both_directions() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        let large: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 251) as u8).collect();
        block_on(async {
            let channel = Channel::connect(port).await;
            let response = channel.call("/lab/Echo", &[], &[&large, b"small"]).await;
            assert_eq!(response.status(), "0");
            assert!(response.messages[0] == large && response.messages[1] == "small");
        });
    }
}

#[test]
fn status_sent_before_the_upload_ends_reaches_the_client() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (_lab, port) = lab(&backend, tls, UNCHECKED, "");
        let large = vec![b'x'; 8 << 20];
        block_on(async {
            let channel = Channel::connect(port).await;
            for _ in 0..3 {
                let response = channel.call("/lab/TrailersOnly", &[], &[&large]).await;
                assert_eq!(response.status(), "5");
            }
            assert_eq!(channel.call("/lab/Echo", &[], &[b"x"]).await.status(), "0", "the connection stays usable");
        });
    }
}

#[test]
fn grpc_clients_are_served_over_tls() {
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
        let response = channel.call("/lab/Echo", &[], &[b"one", b"two"]).await;
        assert_eq!((response.status(), response.messages.len()), ("0", 2));
        assert_eq!(channel.call("/nowhere", &[], &[b"x"]).await.status(), "12");
    });
}

#[test]
fn hundred_concurrent_calls_share_backend_connections() {
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
            // All calls are open. Messages are sent in reverse order of the calls.
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
fn call_reset_by_the_backend_does_not_affect_other_calls_on_the_connection() {
    let backend = GrpcBackend::start(false);
    let (_lab, port) = lab(&backend, false, UNCHECKED, "");
    block_on(async {
        let channel = Channel::connect(port).await;
        let (response, mut sending) = channel.open("/lab/Echo", &[]).await;
        let mut messages = Messages::new(response.await.unwrap().into_body());
        for round in 0..3 {
            let (reset, mut other) = channel.open("/lab/Reset", &[]).await;
            other.send_data(frame(b"x"), true).ok();
            let response = read(reset).await.unwrap();
            assert_eq!((response.head.status.as_u16(), response.status()), (200, "14"), "{response:?}");
            send(&mut sending, frame(&[round])).await.unwrap();
            assert_eq!(messages.next().await.unwrap().unwrap(), &[round][..]);
        }
    });
    assert_eq!(backend.connections(), 1);
}
