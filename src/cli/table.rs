//! Text tables: columns as wide as their content, two spaces apart.

use std::io::{self, Write};

use serde::Serialize;

use super::failure::Failure;

/// Rows of cells under a heading.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(heading: [&str; N]) -> Self {
        Self { rows: vec![heading.iter().map(|cell| cell.to_uppercase()).collect()] }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>();
            format!("{}\n", cells.join("  ").trim_end())
        };
        self.rows.iter().map(line).collect()
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        print(&self.text())
    }
}

/// Prints JSON.
pub(super) fn json(response: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(response).map_err(|e| Failure::runtime(e.to_string()))?;
    print(&format!("{text}\n"))
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    is_read(text).map(drop)
}

/// Prints text; returns false if the reader has closed the pipe, as `head` does.
pub(super) fn is_read(text: &str) -> Result<bool, Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Failure::runtime(e.to_string())),
    }
}

/// `1 pool`, `2 pools`.
pub(super) fn count(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}

/// The cell, or `-` if it is missing.
pub(super) fn or_dash(cell: Option<impl ToString>) -> String {
    cell.map_or_else(|| "-".to_owned(), |cell| cell.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_content() {
        let mut table = Table::new(["pool", "n"]);
        table.row(["é".to_owned(), or_dash(Some(1))]);
        table.row(["longer".to_owned(), or_dash(None::<u8>)]);
        assert_eq!(table.text(), "POOL    N\né       1\nlonger  -\n");
    }
}
