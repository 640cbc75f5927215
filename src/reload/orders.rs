//! What the reloader can be told to do, and what comes of it.

use tokio::sync::{mpsc, oneshot};

use crate::config::diagnostic::Diagnostic;
use crate::plan::Plan;
use crate::plan::changes::Changes;
use crate::units::Percent;

/// Orders that may wait; whoever only wants the file read is served by those that wait already.
pub(super) const ORDERS_MAX: usize = 16;

/// What came of an order to reload.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The new configuration is in force.
    Applied(Changes),
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

/// The text of a configuration that is tried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What it is called in diagnostics.
    pub file: String,
    /// The text.
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

/// What is to be done.
pub(super) enum Order {
    /// Have the file read anew.
    Reload {
        /// The part of the requests of the last while that may end elsewhere; what the configuration in force
        /// says, unless told.
        max_moved: Option<Percent>,
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
        self.0.try_send(Order::Reload { max_moved: None, tell: None }).ok();
    }

    /// Has the file read anew and waits for what comes of it. It is refused where more of the requests of
    /// the last while than `max_moved` would end elsewhere; unless told, the configuration in force says so.
    pub async fn reload(&self, max_moved: Option<Percent>) -> Outcome {
        let (tell, told) = oneshot::channel();
        self.0.send(Order::Reload { max_moved, tell: Some(tell) }).await.ok();
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
