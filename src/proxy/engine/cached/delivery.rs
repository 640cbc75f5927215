//! Sends a stored response to a client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::{Error, ErrorSource, ErrorType};
use pingora_cache::CacheMeta;
use pingora_cache::storage::HitHandler;
use pingora_http::ResponseHeader;
use tokio::sync::mpsc;

use super::passing::{end_body, failure, send};
use super::sink::Event;
use crate::cache::conditional::StoredResponse;
use crate::cache::{Outcome, RouteCache, conditional, range, store};
use crate::proxy::engine::client::Client;
use crate::proxy::exchange::Exchange;
use crate::proxy::phases;

/// Fields of a stored response that an error which replaces it does not have: they are about its content, its validators
/// and its lifetime.
const NOT_OF_AN_ERROR: [HeaderName; 9] = [
    header::CACHE_CONTROL,
    HeaderName::from_static("cdn-cache-control"),
    header::EXPIRES,
    header::AGE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_DISPOSITION,
];

/// A stored response for a client.
pub(super) struct Delivery {
    /// Its header.
    pub(super) meta: CacheMeta,
    /// Its body.
    pub(super) body: HitHandler,
    /// Its age.
    pub(super) age: Duration,
    /// How the cache was used.
    pub(super) outcome: Outcome,
    /// The fetch that this client caused. If the body is not complete, it has the reason.
    pub(super) fetch: Option<mpsc::Receiver<Event>>,
}

/// The part of the stored response that a client gets.
enum Selection {
    /// The head alone.
    Head,
    /// The whole body.
    Whole,
    /// The bytes from one position to another one, which is included.
    Range(u64, u64),
    /// Several ranges, and what follows them.
    Ranges(Vec<range::Part>, Bytes),
}

impl Delivery {
    /// Sends the response.
    ///
    /// # Errors
    /// If the client disconnects, or if a part of the body is missing.
    pub(super) async fn send(
        mut self,
        client: &mut impl Client,
        exchange: &mut Exchange,
        route: &RouteCache,
    ) -> pingora::Result<()> {
        let (mut head, selection) = self.head(client)?;
        phases::response_to_client(client, &mut head, exchange)?;
        client.start_response(head)?;
        let mut trailers = None;
        match selection {
            // A fetch must not wait for a client that reads nothing of it.
            Selection::Head => drop(self.body),
            Selection::Whole => {
                let length = store::complete_length(&self.body);
                self.send_stored(client, exchange, length).await?;
                trailers = self.trailers();
            }
            Selection::Range(start, end) => {
                self.seek(start, end)?;
                self.send_stored(client, exchange, Some(end.saturating_sub(start).saturating_add(1))).await?;
            }
            Selection::Ranges(parts, end) => self.send_ranges(client, exchange, parts, end).await?,
        }
        end_body(client, exchange).await?;
        if self.outcome.is_from_cache() {
            route.counters.add_saved(client.body_sent(), self.age.as_secs());
        }
        client.end_response(trailers)?;
        phases::response_body_to_client(client, true, exchange);
        std::future::poll_fn(|cx| client.poll_flush(cx)).await
    }

    /// The trailers of the response that was fetched for this client.
    fn trailers(&mut self) -> Option<HeaderMap> {
        match self.fetch.as_mut()?.try_recv() {
            Ok(Event::End(trailers)) => trailers,
            _ => None,
        }
    }

    /// The head for the client, and the part of the body that it gets.
    fn head(&mut self, client: &impl Client) -> pingora::Result<(ResponseHeader, Selection)> {
        let request = client.request();
        let nothing = ResponseHeader::build_no_case(StatusCode::OK, Some(0))?;
        let response_time = self.meta.updated();
        let mut head = std::mem::replace(self.meta.response_header_mut(), nothing);
        let stored = StoredResponse { status: head.status, headers: &head.headers, response_time };
        let range_applies = conditional::range_applies(&request.method, &request.headers, &stored);
        if conditional::evaluate(&request.method, &request.headers, &stored) == conditional::Outcome::NotModified {
            let mut parts: Parts = ResponseHeader::build_no_case(StatusCode::NOT_MODIFIED, None)?.into();
            parts.headers = conditional::not_modified(&head.headers);
            if self.has_age() {
                parts.headers.insert(header::AGE, self.age.as_secs().into());
            }
            return Ok((parts.into(), Selection::Head));
        }
        if self.has_age() {
            head.insert_header(header::AGE, self.age.as_secs())?;
        }
        // That of the backend; the client's connection has its own.
        head.remove_header(&header::TRANSFER_ENCODING);
        let length = self.length(&head);
        let mut selection = Selection::Whole;
        if range_applies {
            selection = select(&mut head, &request.headers, length)?;
        }
        if matches!(selection, Selection::Whole) {
            // Trailers may follow the response to the client that caused the fetch, so it gets the framing of the backend.
            let length = if self.fetch.is_some() { announced(&head) } else { length };
            match length {
                Some(length) if states(&head, length) => {}
                Some(length) => head.insert_header(header::CONTENT_LENGTH, length)?,
                // The client's connection can then stay open.
                None if !client.is_http2() => {
                    head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
                }
                None => {}
            }
        }
        Ok((head, if request.method == Method::HEAD { Selection::Head } else { selection }))
    }

    /// Whether the response has an Age: it says that no backend generated or validated it for this request (RFC 9111
    /// §5.1), or that it was on its way for long.
    fn has_age(&self) -> bool {
        match self.outcome {
            Outcome::Miss => self.age.as_secs() > 0,
            Outcome::Revalidated => false,
            _ => true,
        }
    }

    /// The length of the body, if it is known.
    fn length(&self, head: &ResponseHeader) -> Option<u64> {
        store::complete_length(&self.body).or_else(|| announced(head))
    }

    /// Moves to the bytes from `start` to `last`.
    fn seek(&mut self, start: u64, last: u64) -> pingora::Result<()> {
        let position = |at: u64| {
            usize::try_from(at).map_err(|_| Error::explain(ErrorType::InternalError, "a position is too large"))
        };
        self.body.seek(position(start)?, Some(position(last.saturating_add(1))?))
    }

    async fn send_ranges(
        &mut self,
        client: &mut impl Client,
        exchange: &mut Exchange,
        parts: Vec<range::Part>,
        end: Bytes,
    ) -> pingora::Result<()> {
        for part in parts {
            send(client, exchange, part.head).await?;
            self.seek(part.start, part.end_inclusive)?;
            self.send_stored(client, exchange, None).await?;
        }
        send(client, exchange, end).await
    }

    /// Sends the selected bytes from the store: `left`, if their number is known.
    async fn send_stored(
        &mut self,
        client: &mut impl Client,
        exchange: &mut Exchange,
        mut left: Option<u64>,
    ) -> pingora::Result<()> {
        // With a known number, no read only finds the end.
        while left != Some(0) {
            let mut read = self.body.read_body();
            let part = std::future::poll_fn(|cx| poll_read(read.as_mut(), client, cx)).await;
            drop(read);
            match part {
                Ok(Some(part)) => {
                    left = left.map(|left| left.saturating_sub(part.len() as u64));
                    send(client, exchange, part).await?;
                }
                Ok(None) => break,
                Err(e) => return Err(self.cause(exchange, e)),
            }
        }
        Ok(())
    }

    /// The error of the fetch if that is why the body could not be read.
    fn cause(&mut self, exchange: &mut Exchange, e: Box<Error>) -> Box<Error> {
        match self.fetch.as_mut().map(mpsc::Receiver::try_recv) {
            Some(Ok(event)) if *e.esource() == ErrorSource::Upstream => failure(exchange, event),
            _ => e,
        }
    }
}

/// The length that the stored header states.
fn announced(head: &ResponseHeader) -> Option<u64> {
    head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether the header states this length, in its only form.
fn states(head: &ResponseHeader, length: u64) -> bool {
    let stated = head.headers.get(header::CONTENT_LENGTH);
    stated.is_some_and(|stated| stated.as_bytes() == itoa::Buffer::new().format(length).as_bytes())
}

type Read<'a> = dyn Future<Output = pingora::Result<Option<Bytes>>> + Send + 'a;

/// Reads the next part of the body. While it has not arrived, the client sees what was written, and may disconnect.
fn poll_read(
    read: Pin<&mut Read<'_>>,
    client: &mut impl Client,
    cx: &mut Context<'_>,
) -> Poll<pingora::Result<Option<Bytes>>> {
    if let Poll::Ready(part) = read.poll(cx) {
        return Poll::Ready(part.map_err(Error::into_up));
    }
    ready!(client.poll_flush(cx))?;
    let gone = ready!(client.poll_disconnected(cx));
    Poll::Ready(Err(gone))
}

/// The part of a stored response that the request asks for. Adapts the head.
fn select(head: &mut ResponseHeader, request: &HeaderMap, length: Option<u64>) -> pingora::Result<Selection> {
    let boundary = format!("{:032x}", fastrand::u128(..));
    let content_type = head.headers.get(header::CONTENT_TYPE).cloned();
    match range::plan(request, head.status, length, content_type.as_ref(), &boundary) {
        range::Plan::Whole => Ok(Selection::Whole),
        range::Plan::One { start, end_inclusive, content_range } => {
            head.set_status(StatusCode::PARTIAL_CONTENT)?;
            head.insert_header(header::CONTENT_RANGE, content_range)?;
            head.insert_header(header::CONTENT_LENGTH, end_inclusive.saturating_sub(start).saturating_add(1))?;
            Ok(Selection::Range(start, end_inclusive))
        }
        range::Plan::Many { content_type, parts, trailer, length, .. } => {
            head.set_status(StatusCode::PARTIAL_CONTENT)?;
            head.insert_header(header::CONTENT_TYPE, content_type)?;
            head.insert_header(header::CONTENT_LENGTH, length)?;
            Ok(Selection::Ranges(parts, trailer))
        }
        range::Plan::Unsatisfiable { content_range } => {
            head.set_status(StatusCode::RANGE_NOT_SATISFIABLE)?;
            // What the stored response states does not hold for this error: another cache could store the error.
            for name in NOT_OF_AN_ERROR {
                head.remove_header(&name);
            }
            head.insert_header(header::CONTENT_RANGE, content_range)?;
            head.insert_header(header::CONTENT_LENGTH, 0)?;
            Ok(Selection::Head)
        }
    }
}
