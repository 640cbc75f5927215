//! Requests over HTTP/2 with any method and fields.

use std::collections::BTreeMap;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use http::response::Parts;

use crate::lab::client::Response;

/// Sends a request without a body on a new connection.
pub(super) fn request(port: u16, method: &str, path: &str, fields: &[(&str, &str)]) -> Response {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender = sender.ready().await.unwrap();
        let mut request = Request::builder().method(method).uri(format!("http://localhost:{port}{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, body) = exchange(&mut sender, request.body(()).unwrap()).await;
        let mut headers = BTreeMap::<String, String>::new();
        for (name, value) in &parts.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.to_string())
                .and_modify(|known| *known = format!("{known}, {value}"))
                .or_insert_with(|| value.into_owned());
        }
        Response { status: parts.status.as_u16(), headers, body: String::from_utf8_lossy(&body).into_owned() }
    })
}

/// Sends a request without a body, and receives the whole response.
pub(in crate::filters) async fn exchange(sender: &mut SendRequest<Bytes>, request: Request<()>) -> (Parts, Vec<u8>) {
    let (response, _) = sender.send_request(request, true).unwrap();
    let (parts, mut stream) = response.await.unwrap().into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    (parts, body)
}
