//! What the balancer refuses, it refuses to gRPC clients in their own terms.

use bytes::Bytes;

use super::{UNCHECKED, block_on, lab};
use crate::lab::client::exchange;
use crate::lab::free_port;
use crate::lab::grpc::{Channel, GrpcBackend, Reply, read};

fn refused(reply: &Reply) -> (u16, &str, &str) {
    let headers = &reply.head.headers;
    assert_eq!(headers["content-type"], "application/grpc", "{reply:?}");
    assert!(reply.is_trailers_only && reply.messages.is_empty(), "{reply:?}");
    assert!(headers.contains_key("x-request-id"), "{reply:?}");
    (reply.head.status.as_u16(), reply.status(), headers["grpc-message"].to_str().unwrap())
}

#[test]
fn grpc_clients_are_refused_in_grpcs_own_terms() {
    let backend = GrpcBackend::start(false);
    let port = free_port();
    let dead = free_port();
    let _lab = crate::lab::Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ protocol: h2c, {UNCHECKED}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n  \
         refusing: {{ protocol: h2c, {UNCHECKED}, backends: [{{ address: '127.0.0.1:{dead}' }}] }}\n  \
         ill: {{ protocol: h2c, health_check: {{ type: grpc }}, backends: [{{ address: '127.0.0.1:{dead}' }}] }}\n\
         routes:\n  - {{ path: /lab, pool: a }}\n  - {{ path: /refusing, pool: refusing }}\n  - {{ path: /ill, pool: ill }}\n  \
         - {{ path: /lab/limited, pool: a, rate_limit: {{ type: fixed_window, limit: 1, window: 1h }} }}\n  \
         - {{ path: /lab/small, pool: a, body_size: 10 }}\n",
        backend.port
    ));
    block_on(async {
        let channel = Channel::connect(port).await;
        let call = async |path: &str| channel.call(path, &[], &[b"x"]).await;
        assert_eq!(refused(&call("/nowhere").await), (200, "12", "no_route"));
        assert_eq!(refused(&call("/refusing/x").await), (200, "14", "connect_failed"));
        let reply = call("/ill/x").await;
        assert_eq!(refused(&reply), (200, "14", "no_healthy_backend"));
        assert!(reply.head.headers.contains_key("retry-after"));
        call("/lab/limited").await;
        assert_eq!(refused(&call("/lab/limited").await), (200, "8", "rate_limited"));
        let reply = channel.call("/lab/small", &[("content-length", "25")], &[&[b'x'; 20]]).await;
        assert_eq!(refused(&reply), (200, "8", "body_too_large"));
        // The suffix names the messages' form.
        let reply = channel.call("/nowhere", &[("content-type", "application/grpc+json")], &[b"x"]).await;
        assert_eq!(reply.status(), "12");
    });
}

#[test]
fn who_does_not_speak_grpc_is_refused_in_https_terms() {
    let backend = GrpcBackend::start(false);
    let (_lab, port) = lab(&backend, false, UNCHECKED, "");
    let request = "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(port, request.as_bytes()).status, 404);
    block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for content_type in ["application/grpc-web", "application/grpcx", "application/json"] {
            let request = http::Request::post("http://localhost/nowhere").header("content-type", content_type);
            let mut sender: h2::client::SendRequest<Bytes> = sender.clone().ready().await.unwrap();
            let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 404, "{content_type}");
            assert!(!response.headers().contains_key("grpc-status"));
        }
    });
}

#[test]
fn bodies_of_http2_requests_are_limited() {
    let backend = GrpcBackend::start(false);
    let (_lab, port) = lab(&backend, false, UNCHECKED, "request_limits: { body_size: 1KiB }");
    block_on(async {
        let channel = Channel::connect(port).await;
        // Not announced, so it is noticed when the limit is passed.
        let (response, mut sending) = channel.open("/lab/Count", &[]).await;
        sending.send_data(Bytes::from(vec![0; 900]), false).unwrap();
        sending.send_data(Bytes::from(vec![0; 900]), false).unwrap();
        let reply = read(response).await.unwrap();
        assert_eq!(refused(&reply), (200, "8", "body_too_large"));
        assert_eq!(channel.call("/lab/Echo", &[], &[b"x"]).await.status(), "0", "the connection goes on");
    });
}
