//! Requests to the reloader, and their results.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::base::units::Percent;
use crate::config::diagnostic::Diagnostic;
use crate::control::plan::Plan;
use crate::control::plan::changes::Changes;

/// Requests that may be queued; a plain reload is covered by one that is queued already.
pub(super) const REQUESTS_MAX: usize = 16;

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
    ExceedsMaxMoved {
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
pub enum PlanOutcome {
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
pub struct ReloadOptions {
    /// The largest share of recent requests that may have another outcome; default: that of the active
    /// configuration.
    pub max_moved: Option<Percent>,
    /// Whether a new process is started for changes that need one.
    pub upgrade_if_needed: bool,
}

/// A request for a new process to take over.
pub struct UpgradeRequest {
    /// The upgrade socket of the new process.
    pub upgrade_sock: String,
    /// The changes of the reload.
    pub changes: Changes,
    /// Receives the result.
    pub reply: oneshot::Sender<Outcome>,
}

/// Sends requests for upgrades. Cheap to clone.
#[derive(Clone)]
pub struct UpgradeHandle(mpsc::Sender<UpgradeRequest>);

impl UpgradeHandle {
    /// A sender and its receiver.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<UpgradeRequest>) {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        (Self(sender), receiver)
    }

    pub(super) async fn send(&self, request: UpgradeRequest) {
        // If it is not received, `reply` is dropped, and the requester gets an error.
        self.0.send(request).await.ok();
    }
}

/// A request to the reloader.
pub(super) enum ReloadRequest {
    /// Reload the file.
    Reload {
        /// Its options.
        options: ReloadOptions,
        /// Receives the result.
        reply: Option<oneshot::Sender<Outcome>>,
    },
    /// Evaluate a configuration.
    Plan {
        /// The configuration.
        draft: Draft,
        /// Receives the result.
        reply: oneshot::Sender<PlanOutcome>,
    },
}

/// Sends requests to the reloader. Cheap to clone.
#[derive(Clone)]
pub struct ReloadHandle(mpsc::Sender<ReloadRequest>);

/// The reason if the reloader has stopped.
const SHUTTING_DOWN: &str = "the process is shutting down";

impl ReloadHandle {
    /// A sender and its receiver.
    pub(super) fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        (Self(sender), receiver)
    }

    /// Requests a reload and does not wait for the result.
    pub fn request_reload(&self) {
        // If the queue is full, a queued request will read the current file.
        self.0.try_send(ReloadRequest::Reload { options: ReloadOptions::default(), reply: None }).ok();
    }

    /// Reloads and waits for the result.
    pub async fn reload(&self, options: ReloadOptions) -> Outcome {
        let (reply, received) = oneshot::channel();
        self.0.send(ReloadRequest::Reload { options, reply: Some(reply) }).await.ok();
        // If the request was not received, `reply` was dropped.
        received.await.unwrap_or_else(|_| Outcome::Failed { reason: SHUTTING_DOWN.to_owned() })
    }

    /// Evaluates a configuration. Nothing changes.
    pub async fn plan(&self, draft: Draft) -> PlanOutcome {
        let (reply, received) = oneshot::channel();
        self.0.send(ReloadRequest::Plan { draft, reply }).await.ok();
        received.await.unwrap_or_else(|_| PlanOutcome::Failed { reason: SHUTTING_DOWN.to_owned() })
    }
}
