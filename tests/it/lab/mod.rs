//! Test tools: real processes, clients and load without retries. Traffic stays on the loopback interface.

pub mod authority;
pub mod bridge;
pub mod client;
pub mod docker;
pub mod countries;
pub mod etcd;
pub mod frames;
pub mod grpc;
pub mod kubernetes;
pub mod load;
mod ports;
mod process;
pub mod recorder;
pub mod prometheus;
pub mod relay;
pub mod scripted;
pub mod tls_backend;

pub use ports::free_port;
pub use process::{Backend, Lab, PATIENCE, eventually, run};
pub use scripted::server_config;

/// Whether the test may create mount points; otherwise with a message.
pub fn can_mount() -> bool {
    let script = "mount -t tmpfs none /mnt";
    let unshared = std::process::Command::new("unshare").args(["--mount", "sh", "-c", script]).output();
    let can = unshared.is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("skipped: mount points need more permissions");
    }
    can
}

/// Whether all tests run with Pingora's loop, which lacks what this test needs.
pub fn lacks_own_engine() -> bool {
    std::env::var("L7LB_TEST_ENGINE").is_ok_and(|engine| engine == "pingora")
}

/// One route and one pool without health checks; `pool` has further keys of the pool.
pub fn yaml(port: u16, backend: u16, pool: &str, more: &str) -> String {
    format!(
        "listeners: [{{ address: '127.0.0.1:{port}' }}]\n\
         pools:\n  a: {{ health_check: {{ type: none }}, {pool} backends: [{{ address: '127.0.0.1:{backend}' }}] }}\n\
         routes: [{{ path: /, pool: a }}]\n{more}"
    )
}
