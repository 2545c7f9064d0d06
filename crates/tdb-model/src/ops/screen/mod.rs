//! Bounds of very many products of rows, for a quarter of the products' cost or less: whoever wants only the largest ones
//! computes those alone that the bounds leave open.
//!
//! Both sides are rounded to whole numbers of 8 bits, `x = s q + d` with one scale `s` for each row, which a processor
//! multiplies 64 at a time. What the rounding changes is bounded by lengths (Cauchy and Schwarz):
//! `|x·y - s t q·p| <= |x - s q| |y| + |s q| |y - t p|`.
//! The bound also covers the errors of a sum of products in single precision, in whatever order.
//!
//! Only processors with wide products of 8-bit numbers have screens; elsewhere all products are computed.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(not(target_arch = "x86_64"))]
mod none;

#[cfg(target_arch = "x86_64")]
pub use avx512::Screen;
#[cfg(not(target_arch = "x86_64"))]
pub use none::Screen;

/// Which products are wanted.
pub trait Wanted {
    /// Of a row's products with each of the screen's rows ([`Screen::width`] numbers): those that are not below the first
    /// number and those that are not above the second.
    fn limits(&mut self, row: usize) -> [&[f32]; 2];

    /// A product that may be one of them: the row, the screen's row, and what the product is not below and not above.
    fn offer(&mut self, row: usize, place: usize, bounds: [f32; 2]);
}
