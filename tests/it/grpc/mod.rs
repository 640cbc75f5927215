//! gRPC: calls of every kind, rejections with a gRPC status, outlier detection and retries by gRPC status, health
//! checks.

mod calls;
mod health;
mod outcomes;
mod rejections;

use crate::lab::grpc::GrpcBackend;
use crate::lab::{Lab, free_port};

/// The keys of a pool that uses HTTP/2 to its backends, with or without TLS.
fn protocol(tls: bool) -> &'static str {
    if tls { "protocol: http2, tls: { server_name: localhost, verify: false }" } else { "protocol: h2c" }
}

/// Starts l7lb with one gRPC backend; returns it and its port.
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

/// Runs a client to completion.
fn block_on<T>(client: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(client)
}
