//! The words of the interface: kinds of nodes, tensors, axes, derived scalars and answers.

mod asked;
mod derived_scalar_type;
mod model;

pub use asked::{ProcessingResponseDataType, SpecType};
pub use derived_scalar_type::DerivedScalarType;
pub use model::{ActivationLocationType, Dimension, NodeType, PassType};

/// A word that is not one of the names of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a known {kind}")]
pub struct UnknownName {
    /// The kind of name that was wanted.
    pub kind: &'static str,
    /// What was found instead.
    pub found: String,
}
