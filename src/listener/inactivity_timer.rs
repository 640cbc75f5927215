//! An inactivity timeout that costs nothing while there is activity.
//!
//! Setting a timer for every wait would be the most expensive part of a short request. So the timer of a
//! connection is created at its first wait and kept: progress only clears the due time. A timer that fires too
//! early, because its wait has ended, is set again for the rest of the current wait.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// One inactivity timeout.
#[derive(Debug, Default)]
pub struct InactivityTimer {
    due: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl InactivityTimer {
    /// Records activity: the next wait starts from zero.
    pub fn reset(&mut self) {
        self.due = None;
    }

    /// To be polled while waiting. Ready when the wait, which starts with the first poll, has lasted for
    /// `limit`.
    pub fn poll(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
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

    async fn has_expired(timer: &mut InactivityTimer, limit: Duration) -> bool {
        poll_fn(|cx| Poll::Ready(timer.poll(cx, limit).is_ready())).await
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_starts_at_the_first_wait_and_restarts_after_progress() {
        let mut timer = InactivityTimer::default();
        assert!(!has_expired(&mut timer, SECOND * 10).await);
        advance(SECOND * 9).await;
        assert!(!has_expired(&mut timer, SECOND * 10).await);
        timer.reset();
        assert!(!has_expired(&mut timer, SECOND * 10).await);
        advance(SECOND * 9).await;
        assert!(!has_expired(&mut timer, SECOND * 10).await, "the old timer fired, the new wait continues");
        advance(SECOND).await;
        assert!(has_expired(&mut timer, SECOND * 10).await);
    }

    #[tokio::test(start_paused = true)]
    async fn shorter_limit_applies_although_the_timer_was_set_for_a_longer_one() {
        let mut timer = InactivityTimer::default();
        assert!(!has_expired(&mut timer, SECOND * 60).await);
        timer.reset();
        assert!(!has_expired(&mut timer, SECOND).await);
        advance(SECOND).await;
        assert!(has_expired(&mut timer, SECOND).await);
    }

    #[tokio::test(start_paused = true)]
    async fn expiry_wakes_the_waiting_task() {
        let mut timer = InactivityTimer::default();
        let start = Instant::now();
        poll_fn(|cx| timer.poll(cx, SECOND * 3)).await;
        assert_eq!(start.elapsed(), SECOND * 3);
    }
}
