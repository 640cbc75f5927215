//! Health checks with the gRPC health checking protocol.

use std::collections::BTreeSet;

use super::{block_on, lab};
use crate::lab::grpc::{Channel, GrpcBackend, NOT_SERVING, SERVING};
use crate::lab::scripted::Scripted;
use crate::lab::{Lab, PATIENCE, eventually, free_port};

const QUICK: &str = "interval: 100ms, unhealthy_interval: 100ms, timeout: 2s, rise: 1, fall: 1";

#[test]
fn backend_is_used_only_while_its_grpc_health_service_reports_serving() {
    for tls in [false, true] {
        let backend = GrpcBackend::start(tls);
        let (lab, port) =
            lab(&backend, tls, &format!("health_check: {{ type: grpc, service: lab.Echo, {QUICK} }}"), "");
        let call = || {
            block_on(async { Channel::connect(port).await.call("/lab/Echo", &[], &[b"x"]).await.status().to_owned() })
        };
        assert_eq!(call(), "0");
        backend.set_health(NOT_SERVING);
        let line = lab.wait_for_log("backend down");
        assert!(line.contains("NOT_SERVING"), "{line}");
        eventually("the backend is not used", PATIENCE, || call() == "14");
        backend.set_health(SERVING);
        eventually("the backend is used again", PATIENCE, || call() == "0");
        assert_eq!(backend.services(), BTreeSet::from([b"\n\x08lab.Echo".to_vec()]));
        // After dozens of checks, only the connections for calls and at most one for a check are open.
        eventually("health checks close their connections", PATIENCE, || backend.connections() <= 3);
    }
}

#[test]
fn backend_without_a_grpc_health_service_is_down_with_a_logged_reason() {
    let http1 = Scripted::start(|mut stream| {
        use std::io::Write;
        crate::lab::client::read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").ok();
    });
    let port = free_port();
    let lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ protocol: h2c, health_check: {{ type: grpc, {QUICK} }}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n\
         routes: [{{ path: /, pool: a }}]\n",
        http1.port
    ));
    let line = lab.wait_for_log("backend down");
    assert!(line.contains("reason="), "{line}");
}
