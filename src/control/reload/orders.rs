//! What the reloader can be told to do, and what comes of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::base::units::Percent;
use crate::config::diagnostic::Diagnostic;
use crate::control::plan::Plan;
use crate::control::plan::changes::Changes;

/// Orders that may wait; whoever only wants the file read is served by those that wait already.
pub(super) const ORDERS_MAX: usize = 16;

/// What came of an order to reload.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The new configuration is in force.
    Applied(Changes),
    /// The new configuration is in force, in a new process.
    Upgraded {
        /// What is different.
        changes: Changes,
        /// The new process, where it tells.
        pid: Option<u32>,
    },
    /// The new configuration is in force but for what needs a new process, and there is none.
    UpgradeFailed {
        /// What is different.
        changes: Changes,
        /// Why, in words.
        reason: String,
    },
    /// The file is faulty; the old configuration stays.
    Rejected {
        /// Each fault as it is printed.
        diagnostics: Vec<String>,
    },
    /// It would move more requests than it may; the old configuration stays.
    MovesTooMuch {
        /// Why, in words.
        reason: String,
        /// What it would do.
        plan: Box<Plan>,
    },
    /// It could not be done; the old configuration stays.
    Failed {
        /// Why, in words.
        reason: String,
    },
}

impl Outcome {
    pub(super) fn rejected(diagnostics: &[Diagnostic]) -> Self {
        Self::Rejected { diagnostics: diagnostics.iter().map(ToString::to_string).collect() }
    }
}

/// A configuration that is to be tried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// What it is called in diagnostics.
    pub file: String,
    /// The text of the file, in YAML. Files that it names are read by the process.
    pub text: String,
}

/// What came of an order to try a configuration out.
#[derive(Clone, Debug, PartialEq)]
pub enum Planned {
    /// What it would do.
    Plan(Box<Plan>),
    /// It is faulty.
    Rejected {
        /// Each fault as it is printed.
        diagnostics: Vec<String>,
    },
    /// It could not be tried out.
    Failed {
        /// Why, in words.
        reason: String,
    },
}

/// How a reload is done.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// The part of the requests of the last while that may end elsewhere; what the configuration in force
    /// says, unless told.
    pub max_moved: Option<Percent>,
    /// Whether a new process takes up what this one cannot.
    pub upgrade_if_needed: bool,
}

/// A new process is to take over.
pub struct Upgrade {
    /// Where it will wait for this one.
    pub upgrade_sock: String,
    /// What the reload changed.
    pub changes: Changes,
    /// Who waits for what comes of it.
    pub tell: oneshot::Sender<Outcome>,
}

/// Asks for upgrades. Cheap to clone.
#[derive(Clone)]
pub struct Upgrades(mpsc::Sender<Upgrade>);

impl Upgrades {
    /// A way to ask, and where it is asked.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Upgrade>) {
        let (give, take) = mpsc::channel(ORDERS_MAX);
        (Self(give), take)
    }

    pub(super) async fn ask(&self, upgrade: Upgrade) {
        // Where it does not arrive, `tell` is gone, which tells as much.
        self.0.send(upgrade).await.ok();
    }
}

/// What is to be done.
pub(super) enum Order {
    /// Have the file read anew.
    Reload {
        /// How.
        how: How,
        /// Who waits for what comes of it.
        tell: Option<oneshot::Sender<Outcome>>,
    },
    /// Try a configuration out.
    Plan {
        /// The configuration.
        draft: Draft,
        /// Who waits.
        tell: oneshot::Sender<Planned>,
    },
}

/// Gives orders to the reloader. Cheap to clone.
#[derive(Clone)]
pub struct Orders(mpsc::Sender<Order>);

/// What is said where nobody takes orders any more.
const LEAVING: &str = "the process is about to leave";

impl Orders {
    /// Orders, and where they arrive.
    pub(super) fn new() -> (Self, mpsc::Receiver<Order>) {
        let (give, take) = mpsc::channel(ORDERS_MAX);
        (Self(give), take)
    }

    /// Has the file read anew, without waiting.
    pub fn give(&self) {
        // With the queue full, one that waits there will see the file as it is now.
        self.0.try_send(Order::Reload { how: How::default(), tell: None }).ok();
    }

    /// Has the file read anew and waits for what comes of it.
    pub async fn reload(&self, how: How) -> Outcome {
        let (tell, told) = oneshot::channel();
        self.0.send(Order::Reload { how, tell: Some(tell) }).await.ok();
        // Where the order did not arrive, `tell` is gone.
        told.await.unwrap_or_else(|_| Outcome::Failed { reason: LEAVING.to_owned() })
    }

    /// Tries a configuration out; nothing is changed.
    pub async fn plan(&self, draft: Draft) -> Planned {
        let (tell, told) = oneshot::channel();
        self.0.send(Order::Plan { draft, tell }).await.ok();
        told.await.unwrap_or_else(|_| Planned::Failed { reason: LEAVING.to_owned() })
    }
}
