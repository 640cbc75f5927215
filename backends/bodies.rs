//! Response bodies that the sample backend streams instead of holding them in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};

/// The body of any response.
pub(super) type ResponseBody = BoxBody<Bytes, Infallible>;

/// About 64 KiB of repeated alphabet. Every block starts with `a`, so byte N of a
/// stream is known and a test detects dropped, duplicated or reordered bytes.
fn block() -> Bytes {
    (b'a'..=b'z').cycle().take(26 * 2520).collect()
}

/// A body of repeated alphabet with a known length.
struct Alphabet {
    block: Bytes,
    /// Bytes not yet sent.
    remaining: u64,
}

impl Body for Alphabet {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.remaining == 0 {
            return Poll::Ready(None);
        }
        let mut piece = self.block.clone();
        // A length that does not fit in usize also exceeds the block.
        piece.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        self.remaining = self.remaining.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// A body of `length` bytes of repeated alphabet; its length is known in advance.
pub(super) fn alphabet(length: u64) -> ResponseBody {
    Alphabet { block: block(), remaining: length }.boxed()
}

/// A body of `chunks` lines (`chunk 1`, `chunk 2`, …) with a pause between them.
/// Its length is not known in advance.
pub(super) fn slow(chunks: u64, pause: Duration) -> ResponseBody {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        for number in 1..=chunks {
            if number > 1 {
                tokio::time::sleep(pause).await;
            }
            let chunk = Bytes::from(format!("chunk {number}\n"));
            // Sending fails when the peer has closed the connection.
            if sender.send_data(chunk).await.is_err() {
                return;
            }
        }
    });
    body.boxed()
}
