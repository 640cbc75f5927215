//! Members, and the policy prepared for them.

use std::sync::Arc;

use crate::pool::endpoint::Endpoint;
use crate::pool::selection::choice::{Member, Policy, SelectionRequest};

/// Members and the policy prepared for them.
pub(in crate::pool::selection) struct PreparedGroup<P> {
    pub(in crate::pool::selection) members: Box<[Member]>,
    pub(in crate::pool::selection) policy: P,
}

impl<P: Policy> PreparedGroup<P> {
    pub(in crate::pool::selection) fn new(config: &P::Config, members: Vec<Member>) -> Self {
        Self { policy: P::build(config, &members), members: members.into() }
    }

    /// The index of a member that accepts the request.
    pub(in crate::pool::selection) fn choose(&self, request: &mut SelectionRequest<'_>) -> Option<usize> {
        self.policy.choose(&self.members, request).or_else(|| {
            // If no backend accepts the request because of slow start, slow start is ignored.
            let slow_start = std::mem::take(&mut request.slow_start);
            let chosen = if slow_start.is_zero() { None } else { self.policy.choose(&self.members, request) };
            request.slow_start = slow_start;
            chosen
        })
    }

    /// A backend that accepts the request.
    pub(in crate::pool::selection) fn endpoint(&self, request: &mut SelectionRequest<'_>) -> Option<Arc<Endpoint>> {
        let index = self.choose(request)?;
        self.members.get(index).map(|member| Arc::clone(&member.endpoint))
    }
}
