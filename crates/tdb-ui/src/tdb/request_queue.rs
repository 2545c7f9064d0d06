//! Requests that wait for others to end.

use std::collections::VecDeque;

/// Requests by their keys, of which only so many are under way at once.
#[derive(Debug)]
pub struct RequestQueue<K> {
    waiting: VecDeque<K>,
    running: usize,
    at_once: usize,
}

impl<K> RequestQueue<K> {
    pub fn new(at_once: usize) -> Self {
        Self { waiting: VecDeque::new(), running: 0, at_once }
    }

    pub fn push(&mut self, key: K) {
        self.waiting.push_back(key);
    }

    /// The next to begin, if there is room for it: it counts as running until [`RequestQueue::done`].
    pub fn start(&mut self) -> Option<K> {
        let next = (self.running < self.at_once).then(|| self.waiting.pop_front()).flatten()?;
        self.running += 1;
        Some(next)
    }

    /// One that was started has ended.
    pub fn done(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Takes away all that wait.
    pub fn clear(&mut self) -> Vec<K> {
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_run_at_once_and_in_order() {
        let mut queue = RequestQueue::new(2);
        (1..=4).for_each(|key| queue.push(key));
        assert_eq!((queue.start(), queue.start(), queue.start()), (Some(1), Some(2), None));
        queue.done();
        assert_eq!((queue.start(), queue.start()), (Some(3), None));
        assert_eq!(queue.clear(), [4]);
        queue.done();
        queue.done();
        assert_eq!(queue.start(), None);
        queue.push(5);
        assert_eq!(queue.start(), Some(5));
    }
}
