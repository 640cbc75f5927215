//! Who may call the control API over TCP: the active tokens and roles.
//!
//! A reload replaces them. Changed token files are read again; a file that cannot be used keeps its previous token.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::base::event::Event;
use crate::config::admin::{Access, Token};

/// The active tokens and roles. Cheap to clone; all clones share them.
#[derive(Clone)]
pub struct ActiveAccess(Arc<ArcSwap<Access>>);

impl ActiveAccess {
    /// These tokens and roles.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(access)))
    }

    /// The current ones.
    #[must_use]
    pub fn load(&self) -> Arc<Access> {
        self.0.load_full()
    }

    /// Replaces them for all further calls.
    pub fn replace(&self, access: Access) {
        self.0.store(Arc::new(access));
    }

    /// Reads changed token files again. Blocks while it reads.
    #[must_use]
    pub fn reread(&self) -> Vec<Event> {
        let before = self.load();
        let Some(stamps) = before.stamps.settled_change() else { return Vec::new() };
        let (tokens, events) = reread(&before);
        let next = Access { tokens, stamps, ..Access::clone(&before) };
        let replaced = self.0.compare_and_swap(&before, Arc::new(next));
        // A reload has read the files meanwhile.
        if Arc::ptr_eq(&replaced, &before) { events } else { Vec::new() }
    }
}

/// The tokens with the current contents of their files.
fn reread(before: &Access) -> (Vec<Token>, Vec<Event>) {
    let mut events = Vec::new();
    let mut tokens: Vec<Token> = Vec::with_capacity(before.tokens.len());
    for token in &before.tokens {
        let name = token.name.clone();
        match token.again() {
            Ok(None) => tokens.push(token.clone()),
            Ok(Some(new)) => {
                events.push(Event::TokenLoaded { token: name, file: new.file.display().to_string() });
                tokens.push(new);
            }
            Err(reason) => {
                events.push(Event::TokenReloadFailed { token: name, reason });
                tokens.push(token.clone());
            }
        }
    }
    (tokens, events)
}
