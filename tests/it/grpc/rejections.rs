//! Rejections of gRPC requests carry a gRPC status instead of an HTTP status.

use bytes::Bytes;

use super::{UNCHECKED, block_on, lab};
use crate::lab::client::exchange;
use crate::lab::free_port;
use crate::lab::grpc::{Channel, GrpcBackend, Reply, read};

fn rejection(response: &Reply) -> (u16, &str, &str) {
    let headers = &response.head.headers;
    assert_eq!(headers["content-type"], "application/grpc", "{response:?}");
    assert!(response.is_trailers_only && response.messages.is_empty(), "{response:?}");
    assert!(headers.contains_key("x-request-id"), "{response:?}");
    (response.head.status.as_u16(), response.status(), headers["grpc-message"].to_str().unwrap())
}

#[test]
fn rejections_of_grpc_requests_carry_a_grpc_status() {
    let backend = GrpcBackend::start(false);
    let port = free_port();
    let dead = free_port();
    let _lab = crate::lab::Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ protocol: h2c, {UNCHECKED}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n  \
         closed: {{ protocol: h2c, {UNCHECKED}, backends: [{{ address: '127.0.0.1:{dead}' }}] }}\n  \
         unhealthy: {{ protocol: h2c, health_check: {{ type: grpc }}, backends: [{{ address: '127.0.0.1:{dead}' }}] }}\n\
         routes:\n  - {{ path: /lab, pool: a }}\n  - {{ path: /closed, pool: closed }}\n  - {{ path: /unhealthy, pool: unhealthy }}\n  \
         - {{ path: /lab/limited, pool: a, rate_limit: {{ type: fixed_window, limit: 1, window: 1h }} }}\n  \
         - {{ path: /lab/small, pool: a, body_size: 10 }}\n",
        backend.port
    ));
    block_on(async {
        let channel = Channel::connect(port).await;
        let call = async |path: &str| channel.call(path, &[], &[b"x"]).await;
        assert_eq!(rejection(&call("/nowhere").await), (200, "12", "no_route"));
        assert_eq!(rejection(&call("/closed/x").await), (200, "14", "connect_failed"));
        let response = call("/unhealthy/x").await;
        assert_eq!(rejection(&response), (200, "14", "no_healthy_backend"));
        assert!(response.head.headers.contains_key("retry-after"));
        call("/lab/limited").await;
        assert_eq!(rejection(&call("/lab/limited").await), (200, "8", "rate_limited"));
        let response = channel.call("/lab/small", &[("content-length", "25")], &[&[b'x'; 20]]).await;
        assert_eq!(rejection(&response), (200, "8", "body_too_large"));
        // The suffix names the encoding of the messages.
        let response = channel.call("/nowhere", &[("content-type", "application/grpc+json")], &[b"x"]).await;
        assert_eq!(response.status(), "12");
    });
}

#[test]
fn rejections_of_other_requests_carry_an_http_status() {
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
fn body_size_limit_applies_to_http2_requests() {
    let backend = GrpcBackend::start(false);
    let (_lab, port) = lab(&backend, false, UNCHECKED, "request_limits: { body_size: 1KiB }");
    block_on(async {
        let channel = Channel::connect(port).await;
        // The request has no content-length, so it is rejected only when the body exceeds the limit.
        let (response, mut sending) = channel.open("/lab/Count", &[]).await;
        sending.send_data(Bytes::from(vec![0; 900]), false).unwrap();
        sending.send_data(Bytes::from(vec![0; 900]), false).unwrap();
        let response = read(response).await.unwrap();
        assert_eq!(rejection(&response), (200, "8", "body_too_large"));
        assert_eq!(channel.call("/lab/Echo", &[], &[b"x"]).await.status(), "0", "the connection stays usable");
    });
}
