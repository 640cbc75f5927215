//! A body as a list of buffers, which readers address by offset.

use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// A smaller chunk is copied, because it may be a slice of a receive buffer, which has 64 KiB. So at most a quarter of the
/// memory is not counted. Smaller buffers are also merged when the body is complete.
const SMALL: usize = 48 * 1024;
/// Size up to which small buffers are merged.
const MERGED: usize = 256 * 1024;
/// Memory that a buffer needs besides its bytes.
const OVERHEAD: u64 = 96;

/// Buffers with the offset at which each ends.
#[derive(Clone, Default)]
pub(super) struct Pieces {
    list: VecDeque<(u64, Bytes)>,
    length: u64,
}

impl Pieces {
    /// Bytes of the body, with those that were released.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Memory in use.
    pub(super) fn footprint(&self) -> u64 {
        let first = self.list.front().map_or(self.length, |(end, data)| end - data.len() as u64);
        self.length - first + OVERHEAD * self.list.len() as u64
    }

    /// Memory in use after `data` is added.
    pub(super) fn footprint_with(&self, data: &Bytes) -> u64 {
        self.footprint() + OVERHEAD + data.len() as u64
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let data = if data.len() < SMALL { Bytes::copy_from_slice(&data) } else { data };
        self.length += data.len() as u64;
        self.list.push_back((self.length, data));
    }

    /// The bytes from `start` to the end of the buffer, at most to `end`. `None` if there are none, or none any more.
    pub(super) fn read(&self, start: u64, end: u64) -> Option<Bytes> {
        let index = self.list.partition_point(|(piece_end, _)| *piece_end <= start);
        let (piece_end, data) = self.list.get(index)?;
        let piece_start = piece_end - data.len() as u64;
        let from = start.checked_sub(piece_start)?;
        let to = end.min(*piece_end).checked_sub(piece_start)?;
        if from == 0 && to == data.len() as u64 {
            return Some(data.clone());
        }
        (from < to).then(|| data.slice(from as usize..to as usize))
    }

    /// Forgets buffers that end at or before `end`.
    pub(super) fn release(&mut self, end: u64) {
        while self.list.front().is_some_and(|(piece_end, _)| *piece_end <= end) {
            self.list.pop_front();
        }
    }

    /// The buffers from `start` on, which must be the end of a buffer or 0.
    pub(super) fn from(&self, start: u64) -> Vec<Bytes> {
        let index = self.list.partition_point(|(piece_end, _)| *piece_end <= start);
        self.list.range(index..).map(|(_, data)| data.clone()).collect()
    }

    /// Merges small buffers that follow each other.
    pub(super) fn merge(&mut self) {
        if self.list.len() > 1 {
            let list = std::mem::take(&mut self.list);
            let mut run = Vec::new();
            for (end, data) in list {
                if data.len() >= SMALL {
                    self.append_run(&mut run);
                    self.list.push_back((end, data));
                    continue;
                }
                let size: usize = run.iter().map(|(_, data): &(u64, Bytes)| data.len()).sum();
                if size + data.len() > MERGED {
                    self.append_run(&mut run);
                }
                run.push((end, data));
            }
            self.append_run(&mut run);
        }
        self.list.shrink_to_fit();
    }

    fn append_run(&mut self, run: &mut Vec<(u64, Bytes)>) {
        let Some((end, _)) = run.last() else { return };
        let end = *end;
        if let [(_, only)] = run.as_slice() {
            self.list.push_back((end, only.clone()));
        } else {
            let mut merged = BytesMut::with_capacity(run.iter().map(|(_, data)| data.len()).sum());
            run.iter().for_each(|(_, data)| merged.extend_from_slice(data));
            self.list.push_back((end, merged.freeze()));
        }
        run.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &Pieces) -> Vec<u8> {
        let (mut body, mut at) = (Vec::new(), 0);
        while let Some(data) = pieces.read(at, u64::MAX) {
            at += data.len() as u64;
            body.extend_from_slice(&data);
        }
        body
    }

    #[test]
    fn merging_keeps_the_bytes_and_leaves_few_buffers() {
        for sizes in [vec![1; 1000], vec![70_000, 1, 2, 70_000], vec![20_000; 40], vec![], vec![5, 60_000, 5]] {
            let mut pieces = Pieces::default();
            let mut expected = Vec::new();
            for (number, size) in sizes.iter().enumerate() {
                let data = vec![number as u8; *size];
                expected.extend_from_slice(&data);
                pieces.push(data.into());
            }
            let before = pieces.list.len();
            pieces.merge();
            assert_eq!(all(&pieces), expected);
            assert!(pieces.list.len() <= before.min(8));
            assert_eq!(pieces.length(), expected.len() as u64);
        }
    }

    #[test]
    fn read_returns_the_part_of_a_buffer_within_the_range() {
        let mut pieces = Pieces::default();
        for data in ["abc", "", "de", "fghi"] {
            pieces.push(Bytes::from(data));
        }
        for (start, end, expected) in [
            (0, 9, Some("abc")),
            (1, 2, Some("b")),
            (3, 99, Some("de")),
            (4, 9, Some("e")),
            (5, 6, Some("f")),
            (8, u64::MAX, Some("i")),
            (9, 10, None),
            (2, 2, None),
            (6, 1, None),
        ] {
            assert_eq!(pieces.read(start, end).as_deref(), expected.map(str::as_bytes), "{start}..{end}");
        }
        pieces.release(4);
        assert_eq!(pieces.read(1, 9), None, "released");
        assert_eq!(pieces.read(4, 9).as_deref(), Some(&b"e"[..]), "a buffer is released as a whole");
        assert_eq!(pieces.from(5), [Bytes::from("fghi")]);
    }

    #[test]
    fn chunk_much_smaller_than_a_receive_buffer_does_not_keep_it() {
        for (size, keeps) in [(100, false), (16 * 1024, false), (48 * 1024 - 1, false), (50_000, true)] {
            let buffer = Bytes::from(vec![7; 64 * 1024]);
            let mut pieces = Pieces::default();
            pieces.push(buffer.slice(..size));
            pieces.merge();
            assert!(all(&pieces) == buffer[..size]);
            // Without other references, a buffer is unique.
            assert_eq!(buffer.is_unique(), !keeps, "{size} bytes");
        }
    }
}
