//! Work on all threads of the current pool.
//!
//! What rayon makes of a parallel iterator is compiled anew for each closure: a quarter of this crate's machine code was
//! that. Here it is compiled once, and closures are called through a reference, once for each piece of work; so a piece
//! should be a microsecond of work or more.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

/// Threads of the current pool.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Calls `f` with each number below `n`, in any order.
pub fn each(n: usize, f: &(dyn Fn(usize) + Sync)) {
    (0..n).into_par_iter().for_each(f);
}

/// What `f` gives for each number below `n`, in their order.
pub fn map<T: Send>(n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let places: Vec<Mutex<Option<T>>> = (0..n).map(|_| Mutex::new(None)).collect();
    each(n, &|i| {
        let found = f(i);
        // Nobody else has this place, and whoever panicked while computing had not locked it.
        if let Ok(mut place) = places[i].lock() {
            *place = Some(found);
        }
    });
    let mut out = Vec::with_capacity(n);
    places.into_iter().for_each(|place| out.extend(place.into_inner().ok().flatten()));
    out
}

/// As [`map`], or the first error in order. What comes after an error that is known already is not computed.
///
/// # Errors
/// Those of `f`.
pub fn try_map<T: Send, E: Send>(n: usize, f: impl Fn(usize) -> Result<T, E> + Sync) -> Result<Vec<T>, E> {
    let first_error = AtomicUsize::new(usize::MAX);
    let found = map(n, |i| {
        if first_error.load(Ordering::Relaxed) < i {
            return None;
        }
        let found = f(i);
        if found.is_err() {
            first_error.fetch_min(i, Ordering::Relaxed);
        }
        Some(found)
    });
    found.into_iter().flatten().collect()
}

/// Whether `f` holds for a number below `n`.
pub fn any(n: usize, f: &(dyn Fn(usize) -> bool + Sync)) -> bool {
    (0..n).into_par_iter().any(f)
}

/// Calls `f` with each piece of `len` numbers (the last may be shorter) and its index.
///
/// # Panics
/// If `len` is zero.
pub fn each_chunk<T: Send>(numbers: &mut [T], len: usize, f: &(dyn Fn(usize, &mut [T]) + Sync)) {
    numbers.par_chunks_mut(len).enumerate().for_each(|(i, chunk)| f(i, chunk));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_turn_and_its_place() {
        assert_eq!(map(1000, |i| i * i), (0..1000).map(|i| i * i).collect::<Vec<_>>());
        assert_eq!(map(0, |i| i), Vec::<usize>::new());
        assert_eq!(try_map(9, |i| if i % 4 == 3 { Err(i) } else { Ok(i) }), Err(3));
        let asked = AtomicUsize::new(0);
        let refused = try_map(100_000, |i| {
            asked.fetch_add(1, Ordering::Relaxed);
            Err::<(), usize>(i)
        });
        assert!(refused == Err(0) && asked.into_inner() < 100_000, "nothing is left out after an error");
        assert!(any(100, &|i| i == 99) && !any(100, &|i| i == 100));
        let mut numbers = vec![0; 10];
        each_chunk(&mut numbers, 4, &|i, chunk| chunk.fill(10 * i + chunk.len()));
        assert_eq!(numbers, [4, 4, 4, 4, 14, 14, 14, 14, 22, 22]);
    }

    #[test]
    #[should_panic(expected = "third")]
    fn a_panic_goes_on() {
        map(8, |i| assert!(i != 2, "third"));
    }
}
