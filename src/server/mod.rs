//! The server process: sockets, services and signals, from a checked configuration.
//!
//! The order makes a start all or nothing: everything is built first, sockets are bound or taken over last, and
//! only then Pingora's server runs (and forks, as a daemon). Threads start after that, because they would not
//! survive a fork.

mod admin;
mod signals;
mod successor;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::services::background::background_service;
use pingora_proxy::HttpProxy;

use crate::base::lifecycle::{Lifecycle, Phase};
use crate::base::systemd;
use crate::cache;
use crate::config::load::Loaded;
use crate::config::server::EngineKind;
use crate::config::{Checked, listener};
use crate::control::access::ActiveAccess;
use crate::control::api::admin::AdminListener;
use crate::control::api::{self, Api, ControlService, ControlSocket};
use crate::control::periodic::Periodic;
use crate::control::reload::{self, ActiveConfiguration, ReloadHandle, Reloader, RuntimeState, Source, UpgradeHandle};
use crate::control::state_file::StateFile;
use crate::decision::snapshot::Snapshot;
use crate::listener::address::ListenAddress;
use crate::listener::handover::{self, Ready};
use crate::listener::listener_service::{BoundListener, Prepare, WorkerParts, Workers};
use crate::listener::{AcceptorSettings, ActiveClientRules, Drain, ListenerService, Socket};
use crate::observe::metrics::Metrics;
use crate::observe::recent_requests::RecentRequests;
use crate::observe::recorder::Recorder;
use crate::observe::{AccessLog, Observers, OperatorLog, access_log};
use crate::pool::PoolService;
use crate::proxy::Proxy;
use crate::proxy::engine::Engine;
use crate::tls::{Terminator, Watcher, system_authorities};
use signals::{HandOver, Signals};
use successor::Successor;
use watchdog::Watchdog;

/// How the process starts.
#[derive(Clone, Default)]
pub struct Start {
    /// Run in the background.
    pub daemon: bool,
    /// Take over the sockets of a running process.
    pub upgrade: bool,
    /// The configuration file for reloads, if there is one.
    pub source: Option<Source>,
    /// The operator log.
    pub log: OperatorLog,
}

/// Runs until the process is stopped.
///
/// # Errors
/// A message, if something cannot be built, bound or taken over. Then nothing is left running.
#[expect(clippy::disallowed_methods, reason = "the limits' windows are aligned to the start of the process")]
pub fn run(loaded: Loaded, start: Start) -> Result<(), String> {
    let active = ActiveConfiguration::first(&loaded.source, start.source.as_ref());
    let checked = loaded.checked;
    let begun = Instant::now();
    let snapshot = Arc::new(Snapshot::build(&checked, None, begun)?);
    let caches = (checked.cache.clone(), checked.used_stores());
    let acceptor_settings = acceptor_settings(&checked)?;
    let successor = Successor::of_this(start.upgrade);
    let mut conf = ServerConf { daemon: start.daemon || checked.server.daemon, ..clone_of(&checked.server) };
    // A daemon would change to `/`, where relative file names in reloads would be different files.
    conf.working_directory = conf.working_directory.or_else(|| std::env::current_dir().ok());
    conf.ca_file = authorities(conf.ca_file.as_deref());
    let upgrade_sock = PathBuf::from(&conf.upgrade_sock);
    prepare_folders(&conf).map_err(|e| e.to_string())?;

    let workers =
        if conf.work_stealing { Workers::WorkStealing(conf.threads) } else { Workers::SingleThreaded(conf.threads) };
    let addresses: Vec<ListenAddress> = acceptor_settings.iter().map(|(address, _)| address.clone()).collect();
    let admin_addresses = checked.admin.as_ref().map(|admin| admin.listen.clone()).unwrap_or_default();
    let metrics_addresses = checked.metrics.as_ref().map(|metrics| metrics.listen.clone()).unwrap_or_default();
    let terminator = admin::terminator(checked.admin.as_ref())?;
    let upgrade_from = start.upgrade.then_some(upgrade_sock.as_path());
    let Bound { groups, admin, metrics, ready } =
        sockets(&addresses, (&admin_addresses, &metrics_addresses), workers, upgrade_from)
            .map_err(|e| e.to_string())?;
    let all = groups.iter().flatten().chain(&admin).chain(&metrics);
    let named = all.map(|socket| (socket.name.clone(), socket.as_fd().as_raw_fd())).collect();
    let admin = (AdminListener { sockets: admin, terminator }, metrics);
    let bound = groups.into_iter().zip(acceptor_settings);
    let bound = bound.map(|(sockets, (_, settings))| BoundListener { sockets, settings }).collect();
    let rules = ActiveClientRules::new(reload::rules(&checked)?);
    let (access_log, engine) = (checked.access_log.clone(), checked.engine);
    // A daemon may change its folder.
    let state_file = checked.state_file.as_deref().map(std::path::absolute).transpose().map_err(|e| e.to_string())?;
    let lifecycle = Lifecycle::new(checked.drain_delay);
    let listeners = checked.listeners.clone().into();
    let access = checked.admin.as_ref().map(|admin| admin.access.clone()).unwrap_or_default();
    let build = Build {
        conf,
        snapshot,
        active,
        begun,
        lifecycle,
        listeners,
        access: ActiveAccess::new(access),
        admin,
        access_log,
        workers,
        engine,
        caches,
        rules,
        log: start.log,
        state_file: StateFile::new(state_file),
    };
    let source = start.source.map(|source| (source, checked));
    serve(build, bound, Handing { named, upgrade_sock, ready, successor }, source);
    Ok(())
}

/// The file of authorities for connections to backends. Backends without TLS need none, and the check of the configuration
/// has found the pools that do.
fn authorities(configured: Option<&str>) -> Option<String> {
    system_authorities::file_for_connectors(configured).unwrap_or_else(|(none, reason)| {
        log::warn!("without the certificate authorities of the system until a restart: {reason}");
        Some(none)
    })
}

/// The settings for each listen address.
fn acceptor_settings(checked: &Checked) -> Result<Vec<(ListenAddress, Arc<AcceptorSettings>)>, String> {
    let mut acceptor_settings = Vec::new();
    for listener in &checked.listeners {
        let names: Vec<String> = listener.addresses.iter().map(ToString::to_string).collect();
        let terminator = |settings| Terminator::new(names.join(", "), settings).map(Arc::new);
        let settings = Arc::new(AcceptorSettings {
            tls: listener.tls.as_ref().map(terminator).transpose()?,
            proxy_protocol: listener.proxy_protocol.clone(),
            policy: Arc::clone(&listener.policy),
        });
        let at = |address: &ListenAddress| (address.clone(), Arc::clone(&settings));
        acceptor_settings.extend(listener.addresses.iter().map(at));
    }
    Ok(acceptor_settings)
}

/// The parts of the server.
struct Build {
    conf: ServerConf,
    snapshot: Arc<Snapshot>,
    active: ActiveConfiguration,
    begun: Instant,
    lifecycle: Lifecycle,
    listeners: Arc<[listener::Spec]>,
    access: ActiveAccess,
    /// The admin API, and the sockets of the metrics.
    admin: (AdminListener, Vec<Socket>),
    access_log: access_log::Spec,
    workers: Workers,
    engine: EngineKind,
    caches: (cache::StoresConfig, BTreeSet<cache::StoreKind>),
    rules: ActiveClientRules,
    log: OperatorLog,
    state_file: StateFile,
}

/// What is handed over between processes.
struct Handing {
    named: Vec<(String, RawFd)>,
    upgrade_sock: PathBuf,
    ready: Option<Ready>,
    successor: Successor,
}

/// Adds the service that keeps the health of pools up to date.
fn add_health(server: &mut Server, pools: PoolService) {
    let mut health = background_service("health", pools);
    health.threads = Some(1);
    server.add_service(health);
}

fn serve(build: Build, listeners: Vec<BoundListener>, handing: Handing, source: Option<(Source, Checked)>) {
    let grace = Duration::from_secs(build.conf.grace_period_seconds.unwrap_or_default());
    // l7lb implements the grace period: Pingora would sleep for all of it.
    let conf = ServerConf { grace_period_seconds: Some(0), ..build.conf };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    // Notifies a parent that waits for the daemon (`daemon_wait_for_ready`).
    server.bootstrap_as_a_service();

    let (drain, lifecycle, log_slot) = (Drain::default(), build.lifecycle, access_log::Slot::default());
    let (give_upgrades, upgrades) = UpgradeHandle::new();
    let pool_service = PoolService::new(build.snapshot.pools.values().cloned().collect());
    let settled = pool_service.settled();
    let live = RuntimeState {
        snapshot: Arc::new(ArcSwap::new(build.snapshot)),
        active: Arc::new(ArcSwap::from_pointee(build.active)),
        terminators: terminators(&listeners).into(),
        rules: build.rules.clone(),
        pools: pool_service.running(),
        access_log: Arc::clone(&log_slot),
        listeners: build.listeners,
        access: build.access,
        state_file: Arc::new(build.state_file),
        recent_requests: Arc::new(RecentRequests::new(build.begun)),
        metrics: Metrics::new(SystemTime::now()),
        recorder: Recorder::default(),
        lifecycle: lifecycle.clone(),
        upgrades: give_upgrades,
    };
    let control = ControlSocket::new(api::socket_path(&handing.upgrade_sock.display().to_string()));
    let reload_handle = source.map(|source| add_reloading(&mut server, source, &live));
    let api = Api { reload_handle: reload_handle.clone(), live: live.clone(), log: build.log };
    let admin_tls = add_control(&mut server, &control, build.admin, api);
    add_periodic(&mut server, &live);
    // In an upgrade, the overrides of the old process apply, which change until it ends.
    let is_upgrade = handing.ready.is_some();
    live.state_file.restore(&live.snapshot.load().pools, |_| !is_upgrade);
    if !is_upgrade {
        control.open();
    }
    add_health(&mut server, pool_service);
    watch_files(&mut server, &live.terminators, admin_tls);
    add_watchdog(&mut server);

    let (found, state_file) = (Arc::clone(&live.snapshot), Arc::clone(&live.state_file));
    let logs = (build.access_log, log_slot.clone());
    let prepare = prepare(Arc::clone(&server.configuration), (live, build.caches), logs, (build.workers, build.engine));
    let (listening, served) = (describe(&listeners), lifecycle.clone());
    let on_ready = move || {
        if let Some(ready) = handing.ready {
            // Until now the control socket belonged to the old process.
            control.succeed(&found.load().pools, &state_file);
            if let Err(e) = ready.report() {
                log::warn!("the old process has already stopped: {e}");
            }
        }
        // Without the overrides that no longer apply.
        state_file.save(&found.load().pools);
        // A reader of the line may send requests immediately.
        served.enter(Phase::Ready);
        log::info!("l7lb {} ready: {listening}", env!("CARGO_PKG_VERSION"));
        systemd::ready();
    };
    let (options, drained) = ((build.workers, build.rules), (drain.clone(), settled));
    server.add_service(ListenerService::new(listeners, prepare, on_ready, options, drained));
    let hand_over =
        HandOver { sockets: handing.named, upgrade_sock: handing.upgrade_sock, successor: handing.successor };
    let signals =
        Signals { drain, lifecycle, grace, log_slot, reload_handle, hand_over, upgrades: Mutex::new(upgrades) };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
}

/// Adds the service that reloads the configuration on file changes, API calls and signals.
fn add_reloading(server: &mut Server, (source, checked): (Source, Checked), live: &RuntimeState) -> ReloadHandle {
    let reloader = Reloader::new(source, checked, live.clone());
    let reload_handle = reloader.reload_handle();
    let mut reloading = background_service("reload", reloader);
    reloading.threads = Some(1);
    server.add_service(reloading);
    reload_handle
}

/// Adds the watchdog of systemd, if it is configured.
fn add_watchdog(server: &mut Server) {
    if let Some(period) = systemd::watchdog_period() {
        server.add_service(background_service("watchdog", Watchdog { period }));
    }
}

/// Takes over discovered lists, and adds the service for what is done from time to time.
fn add_periodic(server: &mut Server, live: &RuntimeState) {
    live.state_file.restore_lists(&live.snapshot.load().pools);
    let mut periodic = background_service("periodic", Periodic::new(live.clone()));
    periodic.threads = Some(1);
    server.add_service(periodic);
}

/// Adds the control API at its socket and at TCP addresses, and the metrics, each on its own thread. Returns the TLS of the
/// second.
fn add_control(
    server: &mut Server,
    control: &ControlSocket,
    (admin, metrics): (AdminListener, Vec<Socket>),
    api: Api,
) -> Option<Arc<Terminator>> {
    let terminator = admin.terminator.clone();
    admin::add(server, admin, &api);
    admin::add_metrics(server, metrics, api.clone());
    let mut control_service = background_service("control", ControlService::new(control.clone(), api));
    control_service.threads = Some(1);
    server.add_service(control_service);
    terminator
}

/// TLS of the listeners, each once: several addresses of one listener share it.
fn terminators(listeners: &[BoundListener]) -> Vec<Arc<Terminator>> {
    let mut terminators: Vec<Arc<Terminator>> = Vec::new();
    for tls in listeners.iter().filter_map(|listener| listener.settings.tls.as_ref()) {
        if !terminators.iter().any(|known| Arc::ptr_eq(known, tls)) {
            terminators.push(Arc::clone(tls));
        }
    }
    terminators
}

/// Adds the service that reloads changed certificates and keys.
fn watch_files(server: &mut Server, listeners: &[Arc<Terminator>], admin: Option<Arc<Terminator>>) {
    let terminators: Vec<Arc<Terminator>> = admin.into_iter().chain(listeners.iter().cloned()).collect();
    if !terminators.is_empty() {
        let mut watcher = background_service("certificates", Watcher::new(terminators));
        watcher.threads = Some(1);
        server.add_service(watcher);
    }
}

fn prepare(
    conf: Arc<ServerConf>,
    (live, (stores, used_stores)): (RuntimeState, (cache::StoresConfig, BTreeSet<cache::StoreKind>)),
    (log, slot): (access_log::Spec, access_log::Slot),
    (workers, engine): (Workers, EngineKind),
) -> Prepare<Engine> {
    let threads = if let Workers::WorkStealing(threads) = workers { threads } else { 1 };
    Box::new(move || {
        let access_log = AccessLog::start(&log).map_err(|e| e.to_string())?;
        *slot.lock() = Some(access_log.clone());
        // The store on disk has a thread, which must not start before the daemon forks.
        live.snapshot.load().caches.open(&stores, used_stores.iter().copied())?;
        let observers = {
            let (metrics, recorder) = (live.metrics.clone(), live.recorder.clone());
            move |threads| Observers {
                access_log: access_log.clone(),
                metrics: metrics.worker(threads),
                recorder: recorder.worker(threads),
            }
        };
        let engine = {
            move |observers| {
                let recorder = live.recent_requests.recorder(threads);
                let lifecycle = live.lifecycle.clone();
                let proxy = Proxy::new(Arc::clone(&live.snapshot), observers, recorder, lifecycle);
                let mut pingora = HttpProxy::new(proxy.clone(), Arc::clone(&conf));
                pingora.server_options = Some(options());
                pingora.handle_init_modules();
                Engine::new(proxy, pingora, &conf, engine == EngineKind::Own)
            }
        };
        Ok(WorkerParts { engine: Box::new(engine), observers: Box::new(observers) })
    })
}

/// CONNECT is accepted by Pingora, so that the proxy rejects and logs it.
fn options() -> HttpServerOptions {
    let mut options = HttpServerOptions::default();
    options.allow_connect_method_proxying = true;
    options
}

fn describe(listeners: &[BoundListener]) -> String {
    let describe = |listener: &BoundListener| {
        let scheme = if listener.settings.tls.is_some() { "https" } else { "http" };
        let first = listener.sockets.first()?;
        Some(format!("{scheme}://{}", first.address()))
    };
    listeners.iter().filter_map(describe).collect::<Vec<_>>().join(" ")
}

/// The bound sockets.
struct Bound {
    /// One group for each listen address, with one socket for each worker.
    groups: Vec<Vec<Socket>>,
    /// One for each address of the admin API.
    admin: Vec<Socket>,
    /// One for each address of the metrics.
    metrics: Vec<Socket>,
    /// Reports readiness to the old process.
    ready: Option<Ready>,
}

/// The sockets for `addresses`, one per worker for each, and for the addresses of the admin API and of the metrics: those
/// of the old process if it has them, otherwise new ones. Sockets of the old process that are no longer configured are
/// closed here, in the new process.
fn sockets(
    addresses: &[ListenAddress],
    (admin_addresses, metrics_addresses): (&[SocketAddr], &[SocketAddr]),
    workers: Workers,
    upgrade: Option<&Path>,
) -> io::Result<Bound> {
    let mut inherited: BTreeMap<String, Vec<Socket>> = BTreeMap::new();
    let mut ready = None;
    if let Some(path) = upgrade {
        let received = handover::receive(path)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot take over sockets at {}: {e}", path.display())))?;
        for socket in received.sockets {
            inherited.entry(socket.name.clone()).or_default().push(socket);
        }
        ready = Some(received.ready);
    }
    let count = if let Workers::SingleThreaded(workers) = workers { workers } else { 1 };
    let take = |address: &ListenAddress| {
        Socket::group(address, count, inherited.remove(&address.to_string()).unwrap_or_default())
    };
    let groups = addresses.iter().map(take).collect::<io::Result<Vec<_>>>();
    let bound = groups.and_then(|groups| {
        let admin = admin::sockets("admin", admin_addresses, &mut inherited)?;
        Ok((groups, admin, admin::sockets("metrics", metrics_addresses, &mut inherited)?))
    });
    match bound {
        Ok((groups, admin, metrics)) => Ok(Bound { groups, admin, metrics, ready }),
        Err(e) => {
            if let Some(ready) = ready {
                ready.fail(&e.to_string());
            }
            Err(e)
        }
    }
}

/// Creates the folders of the pid file and the upgrade socket; new ones are private.
fn prepare_folders(conf: &ServerConf) -> io::Result<()> {
    handover::make_private_folder(Path::new(&conf.upgrade_sock))?;
    if conf.daemon {
        handover::make_private_folder(Path::new(&conf.pid_file))?;
    }
    Ok(())
}

/// Clones through YAML: Pingora's settings do not implement `Clone`.
fn clone_of(conf: &ServerConf) -> ServerConf {
    serde_yaml::to_value(conf).and_then(serde_yaml::from_value).unwrap_or_default()
}
