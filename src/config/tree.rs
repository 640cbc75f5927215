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

    /// The place in the file of what is at `place` in this tree. Steps that the tree does not have are kept: they
    /// name a missing key.
    #[must_use]
    pub(super) fn origin_of(&self, place: &Place) -> Place {
        let steps = steps_of(place);
        let mut tree = self;
        for (index, step) in steps.iter().enumerate() {
            let Some(child) = tree.child(step) else {
                let missing = steps.iter().skip(index);
                return missing.fold(tree.origin.clone(), |place, step| match step {
                    Step::Key(key) => place.key(key),
                    Step::Index(index) => place.index(*index),
                });
            };
            tree = child;
        }
        tree.origin.clone()
    }

    /// The value of `key`, if this is a mapping that has it.
    #[must_use]
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.child(&Step::Key(key.to_owned()))
    }

    /// [`Tree::get`], to change the value.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        self.child_mut(&Step::Key(key.to_owned()))
    }

    /// The elements of a list; none of another node.
    #[must_use]
    pub(super) fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The keys and values of a mapping; none of another node.
    pub(super) fn entries(&self) -> impl Iterator<Item = (String, &Self)> {
        let entries = match &self.kind {
            Kind::Mapping(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|(key, tree)| (key_text(key), tree))
    }

    /// The elements of a list; none of another node.
    pub(super) fn items_mut(&mut self) -> &mut [Self] {
        match &mut self.kind {
            Kind::Sequence(items) => items,
            _ => &mut [],
        }
    }

    /// The keys and values of a mapping; none of another node.
    pub(super) fn entries_mut(&mut self) -> impl Iterator<Item = (String, &mut Self)> {
        let entries = match &mut self.kind {
            Kind::Mapping(entries) => entries.as_mut_slice(),
            _ => &mut [],
        };
        entries.iter_mut().map(|(key, tree)| (key_text(key), tree))
    }

    /// The value of a scalar.
    #[must_use]
    pub(super) fn scalar(&self) -> Option<&Value> {
        match &self.kind {
            Kind::Scalar(value) => Some(value),
            _ => None,
        }
    }

    /// Whether there is no value: the key is written, but nothing after it.
    #[must_use]
    pub(super) fn is_null(&self) -> bool {
        self.scalar().is_some_and(Value::is_null)
    }

    /// Whether this is a list.
    #[must_use]
    pub(super) fn is_sequence(&self) -> bool {
        matches!(self.kind, Kind::Sequence(_))
    }

    /// Whether this is a mapping.
    #[must_use]
    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.kind, Kind::Mapping(_))
    }

    /// Replaces the value by a scalar, at the same place.
    pub(super) fn set(&mut self, value: Value) {
        self.kind = Kind::Scalar(value);
    }

    /// Makes this node the only element of a list, at the same place.
    pub(super) fn wrap_in_list(&mut self) {
        let item = self.take();
        self.kind = Kind::Sequence(vec![item]);
    }

    /// Makes this node the value of `key` in a mapping, at the same place.
    pub(super) fn wrap_under(&mut self, key: &str) {
        let value = self.take();
        self.kind = Kind::Mapping(vec![(key.into(), value)]);
    }

    /// Adds a key that is not written in the file. `origin` is the place from which it follows. A node without a
    /// value becomes a mapping.
    pub(super) fn insert(&mut self, key: &str, value: Option<Value>, origin: Place) {
        if self.is_null() {
            self.kind = Kind::Mapping(Vec::new());
        }
        let kind = value.map_or(Kind::Mapping(Vec::new()), Kind::Scalar);
        if let Kind::Mapping(entries) = &mut self.kind {
            entries.push((key.into(), Self { origin, damaged: false, kind }));
        }
    }

    fn take(&mut self) -> Self {
        let kind = std::mem::replace(&mut self.kind, Kind::Scalar(Value::Null));
        Self { origin: self.origin.clone(), damaged: self.damaged, kind }
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

/// The steps of a place; a key in quotes is one step.
pub(super) fn steps_of(place: &Place) -> Vec<Step> {
    let mut rest = place.as_str();
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let end = end_of_quoted(quoted);
            let (key, after) = quoted.split_at(end);
            (Step::Key(key.replace("\\\"", "\"").replace("\\\\", "\\")), after.get(1..).unwrap_or_default())
        } else if let Some((index, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            (index.parse().map_or_else(|_| Step::Key(index.to_owned()), Step::Index), after)
        } else {
            let (key, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            (Step::Key(key.to_owned()), after)
        };
        steps.push(step);
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    steps
}

/// The length of a quoted text whose opening quote was read.
fn end_of_quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(end, _)| end)
}

/// A key as text; a key of another type as YAML prints it.
fn key_text(key: &Value) -> String {
    match key {
        Value::String(text) => text.clone(),
        other => serde_yaml::to_string(other).map(|text| text.trim_end().to_owned()).unwrap_or_default(),
    }
}

/// Whether the place belongs to a filter, whose texts have variables of their own.
fn is_of_filter(place: &Place) -> bool {
    let place = place.as_str();
    place.starts_with("chains.") || place.contains("filters") || place == "access_log.template"
}

/// A text with its variables replaced. Unquoted, it may become a number or a boolean.
fn filled(
    text: String,
    origin: &Place,
    positions: &Positions,
    variable: &dyn Fn(&str) -> Option<String>,
    faults: &mut Faults,
) -> Value {
    match environment::substitute(&text, is_of_filter(origin), variable) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_place_with_quoted_keys_name_the_same_place() {
        for keys in [&["pools", "a.b[0]", "backends"][..], &["a \"b\" \\", "c"], &["\\", "x"]] {
            let place = keys.iter().fold(Place::root(), |place, key| place.key(key)).index(3);
            let expected: Vec<Step> =
                keys.iter().map(|key| Step::Key((*key).to_owned())).chain([Step::Index(3)]).collect();
            assert_eq!(steps_of(&place), expected, "{place}");
        }
    }
}
