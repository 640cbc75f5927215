//! Outlier detection and retries by the gRPC status of calls.

use super::{UNCHECKED, block_on};
use crate::lab::grpc::{Channel, GrpcBackend};
use crate::lab::{Lab, PATIENCE, eventually, free_port};

/// Backends of which the last ends its calls with `status`, the others with 0 (OK).
fn backends(count: usize, status: &'static str) -> Vec<GrpcBackend> {
    let backends: Vec<GrpcBackend> = (0..count).map(|_| GrpcBackend::start(false)).collect();
    backends.iter().for_each(|backend| backend.set_outcome("0"));
    backends.last().unwrap().set_outcome(status);
    backends
}

fn lab(backends: &[GrpcBackend], pool: &str, on: &str) -> (Lab, u16) {
    let addresses: Vec<String> =
        backends.iter().map(|backend| format!("{{ address: '127.0.0.1:{}' }}", backend.port)).collect();
    let port = free_port();
    let lab = Lab::start(&format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ balance: round_robin, protocol: h2c, {pool}, backends: [{}] }}\n\
         routes: [{{ path: /lab, pool: a, retry: {{ on: {on} }} }}]\n",
        addresses.join(", ")
    ));
    (lab, port)
}

/// Makes a call; returns its gRPC status.
fn call(port: u16, path: &str) -> String {
    block_on(async { Channel::connect(port).await.call(path, &[], &[b"x"]).await.status().to_owned() })
}

#[test]
fn backend_whose_calls_fail_with_server_errors_is_ejected() {
    for (path, status) in [("/lab/Outcome", "14"), ("/lab/OutcomeOnly", "14"), ("/lab/Outcome", "13")] {
        let backends = backends(3, status);
        let (lab, port) = lab(&backends, UNCHECKED, "[connect]");
        let line = format!("backend ejected: pool=a backend=127.0.0.1:{}", backends[2].port);
        eventually("the backend is ejected", PATIENCE, || {
            call(port, path);
            lab.log().contains(&line)
        });
        assert!((0..9).all(|_| call(port, path) == "0"));
    }
}

#[test]
fn grpc_statuses_that_callers_cause_do_not_eject_backends() {
    let backends = backends(2, "5");
    let (lab, port) = lab(&backends, UNCHECKED, "[connect]");
    for path in ["/lab/Outcome", "/lab/OutcomeOnly"] {
        assert_eq!((0..20).filter(|_| call(port, path) == "5").count(), 10);
    }
    assert!(!lab.log().contains("backend ejected"), "{}", lab.log());
}

#[test]
fn unavailable_call_is_retried_on_another_backend_if_the_route_allows_it() {
    let backends = backends(2, "14");
    let pool = format!("{UNCHECKED}, passive_health: off");
    let (lab, port) = lab(&backends, &pool, "[grpc_unavailable]");
    assert!((0..8).all(|_| call(port, "/lab/OutcomeOnly") == "0"));
    lab.wait_for_access("attempts=2");
    // A call is not retried after its first message, nor on a status that the route does not name.
    assert_eq!((0..8).filter(|_| call(port, "/lab/Outcome") == "14").count(), 4);
    backends[1].set_outcome("8");
    assert_eq!((0..8).filter(|_| call(port, "/lab/OutcomeOnly") == "8").count(), 4);
}
