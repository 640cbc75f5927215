//! Calls to the Kubernetes API: the list of a Service's EndpointSlices, and the watch of their changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use rustls::ClientConfig;

use super::config::{Reach, Spec};
use super::is_label;
use super::kubeconfig::{Access, Content};
use super::messages::{List, Slice, Status};
use crate::discovery::source::FOUND_MAX;
use crate::tls::connection::{Connection, Lines, encode, shorten};
use crate::tls::endpoint::Endpoint;
use crate::tls::service;

/// How many slices a response has at most. A slice has 100 endpoints by default, and at most 1,000.
const PAGE: usize = 100;
/// The longest message of a watch in bytes: several times that of a slice with 1,000 endpoints.
const LINE_MAX: usize = 4 << 20;
/// The longest token in bytes.
const TOKEN_MAX: usize = 64 << 10;

/// A connection to the API server, for one Service.
pub(super) struct Api {
    connection: Connection,
    server: Endpoint,
    /// The path of the list without its query.
    path: String,
    service: String,
    namespace: String,
    token: Option<Content>,
}

/// All slices of a Service at a version.
pub(super) struct Known {
    pub(super) slices: BTreeMap<String, Slice>,
    pub(super) version: String,
}

/// Why a call has failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The API server has rejected it.
    Refused(String),
    /// There is no response, or none that can be used.
    Other(String),
}

impl Failure {
    /// The sentence for operators.
    pub(super) fn reason(self) -> String {
        let (Self::Refused(reason) | Self::Other(reason)) = self;
        reason
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl Api {
    /// Connects to the API server.
    ///
    /// # Errors
    /// Why this is not possible.
    pub(super) async fn open(spec: &Spec) -> Result<Self, String> {
        let reach = spec.reach.clone();
        let prepare = move || {
            let access = match reach {
                Reach::Pod(folder) => in_cluster(&folder, |name| std::env::var(name).ok())?,
                Reach::Kubeconfig(access) => *access,
            };
            let tls = if access.endpoint.tls { Some(settings(&access)?) } else { None };
            Ok::<_, String>((access, tls))
        };
        let (access, tls) = tokio::task::spawn_blocking(prepare).await.map_err(|e| e.to_string())??;
        let Access { endpoint: server, path, server_name, token, namespace, .. } = access;
        let namespace = spec.namespace.clone().or(namespace).unwrap_or_else(|| "default".to_owned());
        let path = format!("{path}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
        let tls = tls.as_ref().map(|config| (config, server_name));
        let connection = Connection::open(&server, tls, spec.timeout).await.map_err(|e| format!("{server}: {e}"))?;
        Ok(Self { connection, server, path, service: spec.service.clone(), namespace, token })
    }

    /// All slices of the Service.
    pub(super) async fn list(&mut self) -> Result<Known, Failure> {
        let mut slices = BTreeMap::new();
        let (mut next, mut endpoints) = (String::new(), 0);
        loop {
            let query = match next.as_str() {
                "" => format!("limit={PAGE}"),
                next => format!("limit={PAGE}&continue={}", encode(next)),
            };
            let request = self.request(&query).await?;
            let response = self.connection.fetch(request).await.map_err(|e| self.describe(&e))?;
            if response.status() != StatusCode::OK {
                return Err(self.refusal("list", response.status(), response.body()));
            }
            let List { metadata, items } = serde_json::from_slice(response.body())
                .map_err(|e| self.describe(&format!("the list of endpointslices is invalid: {e}")))?;
            endpoints += items.iter().map(|slice| slice.endpoints.len()).sum::<usize>();
            slices.extend(items.into_iter().map(|slice| (slice.metadata.name.clone(), slice)));
            // A pod may be listed once for each family.
            if endpoints > 2 * FOUND_MAX || slices.len() > 2 * FOUND_MAX {
                let reason = format!("the service has more than {} endpoints or slices", 2 * FOUND_MAX);
                return Err(Failure::Other(reason));
            }
            if metadata.next.is_empty() {
                return Ok(Known { slices, version: metadata.resource_version });
            }
            next = metadata.next;
        }
    }

    /// Watches changes after `version`. The API server ends the watch after `limit`.
    pub(super) async fn watch(&mut self, version: &str, limit: Duration) -> Result<Lines, Failure> {
        let seconds = limit.as_secs().max(1);
        let version = encode(version);
        let query = format!("watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={seconds}");
        let request = self.request(&query).await?;
        match self.connection.stream(request, LINE_MAX).await.map_err(|e| self.describe(&e))? {
            Ok(lines) => Ok(lines),
            Err((status, body)) => Err(self.refusal("watch", status, &body)),
        }
    }

    /// A request with the current token: that of a pod is replaced every hour.
    async fn request(&self, query: &str) -> Result<Request<Full<Bytes>>, String> {
        let selector = format!("labelSelector=kubernetes.io%2Fservice-name%3D{}", self.service);
        let path = format!("{}?{selector}&{query}", self.path);
        let mut request = self.connection.request(Method::GET, &path).header(header::ACCEPT, "application/json");
        if let Some(token) = self.token.clone() {
            let read = tokio::task::spawn_blocking(move || token.read()).await.map_err(|e| e.to_string())?;
            let token = read.map_err(|e| format!("the token is unknown: {e}"))?;
            request = request.header(header::AUTHORIZATION, bearer(&token)?);
        }
        request.body(Full::default()).map_err(|e| e.to_string())
    }

    /// The reason with the API server.
    fn describe(&self, reason: &str) -> String {
        format!("{}: {}", self.server, shorten(reason))
    }

    fn refusal(&self, verb: &str, status: StatusCode, body: &[u8]) -> Failure {
        let message = serde_json::from_slice::<Status>(body).map(|status| status.message).unwrap_or_default();
        let reason = match status {
            StatusCode::UNAUTHORIZED => "the API server rejects the credentials".to_owned(),
            StatusCode::FORBIDDEN => {
                format!("the permission to {verb} endpointslices in namespace {} is missing", self.namespace)
            }
            StatusCode::NOT_FOUND => {
                "the API server has no endpointslices of discovery.k8s.io/v1, which need Kubernetes 1.21".to_owned()
            }
            other => format!("the response to {verb} endpointslices has the status {other}"),
        };
        let colon = if message.is_empty() { "" } else { ": " };
        Failure::Refused(self.describe(&format!("{reason}{colon}{message}")))
    }
}

/// The value of the header `Authorization`.
fn bearer(token: &[u8]) -> Result<HeaderValue, String> {
    let token = token.trim_ascii();
    if token.is_empty() || token.len() > TOKEN_MAX {
        return Err(format!("the token is empty, or has more than {TOKEN_MAX} bytes"));
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
        .map_err(|_| "the token has characters that no token has".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The access of a pod.
fn in_cluster(folder: &std::path::Path, variable: impl Fn(&str) -> Option<String>) -> Result<Access, String> {
    let host = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty());
    let host = host.ok_or("KUBERNETES_SERVICE_HOST is not set: outside a pod, name a `kubeconfig`")?;
    let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    let port = port.parse().map_err(|_| format!("KUBERNETES_SERVICE_PORT is `{port}`, not a port"))?;
    let namespace = std::fs::read_to_string(folder.join("namespace")).ok().map(|text| text.trim().to_owned());
    if let Some(namespace) = namespace.as_ref().filter(|namespace| !is_label(namespace)) {
        return Err(format!("`{}` in the service account is not the name of a namespace", shorten(namespace)));
    }
    Ok(Access {
        endpoint: Endpoint { tls: true, host, port },
        path: String::new(),
        ca: Some(Content::File(folder.join("ca.crt"))),
        server_name: None,
        identity: None,
        token: Some(Content::File(folder.join("token"))),
        namespace,
    })
}

/// The TLS settings with the current contents of the files.
fn settings(access: &Access) -> Result<Arc<ClientConfig>, String> {
    let ca = access.ca.as_ref().map(Content::read).transpose()?;
    let read = |(certificate, key): &(Content, Content)| Ok::<_, String>((certificate.read()?, key.read()?));
    let identity = access.identity.as_ref().map(read).transpose()?;
    let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
    service::client_config(ca.as_deref(), identity, &["h2", "http/1.1"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_uses_its_service_account_and_the_address_in_its_environment() {
        let folder = tempfile::tempdir().unwrap();
        let environment = |host: &str, port: &str| {
            let (host, port) = (host.to_owned(), port.to_owned());
            move |name: &str| Some(if name == "KUBERNETES_SERVICE_HOST" { host.clone() } else { port.clone() })
        };
        let access = in_cluster(folder.path(), environment("fd00::1", "6443")).unwrap();
        assert_eq!((access.endpoint.to_string().as_str(), access.namespace), ("https://[fd00::1]:6443", None));
        std::fs::write(folder.path().join("namespace"), "web\n").unwrap();
        let access = in_cluster(folder.path(), environment("10.0.0.1", "443")).unwrap();
        assert_eq!(access.namespace.as_deref(), Some("web"));
        std::fs::write(folder.path().join("namespace"), "../web").unwrap();
        assert!(in_cluster(folder.path(), environment("10.0.0.1", "443")).is_err());
        assert!(in_cluster(folder.path(), |_| None).unwrap_err().contains("outside a pod"));
        assert!(in_cluster(folder.path(), environment("10.0.0.1", "x")).unwrap_err().contains("not a port"));
    }

    #[test]
    fn token_is_a_sensitive_header_without_the_line_end_of_its_file() {
        let value = bearer(b" abc.def\n").unwrap();
        assert!(value.is_sensitive() && value == "Bearer abc.def");
        for token in [&b"\n"[..], b"a\nb", &[b'a'; TOKEN_MAX + 1]] {
            assert!(bearer(token).is_err());
        }
    }
}
