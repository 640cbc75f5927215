//! Requests to the reloader, and their results.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::base::units::Percent;
use crate::config::diagnostic::Diagnostic;
use crate::control::plan::Plan;
use crate::control::plan::changes::Changes;

/// Requests that may be queued; a plain reload is covered by one that is queued already.
pub(super) const ORDERS_MAX: usize = 16;

/// The result of a reload.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The new configuration is active.
    Applied(Changes),
    /// The new configuration is active in a new process.
    Upgraded {
        /// The differences.
        changes: Changes,
        /// The new process, if it sent its id.
        pid: Option<u32>,
    },
    /// The new configuration is active except for changes that need a new process, which could not be started.
    UpgradeFailed {
        /// The differences.
        changes: Changes,
        /// The reason.
        reason: String,
    },
    /// The file is faulty; the active configuration stays.
    Rejected {
        /// The diagnostics as printed.
        diagnostics: Vec<String>,
    },
    /// It would move too many requests; the active configuration stays.
    MovesTooMuch {
        /// The reason.
        reason: String,
        /// The plan.
        plan: Box<Plan>,
    },
    /// The reload failed; the active configuration stays.
    Failed {
        /// The reason.
        reason: String,
    },
}

impl Outcome {
    pub(super) fn rejected(diagnostics: &[Diagnostic]) -> Self {
        Self::Rejected { diagnostics: diagnostics.iter().map(ToString::to_string).collect() }
    }
}

/// A configuration to be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// Its name in diagnostics.
    pub file: String,
    /// The text of the configuration in YAML. The process reads the files that it names.
    pub text: String,
}

/// The result of evaluating a configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Planned {
    /// The plan.
    Plan(Box<Plan>),
    /// It is faulty.
    Rejected {
        /// The diagnostics as printed.
        diagnostics: Vec<String>,
    },
    /// It could not be evaluated.
    Failed {
        /// The reason.
        reason: String,
    },
}

/// Options of a reload.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// The largest share of recent requests that may have another outcome; default: that of the active
    /// configuration.
    pub max_moved: Option<Percent>,
    /// Whether a new process is started for changes that need one.
    pub upgrade_if_needed: bool,
}

/// A request for a new process to take over.
pub struct Upgrade {
    /// The upgrade socket of the new process.
    pub upgrade_sock: String,
    /// The changes of the reload.
    pub changes: Changes,
    /// The requester, which gets the result.
    pub tell: oneshot::Sender<Outcome>,
}

/// Requests upgrades. Cheap to clone.
#[derive(Clone)]
pub struct Upgrades(mpsc::Sender<Upgrade>);

impl Upgrades {
    /// A sender and its receiver.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Upgrade>) {
        let (give, take) = mpsc::channel(ORDERS_MAX);
        (Self(give), take)
    }

    pub(super) async fn ask(&self, upgrade: Upgrade) {
        // If it is not received, `tell` is dropped, which the requester notices.
        self.0.send(upgrade).await.ok();
    }
}

/// A request to the reloader.
pub(super) enum Order {
    /// Reload the file.
    Reload {
        /// Its options.
        how: How,
        /// The requester, which gets the result.
        tell: Option<oneshot::Sender<Outcome>>,
    },
    /// Evaluate a configuration.
    Plan {
        /// The configuration.
        draft: Draft,
        /// The requester.
        tell: oneshot::Sender<Planned>,
    },
}

/// Sends requests to the reloader. Cheap to clone.
#[derive(Clone)]
pub struct Orders(mpsc::Sender<Order>);

/// The reason if the reloader has stopped.
const LEAVING: &str = "the process is shutting down";

impl Orders {
    /// A sender and its receiver.
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (give, take) = mpsc::channel(ORDERS_MAX);
        (Self(give), take)
    }

    /// Requests a reload without waiting.
    pub fn give(&self) {
        // If the queue is full, a queued request will read the current file.
        self.0.try_send(Order::Reload { how: How::default(), tell: None }).ok();
    }

    /// Reloads and waits for the result.
    pub async fn reload(&self, how: How) -> Outcome {
        let (tell, told) = oneshot::channel();
        self.0.send(Order::Reload { how, tell: Some(tell) }).await.ok();
        // If the request was not received, `tell` was dropped.
        told.await.unwrap_or_else(|_| Outcome::Failed { reason: LEAVING.to_owned() })
    }

    /// Tries a configuration out; nothing is changed.
    pub async fn plan(&self, draft: Draft) -> Planned {
        let (tell, told) = oneshot::channel();
        self.0.send(Order::Plan { draft, tell }).await.ok();
        told.await.unwrap_or_else(|_| Planned::Failed { reason: LEAVING.to_owned() })
    }
}
