//! Waits: what must happen before the decision of a filter is known, such as a request to another service.

use async_trait::async_trait;

use super::Step;
use super::changes::FieldChange;
use super::subrequests::Subrequests;

/// A wait of one request. It owns what it needs, because the request is not borrowed while it waits.
#[async_trait]
pub trait Pending: Send + Sync {
    /// What the request waits for, in a few words for `l7lb explain`, which does not wait.
    fn describe(&self) -> String;

    /// Waits for the result; may make requests to pools.
    async fn resolve(self: Box<Self>, subrequests: &dyn Subrequests) -> Resolution;
}

/// The result of a wait.
pub struct Resolution {
    /// What follows.
    pub step: Step,
    /// Changes to the fields of the request for backends.
    pub fields: Vec<FieldChange>,
}
