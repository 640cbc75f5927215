//! The bodies that the sample backend streams instead of holding in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};

/// The body of any answer.
pub(super) type AnswerBody = BoxBody<Bytes, Infallible>;

/// The alphabet as often as it fits in about 64 KiB. Whole alphabets, so that
/// every block starts with `a` and byte N of a stream is known: a proxy that
/// drops, doubles or swaps a piece shows.
fn block() -> Bytes {
    (b'a'..=b'z').cycle().take(26 * 2520).collect()
}

/// A body of exactly so many bytes of repeated alphabet, its length announced.
struct Alphabet {
    block: Bytes,
    left: u64,
}

impl Body for Alphabet {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut piece = self.block.clone();
        // A length that does not fit in usize exceeds the block all the more.
        piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left = self.left.saturating_sub(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body of `length` bytes: the alphabet over and over.
pub(super) fn alphabet(length: u64) -> AnswerBody {
    Alphabet { block: block(), left: length }.boxed()
}

/// A body of so many lines `chunk 1`, `chunk 2`, … with a pause between them
/// and no length announced.
pub(super) fn slow(chunks: u64, pause: Duration) -> AnswerBody {
    let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        for number in 1..=chunks {
            if number > 1 {
                tokio::time::sleep(pause).await;
            }
            let chunk = Bytes::from(format!("chunk {number}\n"));
            // It fails when the peer has gone: nobody is left to send to.
            if sender.send_data(chunk).await.is_err() {
                return;
            }
        }
    });
    body.boxed()
}
