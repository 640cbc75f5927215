//! A limit on how long nothing may happen, which costs nothing while something does.
//!
//! A timer that is set anew for every wait is the dearest part of a short request. So the timer of a
//! connection is made when it first has to wait, and left alone afterwards: progress only forgets
//! the due time. A timer that rings too early, because the wait it was set for is over, is set
//! again for the rest of the current one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// One such limit.
#[derive(Debug, Default)]
pub(super) struct Stall {
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// Something happened: the next wait begins anew.
    pub(super) fn progress(&mut self) {
        self.due = None;
    }

    /// To be asked when there is nothing to do but wait; ready once the wait, which began when this
    /// was first asked, has lasted for `limit`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        let due = *self.due.get_or_insert_with(|| Instant::now() + limit);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() > due {
            timer.as_mut().reset(due);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    async fn is_over(stall: &mut Stall, limit: Duration) -> bool {
        poll_fn(|cx| Poll::Ready(stall.poll(cx, limit).is_ready())).await
    }

    #[tokio::test(start_paused = true)]
    async fn it_counts_from_the_first_wait_and_anew_after_progress() {
        let mut stall = Stall::default();
        assert!(!is_over(&mut stall, SECOND * 10).await);
        advance(SECOND * 9).await;
        assert!(!is_over(&mut stall, SECOND * 10).await);
        stall.progress();
        assert!(!is_over(&mut stall, SECOND * 10).await);
        advance(SECOND * 9).await;
        assert!(!is_over(&mut stall, SECOND * 10).await, "the old timer rang, the new wait goes on");
        advance(SECOND).await;
        assert!(is_over(&mut stall, SECOND * 10).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_limit_is_kept_though_the_timer_was_set_for_a_longer_one() {
        let mut stall = Stall::default();
        assert!(!is_over(&mut stall, SECOND * 60).await);
        stall.progress();
        assert!(!is_over(&mut stall, SECOND).await);
        advance(SECOND).await;
        assert!(is_over(&mut stall, SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn it_wakes_who_waits() {
        let mut stall = Stall::default();
        let began = Instant::now();
        poll_fn(|cx| stall.poll(cx, SECOND * 3)).await;
        assert_eq!(began.elapsed(), SECOND * 3);
    }
}
