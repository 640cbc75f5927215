//! A server that speaks the part of the Kubernetes API that l7lb uses: lists and watches of EndpointSlices over TLS,
//! with tokens. It runs in a thread of its own, so that it can be frozen and killed. Its slices outlast both.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::authority::Authority;
use super::{Backend, PATIENCE, eventually, free_port};

const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/web/endpointslices";

type Body = BoxBody<Bytes, Infallible>;

/// The server.
pub struct ApiServer {
    pub port: u16,
    tls: Arc<rustls::ServerConfig>,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct Shared {
    state: Mutex<State>,
    /// Incremented by each change of the state, for the streams of watches.
    changed: watch::Sender<u64>,
    frozen: (Mutex<bool>, Condvar),
}

/// The slices, and how the server behaves.
pub struct State {
    version: u64,
    slices: BTreeMap<String, Value>,
    /// What watches send, with its version.
    log: Vec<(u64, Vec<u8>)>,
    /// Watches of older versions get the status 410, as a message or as the status of the response.
    compacted: u64,
    /// Incremented to end all watches.
    ended: u64,
    pub gone_as_status: bool,
    pub token: String,
    /// The verb that RBAC does not permit.
    pub forbidden: &'static str,
    /// How many slices a page has at most.
    pub page: usize,
    /// The length of the parts of a message, each in a frame of its own.
    pub part: usize,
    /// The verb of each request, with the version for a watch.
    pub requests: Vec<String>,
    /// The watches that are open.
    pub watches: usize,
}

impl ApiServer {
    /// Starts it with a certificate for 127.0.0.1, and with these protocols of ALPN.
    pub fn start(authority: &Authority, protocols: &[&str]) -> Self {
        let issued = authority.issue(&["127.0.0.1"]);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_no_client_auth();
        let mut tls = builder.with_single_cert(vec![issued.der.clone()], issued.private_key()).unwrap();
        tls.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let state = State {
            version: 100,
            slices: BTreeMap::new(),
            log: Vec::new(),
            compacted: 0,
            ended: 0,
            gone_as_status: false,
            token: "first".to_owned(),
            forbidden: "",
            page: 2,
            part: usize::MAX,
            requests: Vec::new(),
            watches: 0,
        };
        let changed = watch::Sender::new(0);
        let shared = Arc::new(Shared { state: Mutex::new(state), changed, frozen: Default::default() });
        let mut server = Self { port: free_port(), tls: Arc::new(tls), shared, runtime: None };
        server.run();
        server
    }

    /// Serves on its port, in a new runtime.
    pub fn run(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(accept(listener, Arc::clone(&self.tls), Arc::clone(&self.shared)));
        self.runtime = Some(runtime);
    }

    /// Closes all connections and the socket.
    pub fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(PATIENCE);
        self.state().watches = 0;
    }

    /// Lets connections stay open and be made, without any response, until [`ApiServer::thaw`].
    pub fn freeze(&self) {
        *self.shared.frozen.0.lock().unwrap() = true;
        let shared = Arc::clone(&self.shared);
        // Blocks the only thread of the runtime.
        self.runtime.as_ref().unwrap().spawn(async move { shared.pause() });
    }

    pub fn thaw(&self) {
        *self.shared.frozen.0.lock().unwrap() = false;
        self.shared.frozen.1.notify_all();
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// How many requests there were for `verb`.
    pub fn count(&self, verb: &str) -> usize {
        self.state().requests.iter().filter(|request| request.starts_with(verb)).count()
    }

    /// Creates or replaces a slice of the service `api` with these endpoints at one port.
    pub fn put(&self, name: &str, port: u16, endpoints: &[Value]) {
        self.put_value(name, "IPv4", json!([{ "name": "http", "port": port, "protocol": "TCP" }]), json!(endpoints));
    }

    pub fn put_value(&self, name: &str, kind: &str, ports: Value, endpoints: Value) {
        self.change(name, |version, before| {
            let slice = json!({
                "metadata": { "name": name, "namespace": "web", "resourceVersion": version.to_string(),
                    "labels": { "kubernetes.io/service-name": "api" }, "managedFields": [{ "manager": "m" }] },
                "addressType": kind, "ports": ports, "endpoints": endpoints,
            });
            (if before.is_some() { "MODIFIED" } else { "ADDED" }, slice.clone(), Some(slice))
        });
    }

    pub fn delete(&self, name: &str) {
        self.change(name, |version, before| {
            let mut slice = before.unwrap();
            slice["metadata"]["resourceVersion"] = version.to_string().into();
            ("DELETED", slice, None)
        });
    }

    fn change(&self, name: &str, change: impl FnOnce(u64, Option<Value>) -> (&'static str, Value, Option<Value>)) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let before = state.slices.remove(name);
        let (kind, object, after) = change(version, before);
        state.slices.extend(after.map(|slice| (name.to_owned(), slice)));
        state.log.push((version, line(kind, &object)));
        drop(state);
        self.notify();
    }

    /// Sends bytes to the open watches.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        state.log.push((version, bytes.into()));
        drop(state);
        self.notify();
    }

    /// Sends a message to the open watches.
    pub fn send_event(&self, kind: &str, object: &Value) {
        self.send(line(kind, object));
    }

    /// Sends the current version to the open watches.
    pub fn bookmark(&self) {
        let version = self.state().version + 1;
        let metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
        self.send_event("BOOKMARK", &json!({ "kind": "EndpointSlice", "metadata": metadata, "endpoints": null }));
    }

    /// Forgets all changes so far.
    pub fn compact(&self) {
        let mut state = self.state();
        state.version += 1;
        state.compacted = state.version;
        state.log.clear();
    }

    /// Ends the open watches, as at their time limit.
    pub fn end_watches(&self) {
        self.state().ended += 1;
        self.notify();
    }

    /// Waits until there is a watch.
    pub fn wait_for_watch(&self) {
        eventually("the slices are watched", PATIENCE, || self.state().watches > 0);
    }

    fn notify(&self) {
        self.shared.changed.send_modify(|count| *count += 1);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.thaw();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

/// A ready endpoint at 127.0.0.1, as a pod with its name.
pub fn ready(backend: &Backend) -> Value {
    ready_at("127.0.0.1", backend)
}

/// A ready endpoint at another address.
pub fn ready_at(address: &str, backend: &Backend) -> Value {
    endpoint(address, backend, json!({ "ready": true, "serving": true, "terminating": false }))
}

/// An endpoint of a pod that is being deleted, and still serves.
pub fn terminating_at(address: &str, backend: &Backend) -> Value {
    endpoint(address, backend, json!({ "ready": false, "serving": true, "terminating": true }))
}

fn endpoint(address: &str, backend: &Backend, conditions: Value) -> Value {
    let target = json!({ "kind": "Pod", "namespace": "web", "name": backend.name(), "uid": backend.name() });
    json!({ "addresses": [address], "conditions": conditions, "targetRef": target, "nodeName": "node-1",
        "zone": "zone-1" })
}

fn line(kind: &str, object: &Value) -> Vec<u8> {
    format!("{}\n", json!({ "type": kind, "object": object })).into_bytes()
}

impl Shared {
    fn pause(&self) {
        let mut frozen = self.frozen.0.lock().unwrap();
        while *frozen {
            frozen = self.frozen.1.wait(frozen).unwrap();
        }
    }
}

async fn accept(listener: TcpListener, tls: Arc<rustls::ServerConfig>, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(tls);
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(respond(&shared, &request)) }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            builder.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

fn respond(shared: &Arc<Shared>, request: &Request<Incoming>) -> Response<Body> {
    let query: BTreeMap<&str, &str> =
        request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let mut state = shared.state.lock().unwrap();
    let verb = if query.contains_key("watch") { "watch" } else { "list" };
    let version = query.get("resourceVersion").copied().unwrap_or_default();
    state.requests.push(format!("{verb} {version}"));
    let token = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    if token != Some(format!("Bearer {}", state.token)) {
        return status(401, "Unauthorized");
    }
    if state.forbidden == verb {
        let message = format!("User \"system:serviceaccount:web:l7lb\" cannot {verb} resource \"endpointslices\"");
        return status(403, &message);
    }
    if request.uri().path() != PATH
        || query.get("labelSelector") != Some(&"kubernetes.io%2Fservice-name%3Dapi")
        || request.headers().get("accept").is_none_or(|value| value != "application/json")
    {
        return status(404, "the server could not find the requested resource");
    }
    if verb == "list" {
        return list(&state, &query);
    }
    assert!(query["allowWatchBookmarks"] == "true" && query["timeoutSeconds"].parse::<u64>().unwrap() > 60);
    let version: u64 = version.parse().unwrap();
    if version < state.compacted && state.gone_as_status {
        return status(410, "too old resource version");
    }
    state.watches += 1;
    drop(state);
    let (sender, body) = Channel::new(4);
    tokio::spawn(stream(Arc::clone(shared), sender, version));
    Response::new(body.map_err(|never: Infallible| never).boxed())
}

fn list(state: &State, query: &BTreeMap<&str, &str>) -> Response<Body> {
    let limit: usize = query["limit"].parse().unwrap();
    // The token has characters that need escapes.
    let start = query.get("continue").map_or(0, |token| token.strip_prefix("a%2Fb%3D").unwrap().parse().unwrap());
    let size = limit.min(state.page);
    let items: Vec<&Value> = state.slices.values().skip(start).take(size).collect();
    let next = if start + size < state.slices.len() { format!("a/b={}", start + size) } else { String::new() };
    let metadata = json!({ "resourceVersion": state.version.to_string(), "continue": next });
    json_response(200, &json!({ "kind": "EndpointSliceList", "metadata": metadata, "items": items }))
}

/// Sends the changes after `version`, and then further ones.
async fn stream(shared: Arc<Shared>, mut sender: Sender<Bytes, Infallible>, mut version: u64) {
    let mut changed = shared.changed.subscribe();
    let ended = shared.state.lock().unwrap().ended;
    loop {
        let (lines, part, is_end) = {
            let state = shared.state.lock().unwrap();
            let is_gone = version < state.compacted;
            let lines = if is_gone {
                vec![line("ERROR", &json!({ "kind": "Status", "code": 410, "message": "too old resource version" }))]
            } else {
                state.log.iter().filter(|(at, _)| *at > version).map(|(_, bytes)| bytes.clone()).collect()
            };
            version = state.version.max(version);
            (lines, state.part, is_gone || state.ended != ended)
        };
        for part in lines.iter().flat_map(|line| line.chunks(part)) {
            if sender.send_data(Bytes::copy_from_slice(part)).await.is_err() {
                return close(&shared);
            }
            tokio::task::yield_now().await;
        }
        if is_end || changed.changed().await.is_err() {
            return close(&shared);
        }
    }
}

fn close(shared: &Shared) {
    let mut state = shared.state.lock().unwrap();
    state.watches = state.watches.saturating_sub(1);
}

fn status(code: u16, message: &str) -> Response<Body> {
    json_response(code, &json!({ "kind": "Status", "status": "Failure", "message": message, "code": code }))
}

fn json_response(code: u16, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).boxed();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

/// The folder of a service account, with the authority of the server.
pub fn write_account(folder: &Path, authority: &Authority, token: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("ca.crt"), authority.pem()).unwrap();
    std::fs::write(folder.join("token"), format!("{token}\n")).unwrap();
    std::fs::write(folder.join("namespace"), "web").unwrap();
}
