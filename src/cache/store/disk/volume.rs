//! The directory of a disk store: names, and the system calls on it.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Number of directories that hold files: 16 with 256 each.
pub(super) const LEAVES: u16 = 4096;
/// How names of temporary files start.
const TEMPORARY: &str = "tmp.";

/// An open directory. Names are relative to it, and never follow symbolic links out of it.
pub(super) struct Volume {
    dir: OwnedFd,
    path: PathBuf,
    /// Part of the temporary names of this store.
    token: u32,
    #[cfg(test)]
    pub(super) fault: std::sync::atomic::AtomicI32,
}

/// Path of a file in the directory, and of the directory that it is in.
pub(super) fn name(hash: u128) -> String {
    format!("{}/{hash:032x}", leaf_name(leaf(hash)))
}

fn leaf(hash: u128) -> u16 {
    (hash >> 116) as u16
}

fn leaf_name(leaf: u16) -> String {
    format!("{:x}/{:02x}", leaf >> 8, leaf & 0xff)
}

/// The hash that a file name stands for.
pub(super) fn parse_name(file_name: &str) -> Option<u128> {
    (file_name.len() == 32).then(|| u128::from_str_radix(file_name, 16).ok()).flatten()
}

impl Volume {
    /// Opens the directory, and creates it with mode 0700 if it is missing.
    pub(super) fn open(path: &Path, token: u32) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let dir = rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self {
            dir,
            path: path.to_owned(),
            token,
            #[cfg(test)]
            fault: std::sync::atomic::AtomicI32::new(0),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn leaf_path(&self, leaf: u16) -> PathBuf {
        self.path.join(leaf_name(leaf))
    }

    /// Opens a file if that needs no I/O. `Errno::AGAIN` if it does.
    pub(super) fn open_cached(&self, name: &str) -> Result<File, Errno> {
        let resolve = ResolveFlags::CACHED | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve).map(File::from)
    }

    /// Opens a file, also for writing if `update`. May block.
    pub(super) fn open_file(&self, name: &str, update: bool) -> io::Result<File> {
        let access = if update { OFlags::RDWR } else { OFlags::RDONLY };
        Ok(rustix::fs::openat(&self.dir, name, access | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?.into())
    }

    /// Creates a temporary file next to the file of `hash`. May block.
    pub(super) fn create(&self, hash: u128, number: u64) -> io::Result<(File, String)> {
        self.fault()?;
        let directory = leaf_name(leaf(hash));
        let name = format!("{directory}/{TEMPORARY}{}.{:08x}{number:016x}", std::process::id(), self.token);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR);
        let file = match create() {
            Err(Errno::NOENT) => {
                let parent = directory.split('/').next().unwrap_or_default();
                self.create_directory(parent)?;
                self.create_directory(&directory)?;
                create()?
            }
            result => result?,
        };
        Ok((file.into(), name))
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.dir, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes to a file. May block.
    pub(super) fn write(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        self.fault()?;
        file.write_all_at(data, offset)
    }

    /// Replaces the file `to` atomically. May block.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fault()?;
        Ok(rustix::fs::renameat_with(&self.dir, from, &self.dir, to, RenameFlags::empty())?)
    }

    /// Removes a file. A missing file is not an error. May block.
    pub(super) fn unlink(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether `name` is this open file, and not one that replaced it. May block.
    pub(super) fn is_current(&self, name: &str, file: &File) -> bool {
        let current = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW);
        matches!((current, rustix::fs::fstat(file)), (Ok(a), Ok(b)) if (a.st_ino, a.st_dev) == (b.st_ino, b.st_dev))
    }

    /// Whether a temporary file has no writer any more. `age`: seconds since its last change; `ours_since`: seconds
    /// since this store opened the directory.
    pub(super) fn is_leftover(&self, file_name: &str, age: u64, ours_since: u64) -> bool {
        let Some((pid, rest)) = file_name.strip_prefix(TEMPORARY).and_then(|rest| rest.split_once('.')) else {
            return false;
        };
        let Ok(pid) = pid.parse::<i32>() else { return true };
        if age > 3600 {
            return true;
        }
        if pid.cast_unsigned() == std::process::id() {
            // In a container, each process may get the same number: an older file is of a process before this one.
            return !rest.starts_with(&format!("{:08x}", self.token)) && age > ours_since;
        }
        let alive = |pid| !matches!(rustix::process::test_kill_process(pid), Err(Errno::SRCH));
        !rustix::process::Pid::from_raw(pid).is_some_and(alive)
    }

    /// Whether a file name is one of a temporary file.
    pub(super) fn is_temporary(file_name: &str) -> bool {
        file_name.starts_with(TEMPORARY)
    }

    #[cfg(test)]
    fn fault(&self) -> io::Result<()> {
        match self.fault.load(std::sync::atomic::Ordering::Relaxed) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests inject errors here")]
    fn fault(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Result of a read that does not wait for the disk.
pub(super) enum Cached {
    /// The bytes; fewer than asked for at the end of the file.
    Done(Vec<u8>),
    /// The first bytes. The rest is not in the page cache.
    Partly(Vec<u8>, usize),
}

/// Reads what the page cache has.
pub(super) fn read_cached(file: &File, offset: u64, length: usize) -> io::Result<Cached> {
    let mut data = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(file, &mut [IoSliceMut::new(rest)], offset + filled as u64, flags) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            // The file system may not support the flag.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return Ok(Cached::Partly(data, filled));
            }
            Err(error) => return Err(error.into()),
        }
    }
    data.truncate(filled);
    Ok(Cached::Done(data))
}

/// Reads the part that `read_cached` did not. May block.
pub(super) fn read_rest(file: &File, offset: u64, mut data: Vec<u8>, mut filled: usize) -> io::Result<Vec<u8>> {
    while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(filled);
    Ok(data)
}
