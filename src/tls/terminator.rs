//! TLS of one listener: the current acceptor, and the result of each handshake.
//!
//! Connections keep their settings. When files change, the acceptor for further handshakes is replaced (see
//! [`super::watch`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::protocols::IO;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;
use rustls::{HandshakeKind, ProtocolVersion};
use tokio_rustls::TlsAcceptor;

use super::acceptor;
use super::certificates::Certificate;
use super::client_auth::ClientAuth;
use super::config::{Config, FileContents, Settings};
use super::identity::ClientIdentity;
use super::server_stream::ServerStream;
use super::store::CertificateNames;
use super::tickets::{self, Tickets};
use crate::base::event::Event;
use crate::base::fault::{Faults, Place};
use crate::base::file_stamps::Stamps;

/// TLS at one listener.
pub struct Terminator {
    listener: String,
    config: Config,
    stamps: Stamps,
    /// The state read last. Locked only during a reload.
    state: Mutex<State>,
    active: ArcSwap<ActiveSettings>,
}

struct State {
    contents: FileContents,
    tickets: Arc<dyn ProducesTickets>,
}

/// The settings for the next handshake.
struct ActiveSettings {
    acceptor: TlsAcceptor,
    names: Arc<CertificateNames>,
}

impl ActiveSettings {
    fn build(config: &Config, state: &State) -> Result<Self, String> {
        let acceptor = acceptor::build(config, &state.contents, Arc::clone(&state.tickets))?;
        Ok(Self { acceptor, names: Arc::new(CertificateNames::of(&state.contents.certificates)) })
    }
}

/// The result of a handshake, for the requests on its connection.
#[derive(Debug)]
pub struct HandshakeResult {
    /// The server name in lower case.
    pub server_name: Option<String>,
    /// The verified identity of the client, if it sent a certificate.
    pub client: Option<ClientIdentity>,
    /// The version of TLS, for metrics.
    pub version: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// How long it took.
    pub duration: Duration,
    names: Arc<CertificateNames>,
}

impl HandshakeResult {
    /// Whether a request for `host` (which may have a port) may arrive on this connection, or is misdirected
    /// (RFC 9110 §15.5.20). Equal names, the usual case, cost no allocation.
    #[must_use]
    pub fn may_serve(&self, host: &str) -> bool {
        self.names.allow(self.server_name.as_deref(), host)
    }

    /// Whether a certificate is for `host`, a name in lower case without a port.
    #[must_use]
    pub fn has_certificate_for(&self, host: &str) -> bool {
        self.names.has_certificate_for(host)
    }
}

impl Terminator {
    /// TLS for the listener named `listener`.
    ///
    /// # Errors
    /// A message, if the cryptography provider rejects the settings.
    pub fn new(listener: String, settings: &Settings) -> Result<Self, String> {
        let Settings { config, contents, stamps } = settings.clone();
        let tickets = ticketer(&contents)?;
        let state = State { contents, tickets };
        let active = ActiveSettings::build(&config, &state)?;
        Ok(Self { listener, config, stamps, state: Mutex::new(state), active: ArcSwap::from_pointee(active) })
    }

    /// Does the handshake of a new connection.
    ///
    /// # Errors
    /// A message, if the handshake fails.
    #[expect(clippy::disallowed_methods, reason = "the handshake begins now")]
    pub async fn handshake<S: IO>(&self, stream: S) -> Result<(ServerStream<S>, HandshakeResult), String> {
        let (begun, active) = (Instant::now(), self.active.load_full());
        let stream = active.acceptor.accept(stream).await.map_err(|e| format!("TLS handshake: {e}"))?;
        let session = stream.get_ref().1;
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let client = certificate.map(|certificate| ClientIdentity::of(certificate)).transpose();
        let client = client.map_err(|_| "the client certificate cannot be parsed")?;
        if client.as_ref().is_some_and(|client| client.has_expired(SystemTime::now())) {
            return Err("the client certificate of the resumed session has expired".to_owned());
        }
        let server_name = session.server_name().map(str::to_ascii_lowercase);
        let version = match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "other",
        };
        let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let names = Arc::clone(&active.names);
        let result = HandshakeResult { server_name, client, version, resumed, duration: begun.elapsed(), names };
        Ok((ServerStream(stream), result))
    }

    /// The state of its files before they were first read.
    pub(super) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// Its current certificates.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        self.state.lock().contents.certificates.clone()
    }

    /// The name of its listener.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Reads the files in `changed` again and uses them from the next handshake on. A file that cannot be used
    /// keeps its previous content, separately for each certificate. Blocks while it reads.
    pub fn reload(&self, changed: &[PathBuf]) -> Vec<Event> {
        let mut state = self.state.lock();
        let mut reload = Reload { listener: &self.listener, changed, events: Vec::new() };
        let contents = FileContents {
            certificates: reload.certificates(&self.config, &state.contents.certificates),
            client_auth: reload.client_auth(&self.config, state.contents.client_auth.as_ref()),
            ticket_keys: reload.ticket_keys(&self.config, state.contents.ticket_keys.as_ref()),
        };
        let mut events = reload.events;
        match self.replace(&mut state, contents) {
            Ok(()) => {}
            Err(reason) => events.push(Event::TlsReloadFailed { listener: self.listener.clone(), reason }),
        }
        events
    }

    fn replace(&self, state: &mut State, contents: FileContents) -> Result<(), String> {
        // Tickets survive a new certificate, but not new keys or new rules for clients.
        let same_keys = is_same(contents.ticket_keys.as_ref(), state.contents.ticket_keys.as_ref());
        let same_rules = rules_hash(&contents) == rules_hash(&state.contents);
        let tickets = if same_keys && same_rules { Arc::clone(&state.tickets) } else { ticketer(&contents)? };
        let next = State { contents, tickets };
        self.active.store(Arc::new(ActiveSettings::build(&self.config, &next)?));
        *state = next;
        Ok(())
    }
}

/// Reads files again: valid content replaces the previous one.
struct Reload<'a> {
    listener: &'a str,
    changed: &'a [PathBuf],
    events: Vec<Event>,
}

impl Reload<'_> {
    fn is_changed<'b>(&self, mut files: impl Iterator<Item = &'b PathBuf>) -> bool {
        files.any(|file| self.changed.contains(file))
    }

    fn certificates(&mut self, config: &Config, before: &[Certificate]) -> Vec<Certificate> {
        let mut certificates = Vec::with_capacity(before.len());
        for (index, old) in before.iter().enumerate() {
            // A certificate in memory has no files.
            let files = config.certificates.get(index).filter(|files| self.is_changed(files.files()));
            let new = files.and_then(|files| {
                let new = self.read(&files.certificate, |place, faults| files.check(place, faults))?;
                self.events.push(Event::CertificateLoaded {
                    listener: self.listener.to_owned(),
                    certificate: files.certificate.display().to_string(),
                    serial: new.serial().to_owned(),
                });
                Some(new)
            });
            certificates.push(new.unwrap_or_else(|| old.clone()));
        }
        certificates
    }

    fn client_auth(&mut self, config: &Config, before: Option<&Arc<ClientAuth>>) -> Option<Arc<ClientAuth>> {
        let files = config.client_auth.as_ref().filter(|files| self.is_changed(files.files()));
        let new = files.and_then(|files| self.read(&files.ca, |place, faults| files.check(place, faults)));
        if let (Some(files), Some(_)) = (files, &new) {
            self.report_loaded(&files.ca);
        }
        new.map(Arc::new).or_else(|| before.cloned())
    }

    fn ticket_keys(&mut self, config: &Config, before: Option<&Arc<tickets::Keys>>) -> Option<Arc<tickets::Keys>> {
        let file = config.ticket_keys.as_ref().filter(|file| self.is_changed(std::iter::once(*file)));
        let new = file.and_then(|file| self.read(file, |place, faults| tickets::read(file, place, faults)));
        if let (Some(file), Some(_)) = (file, &new) {
            self.report_loaded(file);
        }
        new.map(Arc::new).or_else(|| before.cloned())
    }

    fn report_loaded(&mut self, file: &Path) {
        let (listener, file) = (self.listener.to_owned(), file.display().to_string());
        self.events.push(Event::TlsFileLoaded { listener, file });
    }

    /// Reads a file; faults become an event.
    fn read<T>(&mut self, file: &Path, read: impl FnOnce(&Place, &mut Faults) -> Option<T>) -> Option<T> {
        let mut faults = Faults::default();
        let new = read(&Place::root(), &mut faults);
        if new.is_none() {
            let problems: Vec<String> = faults.into_vec().into_iter().map(|fault| fault.problem).collect();
            let reason = if problems.is_empty() { file.display().to_string() } else { problems.join("; ") };
            self.events.push(Event::TlsReloadFailed { listener: self.listener.to_owned(), reason });
        }
        new
    }
}

fn ticketer(contents: &FileContents) -> Result<Arc<dyn ProducesTickets>, String> {
    match &contents.ticket_keys {
        Some(keys) => Ok(Arc::new(Tickets::new(Arc::clone(keys), rules_hash(contents)))),
        // Keys of this process only; the library replaces them every 6 hours.
        None => Ticketer::new().map_err(|e| e.to_string()),
    }
}

fn rules_hash(contents: &FileContents) -> Option<[u8; 32]> {
    contents.client_auth.as_ref().map(|auth| auth.rules_hash())
}

fn is_same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}
