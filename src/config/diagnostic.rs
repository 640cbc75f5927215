//! Diagnostics: file, line and column, place in the configuration, problem and hint; as text, or as JSON.

use std::fmt;

use super::positions::{Position, Positions};
use super::tree::Tree;
use crate::base::fault::Fault;
use crate::base::text_file;

/// The severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but probably not as intended.
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
    /// The file as named on the command line.
    pub file: String,
    /// Line and column, if known.
    pub position: Option<Position>,
    /// The place in the configuration, such as `pools.api-a.backends[1].address`; may be empty.
    pub place: String,
    /// The severity.
    pub severity: Severity,
    /// The problem.
    pub problem: String,
    /// How to correct it; may be empty.
    pub hint: String,
    /// The line of the file, if known.
    pub excerpt: Option<String>,
}

impl Diagnostic {
    /// The diagnostic as JSON; unknown parts are `null`.
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

/// The text of a file, to convert faults into diagnostics.
#[derive(Debug)]
pub struct Source {
    file: String,
    text: String,
    pub(super) positions: Positions,
    /// The content, if short forms were expanded: faults name places in the long form.
    tree: Option<Tree>,
}

impl Source {
    /// Determines the positions in `text`, the content of `file`.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            positions: Positions::of(text_file::without_mark(text)),
            tree: None,
        }
    }

    /// The same text with its content, which knows where the long forms are written.
    pub(super) fn with_tree(self, tree: Tree) -> Self {
        Self { tree: Some(tree), ..self }
    }

    /// The text as in the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text without a byte-order mark.
    #[must_use]
    pub fn content(&self) -> &str {
        text_file::without_mark(&self.text)
    }

    /// The diagnostics of faults, in the order of the file.
    #[must_use]
    pub fn diagnostics(&self, severity: Severity, faults: Vec<Fault>) -> Vec<Diagnostic> {
        let told = |mut fault: Fault| {
            if let Some(tree) = &self.tree {
                fault.place = tree.origin_of(&fault.place);
            }
            let position = self.positions.nearest(&fault.place);
            self.diagnostic(severity, position, fault)
        };
        let mut all: Vec<Diagnostic> = faults.into_iter().map(told).collect();
        all.sort_by_key(|diagnostic| diagnostic.position.map(|p| (p.line, p.column)));
        all.dedup();
        all
    }

    /// The diagnostic of a fault at a known position.
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
        self.content().lines().nth(position.line.checked_sub(1)?).map(str::to_owned)
    }
}
