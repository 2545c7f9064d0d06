//! The target that `TDB_FUZZ_TARGET` names, for libFuzzer. It ends at every panic but those that are caught where other
//! people's code is called (`tdb_model::guarded`), and at every piece of memory that no honest input of this size takes.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::LazyLock;

use targets::Target;

#[path = "../src/fuzz/targets/mod.rs"]
mod targets;

/// Bytes that are asked for at a time.
const MOST: usize = 256 << 20;

struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// Ends the process: nothing may unwind out of an allocator.
fn check(bytes: usize) {
    if bytes > MOST {
        eprintln!("{bytes} bytes were asked for at a time\n{}", std::backtrace::Backtrace::force_capture());
        std::process::abort();
    }
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        unsafe { System.realloc(at, layout, bytes) }
    }
}

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TDB_FUZZ_TARGET").expect("TDB_FUZZ_TARGET names a target");
    targets::target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
