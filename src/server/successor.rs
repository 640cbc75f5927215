//! The process that takes over: started by this one as it was started itself, when a reload brings what only
//! a new process can take up.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What this process was started with, and so its successor is.
#[derive(Clone, Debug)]
pub(super) struct Successor {
    /// None where the system does not tell.
    program: Option<PathBuf>,
    arguments: Vec<OsString>,
    folder: PathBuf,
}

/// A successor that was started and has not taken over yet. Dropping it ends it, and leaves nothing behind.
pub(super) struct Starting(Option<Child>);

impl Successor {
    /// To be called before the process becomes a daemon or goes elsewhere. `upgrade` says whether it took over
    /// itself.
    pub(super) fn of_this(upgrade: bool) -> Self {
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if !upgrade {
            arguments.push("--upgrade".into());
        }
        let folder = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self { program: std::env::current_exe().ok(), arguments, folder }
    }

    /// Where `path` is for it.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Starts it. What is at the program's path by now is run, which may be a newer version.
    ///
    /// # Errors
    /// In words: why it cannot be, or must not be since whoever watches this process would end all with it.
    pub(super) fn start(&self) -> Result<Starting, String> {
        forbidden()?;
        let program = self.program.as_ref().ok_or("nobody knows where the program is")?;
        let mut command = Command::new(program);
        command.args(&self.arguments).current_dir(&self.folder).stdin(Stdio::null());
        // systemd's watchdog is not for this process alone.
        command.env_remove("WATCHDOG_PID");
        let child = command.spawn().map_err(|e| format!("{} cannot be started: {e}", program.display()))?;
        Ok(Starting(Some(child)))
    }
}

impl Starting {
    /// Whether it may still take over. A daemon's first process ends well when the daemon has begun.
    ///
    /// # Errors
    /// When it has ended otherwise.
    pub(super) fn check(&mut self) -> io::Result<()> {
        match self.0.as_mut().map(Child::try_wait).transpose()?.flatten() {
            Some(status) if !status.success() => {
                Err(io::Error::other(format!("the new process ended with {status}; its log says why")))
            }
            _ => Ok(()),
        }
    }

    /// It has taken over, and lives on without us.
    pub(super) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Whether all would end with this process.
fn forbidden() -> Result<(), String> {
    if std::process::id() == 1 {
        return Err(
            "this is the first process of its container, which would end with it; start the container anew".to_owned()
        );
    }
    let own = std::process::id().to_string();
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    if is("SYSTEMD_EXEC_PID", &own) && std::env::var_os("NOTIFY_SOCKET").is_none() {
        return Err(
            "systemd would end the service with this process, since the unit does not say `Type=notify`".to_owned()
        );
    }
    Ok(())
}
