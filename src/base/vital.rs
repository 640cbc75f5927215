//! Tasks without which the process must not continue.

/// Held by such a task. If the task panics, the process ends with status 1, so that a supervisor starts it again, and it
/// does not stay ready without serving requests.
pub struct Vital(pub String);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("l7lb ends, because {} has failed; the panic is a fault of l7lb, please report it", self.0);
            std::process::exit(1);
        }
    }
}
