//! Line and column of every node of a YAML file, by its place.
//!
//! `serde_yaml` parses and types the file but forgets where things stood. This second, cheap pass
//! over the same text by a parser that reports positions gives them back. Where a place is unknown
//! here (a missing key, something inside an alias), the nearest node around it is shown.

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

/// Where a node begins, and whether it was written without quotes.
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

/// What the walk is inside of.
enum Open {
    Mapping { place: Place, key: Option<Place> },
    Sequence { place: Place, next: usize },
}

impl Positions {
    /// Reads the positions of all nodes. Text that is no YAML has as many as come before the fault.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut walk = Walk { found: Self::default(), open: Vec::new() };
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            walk.take(event, span);
        }
        walk.found
    }

    /// Where the value at `place` stands, or the nearest thing around it.
    #[must_use]
    pub fn nearest(&self, place: &Place) -> Option<Position> {
        let mut place = place.as_str();
        loop {
            let here = Place::from_text(place);
            // A key is what a reader looks for; list elements have none.
            if let Some(position) = self.keys.get(&here).copied().or_else(|| self.values.get(&here).map(|n| n.position))
            {
                return Some(position);
            }
            place = place.rfind(['.', '[']).and_then(|end| place.get(..end))?;
        }
    }

    /// Where a key stands that its mapping has already, which serde_yaml refuses without a position.
    #[must_use]
    pub fn duplicate(&self) -> Option<Position> {
        self.duplicate
    }

    /// Whether the scalar at `place` was written without quotes, so that its type is open.
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

    /// Notes a value that begins here and returns its place.
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
    fn keys_elements_and_what_is_missing() {
        assert_eq!(at("server.threads"), Some((1, 11)));
        assert_eq!(at("pools.api-a"), Some((3, 3)));
        assert_eq!(at("pools.api-a.backends[1].address"), Some((6, 9)));
        assert_eq!(at("pools.api-a.backends[0]"), Some((5, 9)));
        assert_eq!(at("pools.api-a.backends[0].weight"), Some((5, 9)), "the nearest thing around it");
        assert_eq!(at("pools.api-b"), Some((2, 1)));
        assert_eq!(at("routes"), None);
    }

    #[test]
    fn quotes_are_remembered() {
        let positions = Positions::of(TEXT);
        assert!(positions.is_plain(&Place::from_text("pools.api-a.backends[0].address")));
        assert!(!positions.is_plain(&Place::from_text("pools.api-a.backends[1].address")));
    }

    #[test]
    fn broken_text_is_no_panic() {
        for text in ["a: [b\nc: {", "\t\0 - : - [[["] {
            assert_eq!(Positions::of(text).nearest(&Place::from_text("z")), None);
        }
    }
}
