//! No [`Screen`].

use super::Wanted;

/// Rows that are multiplied with many others: on this kind of processor there are none.
pub enum Screen {}

impl Screen {
    /// `None`.
    pub fn new(_: &[f32], _: usize) -> Option<Self> {
        None
    }

    /// How many limits there have to be.
    pub fn width(&self) -> usize {
        match *self {}
    }

    /// Offers the products that are wanted.
    pub fn offer(&self, _: &[f32], _: &mut impl Wanted) {
        match *self {}
    }
}
