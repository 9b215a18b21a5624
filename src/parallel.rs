//! One piece of work for each of many devices, several at once.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Devices that are asked at once: the time goes by in the devices, not in this process.
const AT_ONCE: usize = 8;

/// The results in the order of the items. A panic of one is a panic of all.
pub fn map<T: Send, U: Send>(items: Vec<T>, work: impl Fn(T) -> U + Sync) -> Vec<U> {
    let threads = AT_ONCE.min(items.len());
    if threads < 2 {
        return items.into_iter().map(work).collect();
    }
    let items = Mutex::new(items.into_iter().enumerate());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let worker = || std::iter::from_fn(next).map(|(index, item)| (index, work(item))).collect::<Vec<_>>();
    let mut results: Vec<(usize, U)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let join = |thread: thread::ScopedJoinHandle<_>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().flat_map(join).collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_have_the_order_of_the_items_and_several_are_worked_on_at_once() {
        // Each waits for another one: one after the other they would wait for ever.
        let pair = Barrier::new(2);
        let double = |number: usize| {
            pair.wait();
            number * 2
        };
        assert_eq!(map((0..100).collect(), double), (0..100).map(|number| number * 2).collect::<Vec<_>>());
        assert!(map(Vec::<usize>::new(), |number| number).is_empty());
    }
}
