//! One value for each thread of a worker.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// A value alone in its cache line.
#[derive(Default)]
#[repr(align(64))]
struct Line<T>(Mutex<T>);

/// Values of the threads of a worker, each behind a lock that otherwise only readers take. Cheap to clone; all clones share
/// them.
pub(super) struct PerThread<T>(Arc<[Line<T>]>);

impl<T> Clone for PerThread<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> PerThread<T> {
    /// Values for this number of threads, at least one.
    pub(super) fn new(threads: usize) -> Self {
        Self((0..threads.max(1)).map(|_| Line::default()).collect())
    }
}

impl<T> PerThread<T> {
    /// A value that is not locked. A worker with one thread has one value, which only a reader can lock.
    pub(super) fn free(&self) -> Option<MutexGuard<'_, T>> {
        let count = self.0.len();
        let start = if count > 1 { fastrand::usize(..count) } else { 0 };
        let (before, from) = self.0.split_at_checked(start).unwrap_or_default();
        let free = from.iter().chain(before).find_map(|line| line.0.try_lock());
        free.or_else(|| self.0.get(start).map(|line| line.0.lock()))
    }

    /// All values, one after the other.
    pub(super) fn iter(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.0.iter().map(|line| line.0.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_value_is_passed_over_while_another_is_free() {
        let values = PerThread::<u32>::new(2);
        let held = values.free().unwrap();
        *values.free().unwrap() += 1;
        drop(held);
        assert_eq!(values.iter().map(|value| *value).sum::<u32>(), 1);
        assert_eq!(PerThread::<u32>::new(0).iter().count(), 1);
    }
}
