//! `body_limit`: the largest request body, instead of that of the route.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::config::{Configuration, Surroundings};
use super::{Filter, Request, Step};
use crate::base::fault::{Faults, Place};
use crate::base::units::Size;

/// Configuration of the filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The largest request body. A larger one is rejected with 413.
    pub size: Option<Size>,
}

impl Configuration for Config {
    fn check(&self, place: &Place, _: &Surroundings<'_>, faults: &mut Faults) -> Option<Arc<dyn Filter>> {
        let Some(Size(size)) = self.size else {
            faults.add(place.key("size"), "the size is missing", "write for example `size: 10MiB`");
            return None;
        };
        Some(Arc::new(BodyLimit { size }))
    }
}

#[derive(Debug)]
struct BodyLimit {
    /// In bytes.
    size: u64,
}

impl Filter for BodyLimit {
    fn request(&self, request: &mut Request<'_>) -> Step {
        request.changes.body_size = Some(self.size);
        Step::Continue
    }

    fn describe(&self) -> String {
        format!("at most {} bytes", self.size)
    }
}
