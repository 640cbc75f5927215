//! A server that speaks the protocol of the Docker Engine over a Unix domain socket: pings, lists and events with filters.
//! Its containers exist only in its lists; a test starts their processes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use serde_json::{Value, json};

use super::{PATIENCE, eventually};

/// The engine. Dropping it closes its socket.
pub struct Docker {
    socket: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    thawed: Condvar,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<String, Value>,
    /// The readers of events, with their filters.
    subscribers: Vec<(UnixStream, Value)>,
    connections: Vec<UnixStream>,
    /// The targets of all requests.
    requests: Vec<String>,
    /// Whether requests wait for their responses.
    frozen: bool,
    /// Whether the engine has no process.
    stopped: bool,
    /// The response to a request whose target contains the text, instead of the right one.
    faults: Vec<(String, Vec<u8>)>,
    /// The largest chunk of the events; 0 for one chunk each.
    chunk: usize,
}

impl Docker {
    /// Starts to listen at `docker.sock` in `folder`.
    pub fn start(folder: &Path) -> Self {
        let docker = Self { socket: folder.join("docker.sock"), shared: Arc::default() };
        docker.listen();
        docker
    }

    fn listen(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        self.state().stopped = false;
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut state = shared.state.lock().unwrap();
                if state.stopped {
                    break;
                }
                state.connections.push(stream.try_clone().unwrap());
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&shared, &stream));
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Ends all connections and removes the socket.
    pub fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        for connection in state.connections.drain(..) {
            connection.shutdown(Shutdown::Both).ok();
        }
        state.subscribers.clear();
        drop(state);
        // Ends the wait of its thread.
        UnixStream::connect(&self.socket).ok();
        std::fs::remove_file(&self.socket).ok();
    }

    /// Listens again after `stop`.
    pub fn restart(&self) {
        self.listen();
    }

    /// From now on, requests wait for their responses, and events are not sent.
    pub fn freeze(&self) {
        self.state().frozen = true;
    }

    pub fn thaw(&self) {
        self.state().frozen = false;
        self.shared.thawed.notify_all();
    }

    /// Responds to requests whose target contains `text` with these bytes.
    pub fn respond(&self, text: &str, response: &[u8]) {
        self.state().faults.push((text.to_owned(), response.to_vec()));
    }

    pub fn respond_correctly(&self) {
        self.state().faults.clear();
    }

    /// Splits events into chunks of at most this size.
    pub fn split_events(&self, size: usize) {
        self.state().chunk = size;
    }

    /// The targets of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    /// Waits until the events are read.
    pub fn wait_for_subscriber(&self) {
        eventually("the events are read", PATIENCE, || !self.state().subscribers.is_empty());
    }

    /// Runs a container at 127.0.0.1 with an exposed port and the labels of a JSON object.
    pub fn run(&self, name: &str, port: u16, labels: &Value) {
        self.run_with(name, port, labels, &json!({}));
    }

    /// Like [`Docker::run`], with further keys of the list.
    pub fn run_with(&self, name: &str, port: u16, labels: &Value, more: &Value) {
        let mut container = json!({
            "Id": format!("id-of-{name}"), "Names": [format!("/{name}")], "Image": "shop:7", "ImageID": "sha256:0",
            "Command": "/shop", "Created": 1_780_000_000, "Labels": labels, "State": "running", "Status": "Up 1 second",
            "Ports": [{ "PrivatePort": port, "Type": "tcp" }],
            "HostConfig": { "NetworkMode": "bridge" }, "Mounts": [],
            "NetworkSettings": { "Networks": { "bridge": {
                "IPAMConfig": null, "Links": null, "NetworkID": "0", "Gateway": "127.0.0.254", "IPAddress": "127.0.0.1",
                "IPPrefixLen": 16, "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0
            } } }
        });
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.state().containers.insert(name.to_owned(), container);
        self.emit(name, "start", &[]);
    }

    /// Sets the state of a container and the sentence about it, and reports an event.
    pub fn set(&self, name: &str, state: &str, status: &str, action: &str) {
        let mut locked = self.state();
        let container = locked.containers.get_mut(name).unwrap();
        container["State"] = state.into();
        container["Status"] = status.into();
        drop(locked);
        self.emit(name, action, &[]);
    }

    /// Reports that a signal has been sent to a container.
    pub fn signal(&self, name: &str, signal: u8) {
        self.emit(name, "kill", &[("signal", &signal.to_string())]);
    }

    /// The container ends.
    pub fn end(&self, name: &str) {
        self.set(name, "exited", "Exited (0) Less than a second ago", "die");
    }

    fn emit(&self, name: &str, action: &str, attributes: &[(&str, &str)]) {
        let mut state = self.state();
        let container = &state.containers[name];
        let mut actor = container["Labels"].clone();
        actor["name"] = name.into();
        attributes.iter().for_each(|(key, value)| actor[*key] = (*value).into());
        let event = json!({
            "status": action, "id": container["Id"], "Type": "container", "Action": action, "scope": "local",
            "Actor": { "ID": container["Id"], "Attributes": actor }, "time": 1_780_000_000, "timeNano": 1
        });
        let line = format!("{event}\n");
        let labels = container["Labels"].clone();
        let wanted = |filters: &Value| {
            let kinds = filters["event"].as_array().unwrap();
            let kind =
                kinds.iter().any(|kind| action == kind || action.starts_with(&format!("{}:", kind.as_str().unwrap())));
            kind && filters["type"] == json!(["container"]) && has_labels(&labels, filters)
        };
        let (chunk, frozen) = (state.chunk, state.frozen);
        if !frozen {
            state.subscribers.retain_mut(|(stream, filters)| !wanted(filters) || send(stream, line.as_bytes(), chunk));
        }
    }

    /// Sends these bytes to all readers of events.
    pub fn send_to_readers(&self, bytes: &[u8]) {
        self.state().subscribers.retain_mut(|(stream, _)| send(stream, bytes, 0));
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        self.thaw();
        self.stop();
    }
}

/// Sends chunks of at most `size` bytes.
fn send(stream: &mut UnixStream, bytes: &[u8], size: usize) -> bool {
    let size = if size == 0 { bytes.len() } else { size };
    bytes.chunks(size).all(|chunk| {
        let chunk = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        stream.write_all(&chunk).is_ok()
    })
}

fn has_labels(labels: &Value, filters: &Value) -> bool {
    filters["label"].as_array().unwrap().iter().all(|wanted| {
        let wanted = wanted.as_str().unwrap();
        match wanted.split_once('=') {
            Some((name, value)) => labels[name] == value,
            None => labels.get(wanted).is_some(),
        }
    })
}

/// Whether the list with these filters has the container.
fn is_listed(container: &Value, filters: &Value) -> bool {
    let status = container["Status"].as_str().unwrap();
    let health = match status.rsplit_once('(') {
        Some((_, "healthy)")) => "healthy",
        Some((_, "unhealthy)")) => "unhealthy",
        Some((_, "health: starting)")) => "starting",
        _ => "none",
    };
    let contains = |key: &str, value: &Value| filters[key].as_array().is_none_or(|list| list.contains(value));
    contains("status", &container["State"])
        && contains("health", &health.into())
        && has_labels(&container["Labels"], filters)
}

/// The filters of a request.
fn filters(target: &str) -> Value {
    let encoded = target.split_once("?filters=").unwrap().1;
    let (mut bytes, mut rest) = (Vec::new(), encoded.bytes());
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(rest.next().unwrap()).to_digit(16).unwrap();
        bytes.push(if byte == b'%' { (digit() * 16 + digit()) as u8 } else { byte });
    }
    serde_json::from_slice(&bytes).unwrap()
}

/// Serves a connection, until it becomes a stream of events or ends.
fn serve(shared: &Shared, stream: &UnixStream) {
    let mut writer = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    loop {
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let Some(target) = head.first().and_then(|line| line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")) else {
            return;
        };
        let mut state = shared.state.lock().unwrap();
        state.requests.push(target.to_owned());
        let mut state = shared.thawed.wait_while(state, |state| state.frozen).unwrap();
        let fault = state.faults.iter().find(|(text, _)| target.contains(text)).map(|(_, response)| response.clone());
        if let Some(response) = fault {
            writer.write_all(&response).ok();
            continue;
        }
        let path = target.split('?').next().unwrap();
        let body = match path.strip_prefix("/v1.47").unwrap_or(path) {
            "/_ping" => "OK".to_owned(),
            "/containers/json" => {
                let filters = filters(target);
                json!(state.containers.values().filter(|one| is_listed(one, &filters)).collect::<Vec<_>>()).to_string()
            }
            "/events" => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                writer.write_all(head).ok();
                state.subscribers.push((writer, filters(target)));
                return;
            }
            _ => return,
        };
        drop(state);
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nApi-Version: 1.47\r\nServer: Docker/27\r\nContent-Length: {length}\r\n\r\n");
        if writer.write_all(&[head.as_bytes(), body.as_bytes()].concat()).is_err() {
            return;
        }
    }
}
