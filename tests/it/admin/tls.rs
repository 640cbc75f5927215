//! TLS, HTTP/2 and client certificates.

use std::io::Write;
use std::sync::Arc;

use super::{Admin, OPERATOR, READER, TOKENS, cause, folder, request};
use crate::lab::authority::{Authority, Client, Issued, handshake};
use crate::lab::client::{self, Response, read_response};

const TLS: &str = "tls: { certificates: [{ certificate: '{folder}/server.pem', key: '{folder}/server-key.pem' }] }";

struct Lab {
    admin: Admin,
    servers: Authority,
    clients: Authority,
}

fn start(keys: &str) -> Lab {
    let (servers, clients, folder) = (Authority::new("servers"), Authority::new("clients"), folder());
    servers.issue(&["localhost", "lb.example.com"]).write(folder.path(), "server");
    std::fs::write(folder.path().join("clients.pem"), clients.pem()).unwrap();
    Lab { admin: Admin::start_in(folder, &format!("{TLS}, {keys}"), ""), servers, clients }
}

impl Lab {
    fn call(&self, shows: Option<&Issued>, headers: &str, call: &str, body: &str) -> Result<Response, String> {
        let mut settings = Client::new(&self.servers);
        settings.shows = shows;
        let mut stream = handshake(self.admin.port, "localhost", &settings.config())?;
        stream.write_all(request(headers, call, body).as_bytes()).map_err(|e| e.to_string())?;
        stream.flush().map_err(|e| e.to_string())?;
        // With TLS 1.3 the server verifies the client after its handshake.
        let mut head = [0];
        std::io::Read::read(&mut stream, &mut head).map_err(|e| e.to_string())?;
        Ok(read_response(&mut std::io::Read::chain(&head[..], &mut stream)))
    }
}

#[test]
fn role_of_a_client_certificate_follows_from_its_names() {
    let lab = start(
        "clients: { ca: '{folder}/clients.pem', role: read, \
         roles: { deploy.example.com: operate, 'spiffe://example/owner': admin } }",
    );
    let host = "Host: localhost\r\n";
    let (any, deploy) = (lab.clients.issue(&["any.example.com"]), lab.clients.issue(&["x", "deploy.example.com"]));
    let owner = lab.clients.issue_with(&["y"], |params| {
        let uri = "spiffe://example/owner".try_into().unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri));
    });
    for (certificate, may_operate, may_admin) in [(&any, 403, 403), (&deploy, 409, 403), (&owner, 409, 200)] {
        let call = |call: &str, body: &str| lab.call(Some(certificate), host, call, body).unwrap().status;
        assert_eq!(call("GET /version", ""), 200);
        assert_eq!(call("POST /cache/purge", r#"{"all":true}"#), may_operate, "no route has a cache");
        assert_eq!(call("PUT /log-level", r#"{"level":"info"}"#), may_admin);
    }
    let callers: Vec<String> = lab.admin.events("api_call").iter().map(|e| e["caller"].to_string()).collect();
    assert!(callers.contains(&"\"certificate CN=y\"".to_owned()), "{callers:?}");
    let foreign = Authority::new("clients").issue(&["deploy.example.com"]);
    assert!(lab.call(Some(&foreign), host, "GET /version", "").is_err(), "another authority");
    assert!(lab.call(None, host, "GET /version", "").is_err(), "no certificate");
}

#[test]
fn certificates_and_tokens_can_be_used_together_and_a_token_comes_first() {
    let lab = start(&format!("{TOKENS}, clients: {{ ca: '{{folder}}/clients.pem', roles: {{ named: admin }} }}"));
    let (named, other) = (lab.clients.issue(&["named"]), lab.clients.issue(&["other"]));
    let host = "Host: lb.example.com\r\n";
    let token = |token: &str| format!("{host}Authorization: Bearer {token}\r\n");
    let level = |shows, headers: &str| lab.call(shows, headers, "PUT /log-level", r#"{"level":"info"}"#).unwrap();
    assert_eq!(level(Some(&named), host).status, 200);
    assert_eq!(level(Some(&named), &token(OPERATOR)).status, 403, "the role of the token");
    assert_eq!(level(Some(&named), &token("wrong")).status, 401, "a wrong token is not replaced by the certificate");
    assert_eq!(cause(&level(None, host)), "unauthenticated");
    let response = level(Some(&other), host);
    assert_eq!((response.status, cause(&response).as_str()), (403, "forbidden"), "a certificate without a role");
    assert_eq!(lab.call(None, &token(READER), "GET /version", "").unwrap().status, 200);
    let wrong_host = format!("Host: other.example.com\r\nAuthorization: Bearer {READER}\r\n");
    assert_eq!(lab.call(None, &wrong_host, "GET /version", "").unwrap().status, 421);
}

#[test]
fn alpn_selects_http2_and_its_requests_authenticate_too() {
    let lab = start(TOKENS);
    let settings = Client { protocols: &["h2"], ..Client::new(&lab.servers) }.config();
    let port = lab.admin.port;
    let run = async move |headers: &[(&str, &str)], authority: &str| {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::clone(&settings)).connect(name, tcp).await.unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("https://{authority}/version"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, _) = sender.ready().await.unwrap().send_request(request.body(()).unwrap(), true).unwrap();
        response.await.unwrap().status().as_u16()
    };
    let bearer = format!("Bearer {READER}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!(run(&[("authorization", &bearer)], "localhost").await, 200);
        assert_eq!(run(&[], "localhost").await, 401);
        assert_eq!(run(&[("authorization", &bearer)], "evil.example").await, 421);
        assert_eq!(run(&[("authorization", &bearer), ("origin", "https://evil.example")], "localhost").await, 403);
    });
}

#[test]
fn renewed_certificate_is_used_without_a_reload_and_plain_http_is_not_served() {
    let lab = start(TOKENS);
    lab.servers.issue(&["localhost", "new.example.com"]).write(lab.admin.lab.folder(), "server");
    lab.admin.lab.wait_for_log("certificate loaded: listener=admin 127.0.0.1:");
    let headers = format!("Host: new.example.com\r\nAuthorization: Bearer {READER}\r\n");
    assert_eq!(lab.call(None, &headers, "GET /version", "").unwrap().status, 200, "its names are hosts");
    let mut plain = client::connect(lab.admin.port);
    plain.write_all(request(&headers, "GET /version", "").as_bytes()).unwrap();
    let mut response = Vec::new();
    std::io::Read::read_to_end(&mut plain, &mut response).ok();
    assert!(!String::from_utf8_lossy(&response).contains("HTTP/"), "{response:?}");
}
