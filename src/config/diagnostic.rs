//! How faults are told: file, line and column, where in the configuration, what is wrong, and what
//! would be right.

use std::fmt;

use super::positions::Position;

/// One fault in one file, ready to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as it was named on the command line.
    pub file: String,
    /// Line and column, where known.
    pub position: Option<Position>,
    /// The place in the configuration, such as `pools.api-a.backends[1].address`; may be empty.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right; may be empty.
    pub hint: String,
    /// The line of the file, where known.
    pub excerpt: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(position) = self.position {
            write!(f, ":{}:{}", position.line, position.column)?;
        }
        write!(f, ": error")?;
        if !self.place.is_empty() {
            write!(f, " at {}", self.place)?;
        }
        writeln!(f, ": {}", self.problem)?;
        if let (Some(position), Some(excerpt)) = (self.position, &self.excerpt) {
            let indent = position.column.saturating_sub(1);
            writeln!(f, "{:>5} | {excerpt}", position.line)?;
            writeln!(f, "{:>5} | {:indent$}^", "", "")?;
        }
        if !self.hint.is_empty() {
            writeln!(f, "      = {}", self.hint)?;
        }
        Ok(())
    }
}
