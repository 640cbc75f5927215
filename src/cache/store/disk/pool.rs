//! Threads of a disk store that wait for the disk in place of requests, and the bound of what waits for them.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    /// Removals of files. They come first, so that they make room before more is written.
    removals: VecDeque<Work>,
    work: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

impl Queue {
    fn next(&mut self) -> Option<Work> {
        self.removals.pop_front().or_else(|| self.work.pop_front())
    }
}

/// At most `limit` threads. They start when they are needed, and live as long as the process.
pub(super) struct Pool {
    name: &'static str,
    limit: usize,
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Pool {
    /// Starts the first thread.
    pub(super) fn start(name: &'static str, limit: usize) -> io::Result<&'static Self> {
        let queue = Mutex::new(Queue { threads: 1, ..Queue::default() });
        let pool: &'static Self = Box::leak(Box::new(Self { name, limit, queue, ready: Condvar::new() }));
        pool.spawn()?;
        Ok(pool)
    }

    fn spawn(&'static self) -> io::Result<()> {
        std::thread::Builder::new().name(self.name.to_owned()).spawn(|| self.serve()).map(drop)
    }

    fn serve(&self) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(work) = queue.next() {
                drop(queue);
                // The panic hook has reported it. A task that waits for the result gets an error.
                drop(catch_unwind(AssertUnwindSafe(work)));
                queue = self.queue.lock();
            } else {
                queue.idle += 1;
                self.ready.wait(&mut queue);
                queue.idle -= 1;
            }
        }
    }

    /// Runs `work` on a thread. The work also runs if its result is not awaited.
    pub(super) fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, result) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.work.push_back(Box::new(move || drop(sender.send(work()))));
        self.wake(&mut queue);
        result
    }

    /// Runs `work` before all that waits in the queue, except other removals.
    pub(super) fn remove(&'static self, work: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue.lock();
        queue.removals.push_back(Box::new(work));
        self.wake(&mut queue);
    }

    fn wake(&'static self, queue: &mut Queue) {
        if queue.removals.len() + queue.work.len() > queue.idle && queue.threads < self.limit {
            // The threads that there are do the work if no other one can start.
            queue.threads += usize::from(self.spawn().is_ok());
        }
        self.ready.notify_one();
    }

    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.queue.lock().threads
    }

    /// Waits until nothing is queued and no thread works.
    #[cfg(test)]
    pub(super) fn settle(&self) {
        loop {
            let queue = self.queue.lock();
            if queue.removals.is_empty() && queue.work.is_empty() && queue.idle == queue.threads {
                return;
            }
            drop(queue);
            std::thread::yield_now();
        }
    }
}

/// Bound of the writes that wait for a thread or run on one.
pub(super) struct Backlog {
    bytes: u64,
    writes: usize,
    used: Mutex<(u64, usize)>,
}

impl Backlog {
    pub(super) fn new(bytes: u64, writes: usize) -> Self {
        Self { bytes, writes, used: Mutex::default() }
    }

    /// A share of the bound, until it is dropped. `None` if there is no room. A single write always has room.
    pub(super) fn take(&'static self, bytes: u64) -> Option<Share> {
        let mut used = self.used.lock();
        let sum = used.0.saturating_add(bytes);
        if used.1 > 0 && (sum > self.bytes || used.1 >= self.writes) {
            return None;
        }
        *used = (sum, used.1 + 1);
        Some(Share { backlog: self, bytes })
    }
}

/// What one write uses of a [`Backlog`].
pub(super) struct Share {
    backlog: &'static Backlog,
    bytes: u64,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.backlog.used.lock();
        *used = (used.0 - self.bytes, used.1 - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn thousands_of_jobs_never_use_more_threads_than_the_limit() {
        let pool = Pool::start("test", 4).unwrap();
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let results: Vec<_> = (0..2000)
            .map(|number| {
                let (now, peak) = (now.clone(), peak.clone());
                pool.run(move || {
                    peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    number
                })
            })
            .collect();
        for (number, result) in results.into_iter().enumerate() {
            assert_eq!(result.await.unwrap(), number);
        }
        assert!(peak.load(Ordering::SeqCst) <= 4 && pool.threads() <= 4);
    }

    #[tokio::test]
    async fn job_that_panics_ends_in_an_error_and_leaves_its_thread() {
        let pool = Pool::start("test", 1).unwrap();
        let failed = pool.run(|| panic!("expected"));
        assert!(failed.await.is_err());
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn removal_runs_before_the_work_that_waits() {
        let pool = Pool::start("test", 1).unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (done, order) = std::sync::mpsc::channel();
        drop(pool.run(move || wait.recv()));
        let (first, second) = (done.clone(), done);
        let last = pool.run(move || first.send("work").unwrap());
        pool.remove(move || second.send("removal").unwrap());
        go.send(()).unwrap();
        last.await.unwrap();
        assert_eq!(order.iter().collect::<Vec<_>>(), ["removal", "work"]);
    }

    #[test]
    fn backlog_refuses_more_than_its_bytes_and_writes() {
        let backlog: &'static Backlog = Box::leak(Box::new(Backlog::new(100, 3)));
        let large = backlog.take(1000);
        assert!(large.is_some() && backlog.take(1).is_none(), "one write always has room");
        drop(large);
        let shares = [60, 20, 20].map(|bytes| backlog.take(bytes).unwrap());
        assert!(backlog.take(0).is_none(), "too many writes");
        drop(shares);
        let _share = backlog.take(60).unwrap();
        assert!(backlog.take(41).is_none() && backlog.take(40).is_some());
    }
}
