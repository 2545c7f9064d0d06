//! Which tokens a unit's direction promotes.

use tdb_model::kernels::{self, Threads, View};
use tdb_model::{AutoencoderSite, Tokenizer, Transformer};

use crate::Kind;

/// Directions multiplied with the unembedding at a time.
const BLOCK: usize = 256;

/// The unembedding behind the final layer norm's gain: the logit lens of a direction, up to a common factor.
pub struct Lens<'a> {
    model: &'a Transformer,
    tokenizer: &'a Tokenizer,
    /// How many tokens are named.
    count: usize,
}

impl<'a> Lens<'a> {
    pub fn new(model: &'a Transformer, tokenizer: &'a Tokenizer, count: usize) -> Self {
        Self { model, tokenizer, count }
    }

    /// For each unit of a kind the tokens whose logits it raises most; empty lists for units that write no fixed direction,
    /// as attention heads.
    pub fn promotes(&self, layer: usize, kind: Kind) -> Vec<Vec<String>> {
        let units = kind.count(self.model, layer);
        let d_model = self.model.config().d_model;
        let gain = &self.model.weights().ln_f.gain;
        let mut out = vec![Vec::new(); units];
        for first in (0..units).step_by(BLOCK) {
            let block = first..(first + BLOCK).min(units);
            let Some(directions) = block.clone().map(|u| self.direction(layer, kind, u)).collect::<Option<Vec<_>>>()
            else {
                break;
            };
            let mut rows: Vec<f32> = directions.concat();
            for row in rows.chunks_exact_mut(d_model) {
                // The layer norm takes the mean away.
                let mean = row.iter().sum::<f32>() / d_model as f32;
                row.iter_mut().zip(gain).for_each(|(x, g)| *x = (*x - mean) * g);
            }
            let unembed = &self.model.weights().unembed;
            let logits = kernels::matmul(View::new(&rows, block.len(), d_model), View::of(unembed).t(), Threads::All);
            for (unit, logits) in block.zip(logits.chunks_exact(unembed.rows())) {
                out[unit] = self.largest(logits);
            }
        }
        out
    }

    /// What a unit adds to the residual stream, `[D]`.
    fn direction(&self, layer: usize, kind: Kind, unit: usize) -> Option<Vec<f32>> {
        let mlp_out = &self.model.weights().layers[layer].mlp_out.weight;
        match kind {
            Kind::Neuron => Some(mlp_out.transpose().row(unit)),
            Kind::Head | Kind::AttnLatentPairs => None,
            Kind::AttnLatent => Some(self.model.attn_autoencoder(layer)?.direction(unit).to_vec()),
            Kind::MlpLatent => {
                let autoencoder = self.model.mlp_autoencoder(layer)?;
                let direction = autoencoder.direction(unit);
                if autoencoder.site() != AutoencoderSite::MlpPostAct {
                    return Some(direction.to_vec());
                }
                let neurons = View::new(direction, 1, direction.len());
                Some(kernels::matmul(neurons, View::of(mlp_out).t(), Threads::All))
            }
        }
    }

    fn largest(&self, logits: &[f32]) -> Vec<String> {
        // Models are padded to round numbers of rows, to which no token belongs.
        let mut order: Vec<usize> = (0..logits.len()).filter(|t| self.tokenizer.contains(*t as u32)).collect();
        let count = self.count.min(order.len());
        let by = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        if count < order.len() && count > 0 {
            order.select_nth_unstable_by(count, by);
        }
        order.truncate(count);
        order.sort_by(by);
        order.into_iter().map(|token| self.tokenizer.decode_token(token as u32)).collect()
    }
}
