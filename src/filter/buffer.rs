//! `buffer`: receives the whole request body before a backend is chosen.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::{Filter, Request, Step};
use crate::base::fault::{Faults, Place};
use crate::base::units::Size;

/// The name of the filter, which only the own engine has.
pub const NAME: &str = "buffer";

/// The largest size, because a body is in memory.
const SIZE_MAX: Size = Size::mib(64);

/// Configuration of the filter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The largest request body, at most 64 MiB. A larger one is rejected with 413.
    pub size: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self { size: Size::mib(1) }
    }
}

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        if self.size.0 == 0 || self.size.0 > SIZE_MAX.0 {
            let problem = format!("{} is not a size from 1 byte to {SIZE_MAX}", self.size);
            faults.add(place.key("size"), problem, "write for example `size: 1MiB`");
        }
        Some(Arc::new(Buffer { size: self.size.0 }))
    }
}

#[derive(Debug)]
struct Buffer {
    /// In bytes.
    size: u64,
}

impl Filter for Buffer {
    fn request(&self, request: &mut Request<'_>) -> Step {
        let changes = &mut *request.changes;
        changes.buffer_size = Some(self.size);
        // The rejection of a body that is announced needs no backend and no body.
        changes.body_size = Some(changes.body_size.map_or(self.size, |size| size.min(self.size)));
        Step::Continue
    }

    fn describe(&self) -> String {
        format!("bodies of at most {} bytes", self.size)
    }
}
