//! Requests of filters: forwarded like those of clients, with retries, limits and timeouts. The response is collected.

use std::pin::pin;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::response::Parts;
use pingora_http::ResponseHeader;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::OwnEngine;
use super::cached::{FetchClient, Part};
use crate::filter::subrequests::{SubResponse, Subrequest};
use crate::proxy::exchange::Exchange;
use crate::proxy::subrequests::Forwarder;

#[async_trait]
impl Forwarder for OwnEngine {
    async fn forward_subrequest(
        &self,
        request: Subrequest,
        mut exchange: Exchange,
    ) -> Result<SubResponse, &'static str> {
        let (mut client, parts) = FetchClient::new(request.head, exchange.connection.clone());
        // Dropped with the connection to the backend when the time ends.
        let exchanged = async {
            let mut forward = pin!(async {
                let result = self.forward(&mut client, &mut exchange).await;
                client.close();
                result
            });
            let mut collected = pin!(collect(parts, request.body_max));
            let mut ended = false;
            loop {
                tokio::select! {
                    result = &mut forward, if !ended => {
                        ended = true;
                        if let Err(e) = result {
                            log::debug!("request of a filter failed: {e}");
                        }
                    }
                    response = &mut collected => return response,
                }
            }
        };
        timeout(request.timeout, exchanged).await.unwrap_or(Err("no response in time"))
    }
}

/// Collects a response.
async fn collect(mut parts: mpsc::Receiver<Part>, body_max: usize) -> Result<SubResponse, &'static str> {
    let (mut head, mut body): (Option<ResponseHeader>, BytesMut) = (None, BytesMut::new());
    while let Some(part) = parts.recv().await {
        match part {
            Part::Interim(_) => {}
            Part::Head(received) => head = Some(received.0),
            Part::Data(data) if data.len() > body_max.saturating_sub(body.len()) => {
                return Err("the body of the response is too large");
            }
            Part::Data(data) => body.extend_from_slice(&data),
            Part::End(_) => {
                let parts: Parts = head.ok_or("no response")?.into();
                return Ok(SubResponse { status: parts.status, headers: parts.headers, body: Bytes::from(body) });
            }
        }
    }
    Err("no backend responded")
}
