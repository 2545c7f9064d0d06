//! Derived scalars as functions of a run, layer by layer.

mod attention;
mod latents;
mod mlp;
mod residual;

use candle_core::Tensor;
use tdb_api::{DerivedScalarType as Dst, PassType};
use tdb_model::numbers::{tensor, zeros};

use crate::derived::{Backward, Layers, Quantity, Subject, describe};
use crate::error::{Error, Result, bad};
use crate::place::Place;
use crate::side::Side;
use crate::values::Values;

pub(crate) use attention::attended_reads;
pub use attention::head_write;
pub(crate) use latents::from_residual;
pub(crate) use latents::{encoded, seen_from_heads, to_residual};
pub use latents::{slot_of, write_direction};

/// The values of `dst` in `layer` (`None` for whole-model scalars).
///
/// # Errors
/// If the scalar needs what the run does not have: a backward pass, an autoencoder, a traced node.
pub fn values<'a>(side: &'a Side<'_>, dst: Dst, pass: PassType, layer: Option<usize>) -> Result<Values<'a>> {
    let scalar = describe(dst);
    if pass == PassType::Backward && scalar.backward == Backward::Undefined {
        return bad!("\"{dst}\" has no gradient; ask for it with passType \"forward\"");
    }
    let of_gradient = pass == PassType::Backward && scalar.backward == Backward::Gradient;
    let layer = match (scalar.subject, scalar.quantity, layer) {
        (Subject::Tensor(site), ..) => return residual::tensor_of_pass(side, dst, site, layer, of_gradient),
        _ if let (Layers::WholeModel, Some(layer)) = (scalar.layers(), layer) => {
            return bad!("\"{dst}\" has no layers, but layer {layer} is named");
        }
        (Subject::NamedNode, ..) | (_, Quantity::OutEdge | Quantity::InEdge(_) | Quantity::InEdgeActivation(_), _) => {
            return crate::edges::values(side, dst, scalar, layer);
        }
        (Subject::Vocabulary, ..) => return crate::readings::vocabulary_into_node(side),
        (Subject::Constant, ..) => return Ok(Values::Dense(constant(side.tokens(), of_gradient))),
        (Subject::Stream(site), quantity, _) => return residual::rows_as_a_whole(side, dst, site, quantity, layer),
        (_, _, Some(layer)) => layer,
        (_, _, None) => return bad!("\"{dst}\" exists in each layer, but no layer is named"),
    };
    match scalar.subject {
        Subject::EndOfPreviousLayer => {
            let point = Place::EndOfPreviousLayer.residual_point(layer);
            residual::tensor_of_pass(side, dst, point.site, point.layer, of_gradient)
        }
        Subject::Neurons | Subject::NeuronErrors => mlp::values(side, dst, scalar, layer),
        Subject::Heads if of_gradient => attention::gradient_of_write_norms(side, dst, layer).map(Values::Dense),
        Subject::Heads => attention::values(side, dst, scalar, layer),
        Subject::NamedLatent => latents::gradient_of_named(side, dst, scalar.quantity, layer),
        _ => latents::values(side, dst, scalar, layer),
    }
}

/// One for each token, or its gradient.
fn constant(tokens: usize, of_gradient: bool) -> Tensor {
    match of_gradient {
        true => zeros(&[tokens, 1]),
        false => tensor(&[tokens, 1], vec![1.0; tokens]),
    }
}

/// The table asks for what no function computes.
fn not_computed<T>(dst: Dst) -> Result<T> {
    Err(Error::Internal(format!("nothing computes \"{dst}\"")))
}

/// What all nodes of a layer write along `gradient: [T, D]`: neurons, heads or latents, as `dst` says.
///
/// # Errors
/// If it is about none of them.
pub(crate) fn along_gradient<'a>(
    side: &'a Side<'_>,
    dst: Dst,
    layer: usize,
    gradient: Option<&Tensor>,
) -> Result<Values<'a>> {
    match describe(dst).subject {
        Subject::Neurons => mlp::neurons_along(side, layer, gradient).map(Values::Dense),
        Subject::Heads => attention::along(side, layer, gradient).map(Values::Dense),
        _ => latents::along_gradient(side, dst, layer, gradient),
    }
}
