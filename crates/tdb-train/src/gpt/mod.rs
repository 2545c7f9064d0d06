//! GPT-2 for training. The passes are `tdb-model`'s own; here is what training adds to them: where the parameters lie,
//! and how their gradients follow from the activations and gradients of a pass.

mod gradients;
mod layout;
mod parameters;

pub use gradients::{Text, loss_and_gradients};
pub use layout::{Affine, LayerAt, Layout, Parameter};
pub use parameters::Parameters;
