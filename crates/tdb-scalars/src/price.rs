//! What runs will cost, told before they are computed.

use tdb_api::Price;
use tdb_model::{MlpKind, Slot, Transformer};

use crate::context::Context;

/// Rows of activations that are computed at a time.
pub(crate) const ROWS: usize = 384;

/// Operations a second that a core does in such runs, measured on processors of 2020 to 2024.
const FLOPS_PER_CORE: f64 = 4e10;

/// Operations in whose time one attention probability goes through a pass, forward or backward (13 ns of a core with 1,024
/// tokens, half of the pairs being seen): it waits for memory.
const FLOPS_PER_PROBABILITY: f64 = 1000.0;

/// The price of `runs` runs of a prompt of `tokens` that compute one token in one layer `token_layers` times.
pub(crate) fn price(
    model: &Transformer,
    runs: usize,
    tokens: usize,
    token_layers: f64,
    context: &Context<'_>,
) -> Price {
    let config = model.config();
    let [d, heads, groups, width, f] =
        [config.d_model, config.n_heads, config.n_kv_heads, config.d_head, config.d_ff].map(|n| n as f64);
    let matrices = match config.mlp {
        MlpKind::None => 0.0,
        MlpKind::Plain(_) => 2.0,
        MlpKind::Gated(_) => 3.0,
    };
    let encoders: f64 = Slot::ALL
        .iter()
        .filter_map(|slot| model.any_autoencoder(*slot))
        .map(|found| (found.n_latents() * found.n_inputs()) as f64)
        .sum();
    let weights = encoders + d * width * (2.0 * heads + 2.0 * groups) + matrices * d * f;
    // A token sees half of the others on average, and takes part in two products with each that it sees.
    let attention = heads * (tokens as f64 / 2.0) * (4.0 * width + FLOPS_PER_PROBABILITY);
    let flops = (2.0 * weights + attention) * token_layers;
    let seconds = flops / (FLOPS_PER_CORE * tdb_model::parallel::threads() as f64);
    Price {
        runs: runs as i64,
        limit: i64::try_from(context.bounds.varied_runs).unwrap_or(i64::MAX),
        // Two figures are as much as it can tell.
        seconds: (seconds * 100.0).ceil() / 100.0,
    }
}
