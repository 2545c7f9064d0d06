//! GPT-2 for training: all of its weights learn, so forward and backward are written out together here, on packed rows
//! without padding. (The debugger's own pass, in `tdb-model`, keeps weights frozen and keeps activations.)

pub mod kernels;
mod pass;
mod shape;

pub use kernels::IGNORED;
pub use pass::{Batch, Pass};
pub use shape::{Layout, Shape, Tensor};
