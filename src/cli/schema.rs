//! `l7lb schema`: the JSON Schema of the configuration, for editors.

use super::failure::Failure;
use super::table;
use crate::config::schema::schema;

pub(super) fn main() -> Result<(), Failure> {
    table::print(&format!("{:#}\n", schema()))
}
