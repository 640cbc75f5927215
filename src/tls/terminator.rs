//! What a listener holds to speak TLS: the acceptor of the moment, and what each handshake tells.
//!
//! Connections keep what they were made with. When files change, the acceptor is exchanged for the
//! next handshakes ([`super::watch`] says when).

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::listeners::TlsAccept;
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::tls::server::handshake_with_callback;
use pingora_core::protocols::tls::{SslDigest, TlsRef, TlsStream};
use pingora_core::protocols::{Digest, IO};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

use super::client_auth::ClientAuth;
use super::config::{Config, Material, Settings};
use super::identity::ClientIdentity;
use super::store::Names;
use super::tickets::{self, Tickets};
use super::{Certificate, acceptor};
use crate::base::event::Event;
use crate::base::fault::{Faults, Place};
use crate::base::file_stamps::Stamps;

/// TLS at one listener.
pub struct Terminator {
    listener: String,
    config: Config,
    stamps: Stamps,
    /// What was read last. Only whoever reads the files anew takes it.
    state: Mutex<State>,
    live: ArcSwap<Live>,
}

struct State {
    material: Material,
    tickets: Arc<dyn ProducesTickets>,
}

/// What the next handshake is done with.
struct Live {
    acceptor: Arc<Acceptor>,
    names: Arc<Names>,
}

impl Live {
    fn build(config: &Config, state: &State) -> Result<Self, String> {
        let acceptor = acceptor::build(config, &state.material, Arc::clone(&state.tickets))?;
        Ok(Self { acceptor: Arc::new(acceptor), names: Arc::new(Names::of(&state.material.certificates)) })
    }
}

/// What a handshake established, for the requests on its connection.
#[derive(Debug)]
pub struct Established {
    /// The server name that the client asked for, in lower case.
    pub server_name: Option<String>,
    /// Who the client proved to be, where it showed a certificate.
    pub client: Option<ClientIdentity>,
    names: Arc<Names>,
}

impl Established {
    /// What the handshake of a connection established; `None` on a plain one.
    #[must_use]
    pub fn of(connection: &Digest) -> Option<&Self> {
        connection.ssl_digest.as_deref()?.extension.get()
    }

    /// Whether a request for `host` (which may have a port) may come on this connection, or is
    /// misdirected (RFC 9110 §15.5.20). Equal names, as they nearly always are, cost no allocation.
    #[must_use]
    pub fn may_serve(&self, host: &str) -> bool {
        self.names.allow(self.server_name.as_deref(), host)
    }
}

impl Terminator {
    /// TLS for the listener that the operator knows as `listener`.
    ///
    /// # Errors
    /// In words, when the cryptography provider refuses the settings.
    pub fn new(listener: String, settings: &Settings) -> Result<Self, String> {
        let Settings { config, material, stamps } = settings.clone();
        let tickets = tickets(&material)?;
        let state = State { material, tickets };
        let live = Live::build(&config, &state)?;
        Ok(Self { listener, config, stamps, state: Mutex::new(state), live: ArcSwap::from_pointee(live) })
    }

    /// The acceptor for the next handshake.
    #[must_use]
    pub fn acceptor(&self) -> Arc<Acceptor> {
        Arc::clone(&self.live.load().acceptor)
    }

    /// Does the handshake of a new connection. What it established is in the connection's digest,
    /// where [`Established::of`] finds it.
    ///
    /// # Errors
    /// In words, when the two do not come together.
    pub async fn handshake<S: IO + 'static>(&self, stream: S) -> Result<TlsStream<S>, String> {
        let live = self.live.load_full();
        let notes = Notes { names: Arc::clone(&live.names) };
        let stream = handshake_with_callback(&live.acceptor, stream, &notes).await.map_err(|e| e.to_string())?;
        let digest = stream.ssl_digest();
        let established = digest.as_deref().and_then(|digest: &SslDigest| digest.extension.get::<Established>());
        match established {
            None => Err("a client's certificate cannot be read".to_owned()),
            Some(Established { client: Some(client), .. }) if client.has_expired(SystemTime::now()) => {
                Err("a resumed session's client certificate has expired".to_owned())
            }
            Some(_) => Ok(stream),
        }
    }

    /// What its files looked like before they were first read.
    pub(super) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// What it shows at the moment.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        self.state.lock().material.certificates.clone()
    }

    /// The name of its listener.
    #[must_use]
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Reads what is in `changed` anew and uses it from the next handshake on. What cannot be used
    /// leaves what was there before, each certificate for itself. Blocks while it reads.
    pub fn reload(&self, changed: &[PathBuf]) -> Vec<Event> {
        let mut state = self.state.lock();
        let mut reading = Reading { listener: &self.listener, changed, events: Vec::new() };
        let material = Material {
            certificates: reading.certificates(&self.config, &state.material.certificates),
            client_auth: reading.client_auth(&self.config, state.material.client_auth.as_ref()),
            ticket_keys: reading.ticket_keys(&self.config, state.material.ticket_keys.as_ref()),
        };
        let mut events = reading.events;
        match self.exchange(&mut state, material) {
            Ok(()) => {}
            Err(reason) => events.push(Event::TlsReloadFailed { listener: self.listener.clone(), reason }),
        }
        events
    }

    fn exchange(&self, state: &mut State, material: Material) -> Result<(), String> {
        // Tickets stay good over a new certificate, but not over new keys or new rules for clients.
        let same_keys = same(material.ticket_keys.as_ref(), state.material.ticket_keys.as_ref());
        let same_rules = binding(&material) == binding(&state.material);
        let tickets = if same_keys && same_rules { Arc::clone(&state.tickets) } else { tickets(&material)? };
        let next = State { material, tickets };
        self.live.store(Arc::new(Live::build(&self.config, &next)?));
        *state = next;
        Ok(())
    }
}

/// Reading files anew: what is good replaces what was there.
struct Reading<'a> {
    listener: &'a str,
    changed: &'a [PathBuf],
    events: Vec<Event>,
}

impl Reading<'_> {
    fn concerns<'b>(&self, mut files: impl Iterator<Item = &'b PathBuf>) -> bool {
        files.any(|file| self.changed.contains(file))
    }

    fn certificates(&mut self, config: &Config, before: &[Certificate]) -> Vec<Certificate> {
        let mut certificates = Vec::with_capacity(before.len());
        for (index, old) in before.iter().enumerate() {
            // A certificate that lives in memory only has no files.
            let files = config.certificates.get(index).filter(|files| self.concerns(files.files()));
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
        let files = config.client_auth.as_ref().filter(|files| self.concerns(files.files()));
        let new = files.and_then(|files| self.read(&files.ca, |place, faults| files.check(place, faults)));
        if let (Some(files), Some(_)) = (files, &new) {
            self.loaded(&files.ca);
        }
        new.map(Arc::new).or_else(|| before.cloned())
    }

    fn ticket_keys(&mut self, config: &Config, before: Option<&Arc<tickets::Keys>>) -> Option<Arc<tickets::Keys>> {
        let file = config.ticket_keys.as_ref().filter(|file| self.concerns(std::iter::once(*file)));
        let new = file.and_then(|file| self.read(file, |place, faults| tickets::read(file, place, faults)));
        if let (Some(file), Some(_)) = (file, &new) {
            self.loaded(file);
        }
        new.map(Arc::new).or_else(|| before.cloned())
    }

    fn loaded(&mut self, file: &Path) {
        let (listener, file) = (self.listener.to_owned(), file.display().to_string());
        self.events.push(Event::TlsFileLoaded { listener, file });
    }

    /// Reads something; what is wrong becomes an event.
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

fn tickets(material: &Material) -> Result<Arc<dyn ProducesTickets>, String> {
    match &material.ticket_keys {
        Some(keys) => Ok(Arc::new(Tickets::new(Arc::clone(keys), binding(material)))),
        // Keys that nobody else has; the library replaces them every 6 hours.
        None => Ticketer::new().map_err(|e| e.to_string()),
    }
}

fn binding(material: &Material) -> Option<[u8; 32]> {
    material.client_auth.as_ref().map(|auth| auth.binding())
}

fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// Notes what a handshake established, at its end.
struct Notes {
    names: Arc<Names>,
}

#[async_trait]
impl TlsAccept for Notes {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        // A certificate that cannot be read leaves nothing behind, and the connection is refused.
        let client = tls.peer_certificate_der().map(ClientIdentity::of).transpose().ok()?;
        let server_name = tls.server_name().map(str::to_ascii_lowercase);
        Some(Arc::new(Established { server_name, client, names: Arc::clone(&self.names) }))
    }
}
