//! A YAML value whose nodes keep their place in the file when parts are removed.
//!
//! serde stops at the first fault. To report all faults of a file, the faulty part is removed and the rest is
//! deserialized again. Removal shifts list elements, so each node keeps its original place.

use serde_yaml::{Mapping, Number, Value};

use super::environment;
use super::positions::Positions;
use crate::base::fault::{Faults, Place};

/// A node and its place in the file.
#[derive(Debug)]
pub(super) struct Tree {
    /// Its place in the file.
    pub(super) origin: Place,
    /// Whether a part of it was removed.
    pub(super) damaged: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Scalar(Value),
    Sequence(Vec<Tree>),
    Mapping(Vec<(Value, Tree)>),
}

/// A step down the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To the value of a key.
    Key(String),
    /// To an element of a list.
    Index(usize),
}

impl Tree {
    /// Converts a parsed value, replacing environment variables.
    pub(super) fn new(
        value: Value,
        origin: Place,
        positions: &Positions,
        variable: &dyn Fn(&str) -> Option<String>,
        faults: &mut Faults,
    ) -> Self {
        let kind = match value {
            Value::Mapping(mapping) => {
                let entry = |(key, value)| {
                    let place = origin.key(&key_text(&key));
                    (key, Self::new(value, place, positions, variable, faults))
                };
                Kind::Mapping(mapping.into_iter().map(entry).collect())
            }
            Value::Sequence(items) => {
                let item = |(index, value)| Self::new(value, origin.index(index), positions, variable, faults);
                Kind::Sequence(items.into_iter().enumerate().map(item).collect())
            }
            Value::String(text) => Kind::Scalar(filled(text, &origin, positions, variable, faults)),
            other => Kind::Scalar(other),
        };
        Self { origin, damaged: false, kind }
    }

    /// The value without the removed parts.
    #[must_use]
    pub(super) fn to_value(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::Sequence(items) => Value::Sequence(items.iter().map(Self::to_value).collect()),
            Kind::Mapping(entries) => {
                Value::Mapping(entries.iter().map(|(key, tree)| (key.clone(), tree.to_value())).collect::<Mapping>())
            }
        }
    }

    fn child(&self, step: &Step) -> Option<&Self> {
        match (&self.kind, step) {
            (Kind::Sequence(items), Step::Index(index)) => items.get(*index),
            (Kind::Mapping(entries), Step::Key(key)) => {
                entries.iter().find(|(k, _)| key_text(k) == *key).map(|(_, tree)| tree)
            }
            _ => None,
        }
    }

    fn child_mut(&mut self, step: &Step) -> Option<&mut Self> {
        match (&mut self.kind, step) {
            (Kind::Sequence(items), Step::Index(index)) => items.get_mut(*index),
            (Kind::Mapping(entries), Step::Key(key)) => {
                entries.iter_mut().find(|(k, _)| key_text(k) == *key).map(|(_, tree)| tree)
            }
            _ => None,
        }
    }

    /// The node at `steps`, or the last one on the way.
    #[must_use]
    pub(super) fn walk(&self, steps: &[Step]) -> &Self {
        steps.iter().try_fold(self, |tree, step| tree.child(step).ok_or(tree)).unwrap_or_else(|last| last)
    }

    /// Removes the node at `steps` and marks its parent as damaged; false at the root or if there is no such
    /// node.
    pub(super) fn cut(&mut self, steps: &[Step]) -> bool {
        let Some((last, way)) = steps.split_last() else {
            return false;
        };
        let mut parent = self;
        for step in way {
            match parent.child_mut(step) {
                Some(child) => parent = child,
                None => return false,
            }
        }
        parent.damaged = true;
        match (&mut parent.kind, last) {
            (Kind::Sequence(items), Step::Index(index)) if *index < items.len() => {
                items.remove(*index);
                true
            }
            (Kind::Mapping(entries), Step::Key(key)) => {
                let before = entries.len();
                entries.retain(|(k, _)| key_text(k) != *key);
                entries.len() < before
            }
            _ => false,
        }
    }
}

/// A key as text; a key of another type as YAML prints it.
fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).map(|text| text.trim_end().to_owned()).unwrap_or_default(),
    }
}

/// A text with its variables replaced. Unquoted, it may become a number or a boolean.
fn filled(
    text: String,
    origin: &Place,
    positions: &Positions,
    variable: &dyn Fn(&str) -> Option<String>,
    faults: &mut Faults,
) -> Value {
    match environment::substitute(&text, variable) {
        Ok(None) => Value::String(text),
        Ok(Some(filled)) if positions.is_plain(origin) => scalar(filled),
        Ok(Some(filled)) => Value::String(filled),
        Err(problem) => {
            faults.add(origin.clone(), problem, "set the variable, or write ${NAME:-default}");
            Value::String(text)
        }
    }
}

/// The text as YAML would type it, restricted to numbers and booleans.
fn scalar(text: String) -> Value {
    if let Ok(number) = text.parse::<u64>() {
        return Value::Number(Number::from(number));
    }
    match text.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => Value::String(text),
    }
}
