//! Receives a whole request body before a backend is chosen, so that a slow client holds none.

use super::client::Client;
use crate::http::rejection::Rejection;
use crate::proxy::exchange::Exchange;
use crate::proxy::{framing, phases};

/// Receives the request body, of at most `size` bytes. It is kept for all attempts.
///
/// # Errors
/// If the body is larger, if the client sends nothing for as long as `client_timeouts.body`, or if it disconnects.
pub(super) async fn receive(client: &mut impl Client, exchange: &mut Exchange, size: u64) -> pingora::Result<()> {
    framing::continue_ourselves(client).await?;
    client.keep_request_body(usize::try_from(size).unwrap_or(usize::MAX));
    let pause = exchange.snapshot.client_timeouts.body;
    while !client.is_request_complete() {
        let part = std::future::poll_fn(|cx| client.poll_request_body(cx));
        let Ok(part) = tokio::time::timeout(pause, part).await else {
            return Err(exchange.reject(Rejection::BodyTimeout).into_down());
        };
        let data = part?.unwrap_or_default();
        let last = client.is_request_complete();
        phases::request_body(client, data.len(), last, exchange)?;
        if let Some(mirroring) = &mut exchange.mirroring {
            mirroring.receive(&data, last);
        }
        if client.body_received() > size {
            client.disable_keepalive();
            return Err(exchange.reject(Rejection::BodyTooLarge).into_down());
        }
    }
    Ok(())
}
