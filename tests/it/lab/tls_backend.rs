//! A backend with TLS, optionally with client certificates.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;

use super::authority::{Authority, Issued};
use super::scripted::Scripted;

/// A backend with this certificate. Each response states whether the client presented a certificate. With
/// `clients`, connections without a certificate of that authority are rejected.
pub fn start(certificate: &Issued, clients: Option<&Authority>) -> Scripted {
    let builder = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let config = Arc::new(builder.with_single_cert(vec![certificate.der.clone()], certificate.private_key()).unwrap());
    Scripted::start(move |tcp| {
        let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        let mut request = Vec::new();
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) {
            request.push(byte[0]);
            if request.ends_with(b"\r\n\r\n") {
                request.clear();
                let body = if stream.conn.peer_certificates().is_some() { "certificate" } else { "no certificate" };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        }
    })
}
