//! What this machine could do at best: large products of f32 and reads of memory, on all threads. `cargo xtask bench http`
//! runs it before and after its requests, so that times can be compared with arithmetic on the machine at hand.
//!
//! Prints `rows N gflops X` for products of N rows with a weight of GPT-2 small's MLP, by the better of this library's
//! kernel and the `gemm` crate's, and `read gbs X`.

use std::hint::black_box;
use std::time::Instant;

use gemm::Parallelism;
use rayon::prelude::*;
use tdb_model::numbers::{products, sum_in_double};

/// Sizes of the weight: `[OUT, IN]`.
const IN: usize = 768;
const OUT: usize = 3072;

fn main() {
    let weight = numbers(IN * OUT);
    for rows in [1, 16, 64, 256] {
        let x = numbers(rows * IN);
        let own = shortest(|| {
            black_box(products(&x, &weight, IN, true));
        });
        let mut out = vec![0.0; rows * OUT];
        let other = shortest(|| gemm_product(&mut out, &x, &weight, rows));
        let flop = 2.0 * (rows * IN * OUT) as f64;
        println!("rows {rows} gflops {:.1}", flop / own.min(other) / 1e9);
    }
    // Larger than any cache.
    let memory = numbers(128 << 20);
    let seconds = shortest(|| {
        black_box(memory.par_chunks(1 << 16).map(sum_in_double).sum::<f64>());
    });
    println!("read gbs {:.1}", (memory.len() * 4) as f64 / seconds / 1e9);
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 1000) as f32 / 1000.0 - 0.5).collect()
}

/// The shortest time of one call, within half a second of calls.
fn shortest(mut f: impl FnMut()) -> f64 {
    let (start, mut least) = (Instant::now(), f64::INFINITY);
    while start.elapsed().as_secs_f64() < 0.5 {
        let begin = Instant::now();
        f();
        least = least.min(begin.elapsed().as_secs_f64());
    }
    least
}

#[allow(unsafe_code, reason = "the crate's interface takes pointers")]
fn gemm_product(out: &mut [f32], x: &[f32], weight: &[f32], rows: usize) {
    assert!(out.len() == rows * OUT && x.len() == rows * IN && weight.len() == OUT * IN);
    // SAFETY: the strides below stay inside the slices, whose lengths were checked.
    unsafe {
        gemm::gemm(
            rows,
            OUT,
            IN,
            out.as_mut_ptr(),
            1,
            OUT as isize,
            false,
            x.as_ptr(),
            1,
            IN as isize,
            weight.as_ptr(),
            IN as isize,
            1,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}
