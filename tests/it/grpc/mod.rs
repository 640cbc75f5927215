//! gRPC through the balancer: calls of every kind, refusals in gRPC's own terms, health checks.

mod calls;
mod health;
mod outcomes;
mod refusals;

use crate::lab::grpc::GrpcBackend;
use crate::lab::{Lab, free_port};

/// What a pool says so that it speaks HTTP/2 with or without TLS.
fn protocol(tls: bool) -> &'static str {
    if tls { "protocol: http2, tls: { server_name: localhost, verify: false }" } else { "protocol: h2c" }
}

/// A balancer in front of one gRPC backend, and its port.
fn lab(backend: &GrpcBackend, tls: bool, pool: &str, more: &str) -> (Lab, u16) {
    let port = free_port();
    let lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ {}, {pool}, backends: [{{ address: '127.0.0.1:{}' }}] }}\n\
         routes: [{{ path: /lab, pool: a }}]\n{more}",
        protocol(tls),
        backend.port
    ));
    (lab, port)
}

const UNCHECKED: &str = "health_check: { type: none }";

/// Runs a client.
fn block_on<T>(client: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(client)
}
