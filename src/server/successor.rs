//! Starts the process that takes over, with the same arguments, when a reload contains changes that need a new
//! process.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// How this process was started, and how a new one is started.
#[derive(Clone, Debug)]
pub(super) struct Successor {
    /// `None` if the system does not report it.
    program: Option<PathBuf>,
    arguments: Vec<OsString>,
    folder: PathBuf,
}

/// A started process that has not taken over yet. Dropping it kills the process.
pub(super) struct Starting(Option<Child>);

impl Successor {
    /// Must be called before the process becomes a daemon or changes its folder. `upgrade` is whether it took
    /// over itself.
    pub(super) fn of_this(upgrade: bool) -> Self {
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if !upgrade {
            arguments.push("--upgrade".into());
        }
        let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self { program: std::env::current_exe().ok(), arguments, folder }
    }

    /// `path` as seen by the new process.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Starts it. The program file may be a newer version by now.
    ///
    /// # Errors
    /// Why it cannot be started, or must not be because its supervisor would stop both processes.
    pub(super) fn start(&self) -> Result<Starting, String> {
        forbidden()?;
        let program = self.program.as_ref().ok_or("the path of the program is unknown")?;
        let mut command = Command::new(program);
        command.args(&self.arguments).current_dir(&self.folder).stdin(Stdio::null());
        // The watchdog of systemd applies to the new process as well.
        command.env_remove("WATCHDOG_PID");
        let child = command.spawn().map_err(|e| format!("{} cannot be started: {e}", program.display()))?;
        Ok(Starting(Some(child)))
    }
}

impl Starting {
    /// Whether it may still take over. The first process of a daemon exits successfully when the daemon has
    /// started.
    ///
    /// # Errors
    /// If it has failed.
    pub(super) fn check(&mut self) -> io::Result<()> {
        match self.0.as_mut().map(Child::try_wait).transpose()?.flatten() {
            Some(status) if !status.success() => {
                Err(io::Error::other(format!("the new process ended with {status}; see its log")))
            }
            _ => Ok(()),
        }
    }

    /// It has taken over and continues without this process.
    pub(super) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have exited already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Whether a supervisor would stop the new process together with this one.
fn forbidden() -> Result<(), String> {
    if std::process::id() == 1 {
        return Err(
            "this is the first process of its container, which would stop with it; restart the container instead"
                .to_owned(),
        );
    }
    let own = std::process::id().to_string();
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    if is("SYSTEMD_EXEC_PID", &own) && std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Err("systemd would stop the service with this process, because the unit lacks `Type=notify`".to_owned());
    }
    Ok(())
}
