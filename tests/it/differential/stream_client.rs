//! The HTTP/2 client of a case.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, HeaderValue, Request};

use super::case::{Body, Case, filler};
use super::client::{PATIENCE, Seen, summary};
use crate::lab::client::connect;
use crate::lab::grpc::send;

/// Headers that HTTP/2 does not have.
const HTTP1_ONLY: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"];

/// Runs the case on a connection of its own.
pub fn run(port: u16, number: usize, case: &Case) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = connect(port);
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let seen = exchange(sender, number, case).await;
        driver.abort();
        seen
    })
}

async fn exchange(sender: SendRequest<Bytes>, number: usize, case: &Case) -> Vec<Seen> {
    let Ok(mut sender) = sender.ready().await else { return vec![Seen::Closed] };
    let request = head(number, case);
    let (response, mut sending) = sender.send_request(request, matches!(case.request.body, Body::None)).unwrap();
    let (frames, trailers): (Vec<usize>, _) = match &case.request.body {
        Body::None => (Vec::new(), None),
        Body::Length(length) => (vec![*length], None),
        Body::Chunked(chunks, trailers) => (chunks.clone(), Some(!trailers.is_empty())),
    };
    if let Some(abort) = case.request.abort {
        let sent = filler(abort).collect::<Vec<u8>>();
        // The balancer may have responded and closed the stream.
        let _ = send(&mut sending, Bytes::from(sent)).await;
        sending.send_reset(h2::Reason::CANCEL);
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        return Vec::new();
    }
    let upload = async {
        if matches!(case.request.body, Body::None) {
            return Ok(());
        }
        for frame in &frames {
            send(&mut sending, filler(*frame).collect::<Vec<u8>>().into()).await?;
        }
        if trailers == Some(true) {
            return sending.send_trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("x-trailer"),
                HeaderValue::from_static("t"),
            )]));
        }
        sending.send_data(Bytes::new(), true)
    };
    // The balancer may respond before it has read everything, and stop reading.
    let (_, seen) =
        tokio::join!(tokio::time::timeout(PATIENCE, upload), tokio::time::timeout(PATIENCE, read(response)));
    vec![seen.unwrap_or(Seen::Timeout)]
}

fn head(number: usize, case: &Case) -> Request<()> {
    let mut request = Request::builder()
        .method(case.request.method)
        .uri(format!("http://example.test{}?q", case.path(number)))
        .version(http::Version::HTTP_2)
        .header("x-case", number);
    for field in &case.request.fields {
        let (name, value) = field.split_once(':').unwrap();
        if !HTTP1_ONLY.contains(&name.to_lowercase().as_str()) {
            request = request.header(name, value.trim());
        }
    }
    if let Body::Length(length) = case.request.body
        && number.is_multiple_of(2)
    {
        request = request.header("content-length", length);
    }
    request.body(()).unwrap()
}

async fn read(response: ResponseFuture) -> Seen {
    let reset = |e: h2::Error| e.reason().map_or_else(|| "closed".to_owned(), |reason| format!("{reason:?}"));
    let response = match response.await {
        Ok(response) => response,
        Err(e) => return Seen::Stream { status: 0, fields: Vec::new(), body: String::new(), end: reset(e) },
    };
    let status = response.status().as_u16();
    let fields = response.headers().iter();
    let mut fields: Vec<String> = fields
        .filter(|(name, _)| *name != "date" && *name != "x-request-id")
        .map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii()).to_lowercase())
        .collect();
    fields.sort_unstable();
    let mut stream = response.into_body();
    let (mut body, mut end) = (Vec::new(), String::new());
    while let Some(data) = stream.data().await {
        match data {
            Ok(data) => {
                body.extend_from_slice(&data);
                stream.flow_control().release_capacity(data.len()).unwrap();
            }
            Err(e) => {
                end = reset(e);
                break;
            }
        }
    }
    Seen::Stream { status, fields, body: summary(&body), end }
}
