//! Line and column of every node of a YAML file, by place.
//!
//! `serde_yaml` parses the file but does not keep positions. A second, cheap pass over the same text by a
//! parser with positions adds them. For an unknown place (a missing key, or inside an alias) the nearest
//! enclosing node is used.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::base::fault::Place;

/// A line and a column, both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// The position of a node, and whether it is unquoted.
#[derive(Clone, Copy, Debug)]
struct Node {
    position: Position,
    plain: bool,
}

/// The nodes of one file.
#[derive(Debug, Default)]
pub struct Positions {
    values: HashMap<Place, Node>,
    keys: HashMap<Place, Position>,
    duplicate: Option<Position>,
}

/// The enclosing node during the walk.
enum Open {
    Mapping { place: Place, key: Option<Place> },
    Sequence { place: Place, next: usize },
}

impl Positions {
    /// Determines the positions of all nodes. For invalid YAML those before the error.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut walk = Walk { found: Self::default(), open: Vec::new() };
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            walk.take(event, span);
        }
        walk.found
    }

    /// The position of the value at `place`, or of the nearest enclosing node.
    #[must_use]
    pub fn nearest(&self, place: &Place) -> Option<Position> {
        let mut place = place.as_str();
        loop {
            let here = Place::from_text(place);
            // Readers look for the key; list elements have none.
            if let Some(position) = self.keys.get(&here).copied().or_else(|| self.values.get(&here).map(|n| n.position))
            {
                return Some(position);
            }
            place = place.rfind(['.', '[']).and_then(|end| place.get(..end))?;
        }
    }

    /// The position of a duplicate key, which serde_yaml rejects without a position.
    #[must_use]
    pub fn duplicate(&self) -> Option<Position> {
        self.duplicate
    }

    /// Whether the scalar at `place` is unquoted, so that its type is not fixed.
    #[must_use]
    pub fn is_plain(&self, place: &Place) -> bool {
        self.values.get(place).is_some_and(|node| node.plain)
    }
}

struct Walk {
    found: Positions,
    open: Vec<Open>,
}

impl Walk {
    fn take(&mut self, event: Event<'_>, span: Span) {
        let position = Position { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Scalar(text, style, ..) => {
                if let Some(Open::Mapping { place, key: key @ None }) = self.open.last_mut() {
                    let place = place.key(&text);
                    if self.found.keys.insert(place.clone(), position).is_some() {
                        self.found.duplicate.get_or_insert(position);
                    }
                    *key = Some(place);
                } else {
                    self.value(position, style == ScalarStyle::Plain);
                }
            }
            Event::Alias(_) => {
                self.value(position, false);
            }
            Event::SequenceStart(..) => {
                let place = self.value(position, false);
                self.open.push(Open::Sequence { place, next: 0 });
            }
            Event::MappingStart(..) => {
                let place = self.value(position, false);
                self.open.push(Open::Mapping { place, key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            _ => {}
        }
    }

    /// Records a value and returns its place.
    fn value(&mut self, position: Position, plain: bool) -> Place {
        let place = match self.open.last_mut() {
            None => Place::root(),
            Some(Open::Mapping { key, place }) => key.take().unwrap_or_else(|| place.clone()),
            Some(Open::Sequence { place, next }) => {
                *next += 1;
                place.index(*next - 1)
            }
        };
        self.found.values.insert(place.clone(), Node { position, plain });
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "server: { threads: 2 }\npools:\n  api-a:\n    backends:\n      - { address: a }\n      - address: 'b'\n";

    fn at(place: &str) -> Option<(usize, usize)> {
        Positions::of(TEXT).nearest(&Place::from_text(place)).map(|p| (p.line, p.column))
    }

    #[test]
    fn positions_of_keys_elements_and_missing_keys_are_found() {
        assert_eq!(at("server.threads"), Some((1, 11)));
        assert_eq!(at("pools.api-a"), Some((3, 3)));
        assert_eq!(at("pools.api-a.backends[1].address"), Some((6, 9)));
        assert_eq!(at("pools.api-a.backends[0]"), Some((5, 9)));
        assert_eq!(at("pools.api-a.backends[0].weight"), Some((5, 9)), "the enclosing node");
        assert_eq!(at("pools.api-b"), Some((2, 1)));
        assert_eq!(at("routes"), None);
    }

    #[test]
    fn quoted_scalars_are_distinguished() {
        let positions = Positions::of(TEXT);
        assert!(positions.is_plain(&Place::from_text("pools.api-a.backends[0].address")));
        assert!(!positions.is_plain(&Place::from_text("pools.api-a.backends[1].address")));
    }

    #[test]
    fn invalid_yaml_does_not_panic() {
        for text in ["a: [b\nc: {", "\t\0 - : - [[["] {
            assert_eq!(Positions::of(text).nearest(&Place::from_text("z")), None);
        }
    }
}
