//! `l7lb schema`: the JSON Schema of the configuration, for editors.

use std::io::Write;

use super::Failure;
use crate::config::schema::schema;

pub(super) fn main() -> Result<(), Failure> {
    writeln!(std::io::stdout().lock(), "{:#}", schema()).map_err(|e| Failure::runtime(e.to_string()))
}
