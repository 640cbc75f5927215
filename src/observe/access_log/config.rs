//! The `access_log:` block.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::sampling::{Sampling, Statuses};
use super::syslog;
use crate::base::fault::{Faults, Place};
use crate::base::units::Percent;
use crate::observe::record::layout::{Format, Keys, Layout};
use crate::observe::record::redaction;

/// Configuration of the access log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The format of a line.
    pub format: Format,
    /// A text with fields, such as `${client.ip}`, instead of a format.
    pub template: Option<String>,
    /// The file; default: standard output.
    pub file: Option<PathBuf>,
    /// The syslog receiver, instead of a file.
    pub syslog: Option<syslog::Config>,
    /// Whether lines have the query.
    pub query: bool,
    /// Further header fields of requests.
    pub request_headers: Vec<String>,
    /// Further header fields of responses.
    pub response_headers: Vec<String>,
    /// What lines do not reveal.
    pub redact: redaction::Config,
    /// The share of requests that have a line, by status code, class such as `2xx`, or `none` without a response.
    pub sample: BTreeMap<Statuses, Percent>,
    /// Whether the access log is off.
    pub off: bool,
}

/// The checked block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {
    pub(super) layout: Layout,
    pub(super) output: Output,
    pub(super) sampling: Option<Sampling>,
    pub(super) off: bool,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Output {
    #[default]
    Stdout,
    File(PathBuf),
    Syslog(syslog::Spec),
}

impl Config {
    /// Checks the block.
    pub fn check(&self, place: &Place, faults: &mut Faults) -> Spec {
        let keys = Keys {
            format: self.format,
            template: self.template.as_deref(),
            query: self.query,
            redact: &self.redact,
            headers: [&self.request_headers, &self.response_headers],
        };
        let layout = Layout::check(&keys, place, faults);
        if self.file.is_some() && self.syslog.is_some() {
            faults.add(place.key("syslog"), "there is a `file` too", "remove one of them");
        }
        let syslog = self.syslog.as_ref().and_then(|syslog| syslog.check(&place.key("syslog"), faults));
        let output = match (syslog, &self.file) {
            (Some(syslog), _) => Output::Syslog(syslog),
            (None, Some(file)) => Output::File(file.clone()),
            (None, None) => Output::Stdout,
        };
        let sampling = Sampling::check(&self.sample, &place.key("sample"), faults);
        Spec { layout, output, sampling, off: self.off }
    }
}

impl Spec {
    /// The header fields of responses that lines have.
    #[must_use]
    pub fn of_responses(&self) -> Vec<HeaderName> {
        if self.off { Vec::new() } else { self.layout.of_responses() }
    }
}
