//! Code of others that may panic: what it stops at becomes an error, and nothing is printed.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is caught and told in another way.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what belongs to `whose`, such as `the Parquet reader`. Nothing that it left half done may be used afterwards.
///
/// # Errors
/// If it panics: a sentence with what it said.
pub fn guarded<T>(whose: &str, run: impl FnOnce() -> T) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let tell = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                tell(panic);
            }
        }));
    });
    let before = IS_GUARDED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(run));
    IS_GUARDED.set(before);
    done.map_err(|panic| format!("is damaged: {whose} stopped at it ({})", message(&*panic)))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_sentence() {
        assert_eq!(guarded("the reader", || 3), Ok(3));
        let stopped: Result<(), String> = guarded("the reader", || panic!("at byte {}", 7));
        assert_eq!(stopped.unwrap_err(), "is damaged: the reader stopped at it (at byte 7)");
    }
}
