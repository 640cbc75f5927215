//! A backend that runs a closure for each connection on raw sockets, to produce any misbehaviour.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use http::Request;
use l7lb::tls::development;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::PATIENCE;

/// A request over HTTP/2, and its response.
pub type Stream = (Request<h2::RecvStream>, SendResponse<Bytes>);

/// A backend that runs a script. Its thread ends with the test process.
pub struct Scripted {
    pub port: u16,
    connections: Arc<AtomicUsize>,
}

impl Scripted {
    /// Runs `script` for each connection.
    pub fn start(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, counted) = (Arc::new(script), Arc::clone(&connections));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(stream));
            }
        });
        Self { port, connections }
    }

    /// Runs `script` for each HTTP/2 stream, with its number on the connection, and the connection.
    pub fn start_http2(
        script: impl Fn(usize, &mut Connection<tokio::net::TcpStream, Bytes>, Stream) + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |stream| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                stream.set_nonblocking(true).unwrap();
                let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                let mut builder = h2::server::Builder::new();
                builder.enable_connect_protocol();
                // The balancer may have closed the connection.
                let Ok(mut connection) = builder.handshake(stream).await else { return };
                let mut number = 0;
                while let Some(Ok(stream)) = connection.accept().await {
                    number += 1;
                    script(number, &mut connection, stream);
                }
            });
        })
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A backend that accepts requests and holds its responses until the test releases them.
pub struct Held {
    pub port: u16,
    arrives: mpsc::Receiver<()>,
    release: mpsc::Sender<()>,
}

impl Held {
    pub fn start() -> Self {
        Self::start_with(|mut stream, hold| {
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            hold();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        })
    }

    /// Serves each connection by `script`, which calls its second argument where the test releases it.
    pub fn start_with(script: impl Fn(TcpStream, &dyn Fn()) + Send + Sync + 'static) -> Self {
        let (arrived, arrives) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let backend = Scripted::start(move |stream| {
            script(stream, &|| {
                arrived.send(()).unwrap();
                released.lock().unwrap().recv().unwrap();
            });
        });
        Self { port: backend.port, arrives, release }
    }

    /// Forgets the requests that have arrived.
    pub fn forget_arrived(&self) {
        while self.arrives.try_recv().is_ok() {}
    }

    /// Waits until a request has arrived.
    pub fn arrived(&self) {
        self.arrives.recv_timeout(PATIENCE).unwrap();
    }

    /// Releases one response.
    pub fn release(&self) {
        self.release.send(()).unwrap();
    }
}

/// TLS for a backend, with a new certificate for localhost.
pub fn server_config(protocols: &[&str]) -> Arc<rustls::ServerConfig> {
    let (pem, _) = development::certificate(&["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from_pem_slice(pem.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}
