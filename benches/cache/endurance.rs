//! Many requests while l7lb is restarted, upgraded and killed, and while its disk is full.
//!
//! Every body proves itself. A request may fail only if a kill cut its response. If the connection ends before the
//! response starts, the client repeats the request; that is allowed only while the process is replaced.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use crate::client::{Connection, Failure, Response};
use crate::lives::{Epochs, Lives, Replacement, Stores};
use crate::object::{self, Filling, Zipf};
use crate::origin::Origin;
use crate::usage;

const MEMORY: u64 = 64 << 20;
const DISK: u64 = 256 << 20;
/// Size of the full disk.
const FULL: u64 = 24 << 20;
/// Memory of a process besides its store.
const OTHER_MEMORY: u64 = 160 << 20;
const CONNECTIONS: usize = 32;
/// How late a response may be, beyond its freshness lifetime.
const SLACK: Duration = Duration::from_secs(2);
/// How long a client repeats a request.
const REPEATS_FOR: Duration = Duration::from_secs(30);
/// The replacements of the process, at equal distances.
const REPLACEMENTS: [Replacement; 12] = {
    use Replacement::{Kill, Restart, Upgrade};
    [Restart, Kill, Restart, Kill, Upgrade, Kill, Upgrade, Restart, Kill, Upgrade, Upgrade, Kill]
};

/// What happened to the requests.
#[derive(Default)]
struct Tally {
    begun: AtomicU64,
    done: AtomicU64,
    repeated: AtomicU64,
    cut_by_kill: AtomicU64,
    faults: Mutex<Vec<String>>,
}

/// The most that was used.
#[derive(Default)]
struct Peaks {
    memory: u64,
    disk: u64,
    disk_before_upgrades: u64,
}

/// What all clients share.
struct Load {
    address: SocketAddr,
    epochs: Arc<Epochs>,
    tally: Tally,
    zipf: Arc<Zipf>,
    filling: Arc<Filling>,
    requests: u64,
}

/// Runs the test, and prints a summary.
pub(crate) fn run(requests: u64, objects: u64) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (folder, origin) = (tempfile::tempdir()?, Origin::start()?);
    let (zipf, filling) = (Arc::new(Zipf::new(objects)), Arc::new(Filling::new()));
    let phases = runtime.block_on(async {
        let main = folder.path().join("main");
        let stores = Stores { memory: MEMORY, disk: DISK, path: &main.join("cache") };
        let replaced = Phase { origin: &origin, folder: &main, stores, replacements: &REPLACEMENTS };
        let first = replaced.run(requests - requests / 10, &zipf, &filling).await?;
        let other = folder.path().join("full");
        let full = FullDisk::new(&other.join("disk"))?;
        let stores = Stores { memory: MEMORY, disk: full.size, path: &full.path.join("cache") };
        let replacements = &[Replacement::Kill, Replacement::Upgrade];
        let filled = Phase { origin: &origin, folder: &other, stores, replacements };
        Ok::<_, Box<dyn Error>>([first, filled.run(requests / 10, &zipf, &filling).await?])
    });
    let mut faults = 0;
    for (name, (text, found)) in ["replaced", "full disk"].into_iter().zip(phases?) {
        println!("{name}: {text}");
        found.iter().take(10).for_each(|fault| println!("  fault: {fault}"));
        faults += found.len();
    }
    if faults > 0 { Err(format!("{faults} faults").into()) } else { Ok(()) }
}

/// A part of the test with processes of its own.
struct Phase<'a> {
    origin: &'a Origin,
    folder: &'a Path,
    stores: Stores<'a>,
    replacements: &'a [Replacement],
}

impl Phase<'_> {
    /// Sends the requests. Returns a summary, and the faults.
    async fn run(
        &self,
        requests: u64,
        zipf: &Arc<Zipf>,
        filling: &Arc<Filling>,
    ) -> Result<(String, Vec<String>), Box<dyn Error>> {
        let mut lives = Lives::start(self.origin.address, self.folder, &self.stores).await?;
        let (began, fetched) = (Instant::now(), self.origin.served());
        let load = Arc::new(Load {
            address: lives.address,
            epochs: Arc::clone(&lives.epochs),
            tally: Tally::default(),
            zipf: Arc::clone(zipf),
            filling: Arc::clone(filling),
            requests,
        });
        let clients = (0..CONNECTIONS).map(|_| client(Arc::clone(&load))).collect::<JoinSet<()>>();
        let peaks = self.replace(&mut lives, &load).await?;
        clients.join_all().await;
        lives.replace(Replacement::Restart).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (tally, fetched, took) = (&load.tally, self.origin.served() - fetched, began.elapsed().as_secs());
        let mut faults = std::mem::take(&mut *tally.faults.lock());
        let last = usage::occupied(self.stores.path);
        let bounds = [
            ("memory", peaks.memory, self.stores.memory + OTHER_MEMORY),
            ("disk before upgrades", peaks.disk_before_upgrades, self.stores.disk * 11 / 10),
            // During an upgrade both processes write to the folder.
            ("disk", peaks.disk, self.stores.disk * 2),
            ("disk after a restart", last, self.stores.disk * 11 / 10),
        ];
        let (done, repeated) = (tally.done.load(Ordering::Relaxed), tally.repeated.load(Ordering::Relaxed));
        let mut text = format!(
            "{done} requests in {took} s, {} % from the cache, {:?}; {repeated} repeated, {} cut by a kill, {} faults",
            100 - (100 * fetched / done.max(1)).min(100),
            self.replacements,
            tally.cut_by_kill.load(Ordering::Relaxed),
            faults.len()
        );
        for (what, peak, bound) in bounds {
            write!(text, "; {what} {} of {} MiB", peak >> 20, bound >> 20)?;
            if peak > bound {
                faults.push(format!("{what}: {peak} bytes"));
            }
        }
        Ok((text, faults))
    }

    /// Replaces the process again and again, and watches what it uses, until all requests are done.
    async fn replace(&self, lives: &mut Lives, load: &Load) -> io::Result<Peaks> {
        let mut peaks = Peaks::default();
        let mut upcoming = self.replacements.iter().zip(1_u64..).peekable();
        let mut upgraded = false;
        loop {
            let done = load.tally.done.load(Ordering::Relaxed);
            if done >= load.requests {
                return Ok(peaks);
            }
            let due = |number: u64| load.requests * number / (self.replacements.len() as u64 + 1);
            if let Some((replacement, _)) = upcoming.next_if(|(_, number)| done >= due(*number)) {
                eprintln!("{done} requests: {replacement:?}");
                upgraded |= *replacement == Replacement::Upgrade;
                lives.replace(*replacement).await?;
            }
            peaks.memory = peaks.memory.max(usage::resident(lives.id()));
            let path = self.stores.path.to_owned();
            let disk = tokio::task::spawn_blocking(move || usage::occupied(&path)).await?;
            peaks.disk = peaks.disk.max(disk);
            if !upgraded {
                peaks.disk_before_upgrades = peaks.disk_before_upgrades.max(disk);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Sends requests until all are done.
async fn client(load: Arc<Load>) {
    let mut connection = None;
    while load.tally.begun.fetch_add(1, Ordering::Relaxed) < load.requests {
        let number = load.zipf.next();
        if let Err(fault) = request(&load, &mut connection, number).await {
            load.tally.faults.lock().push(format!("object {number}: {fault}"));
        }
        load.tally.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends one request, again if needed, and checks the response.
async fn request(load: &Load, connection: &mut Option<Connection>, number: u64) -> Result<(), String> {
    let store = if fastrand::bool() { "memory" } else { "disk" };
    let path = format!("/{store}/o/{number}/{}", object::size(number));
    let range = (fastrand::u8(..20) == 0 && !object::is_changing(number)).then(|| {
        let first = fastrand::usize(..object::size(number));
        (first, fastrand::usize(first..object::size(number)))
    });
    let lines = range.map_or_else(String::new, |(first, last)| format!("Range: bytes={first}-{last}\r\n"));
    let began = Instant::now();
    while began.elapsed() < REPEATS_FOR {
        let before = load.epochs.now();
        let asked = SystemTime::now();
        let opened = match connection.take().filter(Connection::is_usable) {
            Some(open) => Ok(open),
            None => Connection::open(load.address).await.map_err(Failure::Unanswered),
        };
        let result = match opened {
            Ok(mut open) => {
                let result = open.get(&path, &lines).await;
                *connection = Some(open);
                result
            }
            Err(failure) => Err(failure),
        };
        let [replaced, killed] = load.epochs.happened_since(before);
        match result {
            Ok(response) => return judge(load, &response, number, range, asked),
            Err(Failure::Cut(_)) if killed => {
                load.tally.cut_by_kill.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(Failure::Unanswered(_)) if replaced => {
                load.tally.repeated.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(failure) => return Err(format!("{path}, {before:?}: {failure}")),
        }
    }
    Err(format!("{path}: no response within {REPEATS_FOR:?}"))
}

/// Checks a response.
fn judge(
    load: &Load,
    response: &Response,
    number: u64,
    range: Option<(usize, usize)>,
    asked: SystemTime,
) -> Result<(), String> {
    let is_right = match (response.status, range) {
        // A range of a response that is being fetched may be the whole one.
        (200, _) => object::check(&response.body, number, asked, SLACK).map_err(|wrong| format!("wrong: {wrong:?}")),
        (206, Some((first, last))) => {
            let body = load.filling.body(number, 0, object::size(number));
            let same = body.get(first..=last) == Some(&*response.body);
            if same { Ok(()) } else { Err("wrong range".to_owned()) }
        }
        (status, _) => Err(format!("status {status}")),
    };
    is_right.map_err(|wrong| format!("{wrong}, {} bytes, range {range:?}", response.body.len()))
}

/// A small file system, if this process may mount one; otherwise a store of its size.
struct FullDisk {
    path: PathBuf,
    /// Size of the store.
    size: u64,
    is_mounted: bool,
}

impl FullDisk {
    fn new(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={FULL}"), "tmpfs"]).arg(path);
        let is_mounted = nix::unistd::geteuid().is_root() && mount.status().is_ok_and(|status| status.success());
        println!("a full disk: {}", if is_mounted { "a file system in memory" } else { "a small store" });
        Ok(Self { path: path.to_owned(), size: if is_mounted { DISK } else { FULL }, is_mounted })
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            Command::new("umount").arg("-l").arg(&self.path).status().ok();
        }
    }
}
