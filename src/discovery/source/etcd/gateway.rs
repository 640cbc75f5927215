//! Calls to etcd's JSON gateway: requests with one response, and the stream of a watch.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::Spec;
use super::messages::{WatchMessage, error_message, watch_message};
use crate::tls::connection::{Connection, Lines};
use crate::tls::endpoint::Endpoint;

/// The longest message of a watch in bytes. Longer ones cause a complete read.
const LINE_MAX: usize = 16 << 20;

/// A connection.
pub(super) struct Gateway(Connection);

impl Gateway {
    /// Connects to an endpoint.
    ///
    /// # Errors
    /// Why this is not possible.
    pub(super) async fn open(endpoint: &Endpoint, spec: &Spec) -> Result<Self, String> {
        let tls = spec.tls.as_ref().filter(|_| endpoint.tls).map(|tls| (&tls.config, tls.server_name.clone()));
        Connection::open(endpoint, tls, spec.timeout).await.map(Self)
    }

    /// Sends a request, and reads its response.
    ///
    /// # Errors
    /// Why there is no valid response.
    pub(super) async fn call<T: DeserializeOwned>(
        &mut self,
        path: &str,
        token: Option<&str>,
        request: &impl Serialize,
    ) -> Result<T, String> {
        let request = self.request(path, token, request)?;
        let response = self.0.fetch(request).await?;
        if response.status().is_success() {
            return serde_json::from_slice(response.body())
                .map_err(|e| format!("the response to {path} is invalid: {e}"));
        }
        Err(refusal(response.status(), response.body()))
    }

    /// Starts a watch, which ends the use of this connection for anything else.
    ///
    /// # Errors
    /// Why the watch did not start.
    pub(super) async fn watch(mut self, token: Option<&str>, request: &impl Serialize) -> Result<Watch, String> {
        let request = self.request("/v3/watch", token, request)?;
        let lines = self.0.stream(request, LINE_MAX).await?.map_err(|(status, body)| refusal(status, &body))?;
        let timeout = self.0.timeout();
        let mut watch = Watch { lines, _connection: self };
        match tokio::time::timeout(timeout, watch.next()).await {
            Ok(Ok(WatchMessage::Created)) => Ok(watch),
            Ok(Ok(WatchMessage::Events(..))) => Err("the watch started without a confirmation".to_owned()),
            Ok(Err(reason)) => Err(reason),
            Err(_) => Err(format!("the watch did not start within {timeout:?}")),
        }
    }

    fn request(
        &self,
        path: &str,
        token: Option<&str>,
        request: &impl Serialize,
    ) -> Result<Request<Full<Bytes>>, String> {
        let body = serde_json::to_vec(request).map_err(|e| e.to_string())?;
        let mut request = self.0.request(Method::POST, path).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        request.body(Full::from(body)).map_err(|e| e.to_string())
    }
}

/// The stream of a watch.
pub(super) struct Watch {
    lines: Lines,
    _connection: Gateway,
}

impl Watch {
    /// The next message. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// Why there are no further messages.
    pub(super) async fn next(&mut self) -> Result<WatchMessage, String> {
        watch_message(&self.lines.next().await.map_err(|ended| ended.to_string())?)
    }
}

/// The reason in a response with another status than success.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    error_message(body).unwrap_or_else(|| format!("the response has the status {status}"))
}
