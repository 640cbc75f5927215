//! How faults are told: file, line and column, where in the configuration, what is wrong, and what
//! would be right; for people or, as JSON, for programs.

use std::fmt;

use super::positions::{Position, Positions};
use crate::base::fault::Fault;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be served.
    Error,
    /// The file is served, but hardly as it is meant.
    Warning,
}

impl Severity {
    /// The word in messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One fault in one file, ready to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as it was named on the command line.
    pub file: String,
    /// Line and column, where known.
    pub position: Option<Position>,
    /// The place in the configuration, such as `pools.api-a.backends[1].address`; may be empty.
    pub place: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub problem: String,
    /// What would be right; may be empty.
    pub hint: String,
    /// The line of the file, where known.
    pub excerpt: Option<String>,
}

impl Diagnostic {
    /// The same for programs: `null` stands for what is unknown.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file,
            "line": self.position.map(|position| position.line),
            "column": self.position.map(|position| position.column),
            "path": self.place,
            "severity": self.severity.word(),
            "problem": self.problem,
            "hint": self.hint,
        })
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(position) = self.position {
            write!(f, ":{}:{}", position.line, position.column)?;
        }
        write!(f, ": {}", self.severity.word())?;
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

/// The text of a file, which turns faults into diagnostics.
#[derive(Debug)]
pub struct Source {
    file: String,
    text: String,
    pub(super) positions: Positions,
}

impl Source {
    /// Reads the positions in the text of a file that is called `file`.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned(), positions: Positions::of(text) }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The diagnostics of faults, in the order of the file.
    #[must_use]
    pub fn diagnostics(&self, severity: Severity, faults: Vec<Fault>) -> Vec<Diagnostic> {
        let told = |fault: Fault| {
            let position = self.positions.nearest(&fault.place);
            self.diagnostic(severity, position, fault)
        };
        let mut all: Vec<Diagnostic> = faults.into_iter().map(told).collect();
        all.sort_by_key(|diagnostic| diagnostic.position.map(|p| (p.line, p.column)));
        all.dedup();
        all
    }

    /// The diagnostic of one fault at a position that is known.
    pub(super) fn diagnostic(&self, severity: Severity, position: Option<Position>, fault: Fault) -> Diagnostic {
        Diagnostic {
            file: self.file.clone(),
            position,
            place: fault.place.as_str().to_owned(),
            severity,
            problem: fault.problem,
            hint: fault.hint,
            excerpt: position.and_then(|position| self.excerpt(position)),
        }
    }

    fn excerpt(&self, position: Position) -> Option<String> {
        self.text.lines().nth(position.line.checked_sub(1)?).map(str::to_owned)
    }
}
