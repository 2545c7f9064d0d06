//! Which tokens a unit's direction promotes.

use std::ops::Range;

use tdb_model::numbers::products;
use tdb_model::{AutoencoderSite, Slot, Tokenizer, Transformer};

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
    ///
    /// # Errors
    /// If an operation fails.
    pub fn promotes(&self, layer: usize, kind: Kind) -> tdb_model::Result<Vec<Vec<String>>> {
        let (units, config) = (kind.count(self.model, layer), self.model.config());
        let (gain, unembedding) = (self.model.final_norm().gain(), self.model.unembedding());
        let unembedding = unembedding.rows(0..config.n_vocab);
        let mut out = vec![Vec::new(); units];
        for first in (0..units).step_by(BLOCK) {
            let block = first..(first + BLOCK).min(units);
            let Some(mut rows) = self.directions(layer, kind, block.clone())? else { break };
            for row in rows.chunks_exact_mut(config.d_model) {
                if config.norm.centers() {
                    // The norm takes the mean away.
                    let mean = row.iter().sum::<f32>() / config.d_model as f32;
                    row.iter_mut().for_each(|x| *x -= mean);
                }
                row.iter_mut().zip(gain.into_iter().flatten()).for_each(|(x, g)| *x *= g);
            }
            let logits = products(&rows, &unembedding, config.d_model, true);
            for (unit, logits) in block.zip(logits.chunks_exact(config.n_vocab)) {
                out[unit] = self.largest(logits);
            }
        }
        Ok(out)
    }

    /// What units add to the residual stream, `[units, D]`; `None` if that is no fixed direction.
    fn directions(&self, layer: usize, kind: Kind, units: Range<usize>) -> tdb_model::Result<Option<Vec<f32>>> {
        let slot = match kind {
            Kind::Neuron => {
                let mlp = self.model.block(layer).mlp();
                return Ok(Some(units.flat_map(|unit| mlp.write_direction(unit)).collect()));
            }
            Kind::Head | Kind::AttnLatentPairs => return Ok(None),
            Kind::AttnLatent => Slot::Attention,
            Kind::MlpLatent => Slot::Mlp,
            Kind::ResidualLatent => Slot::Residual,
        };
        let Some(autoencoder) = self.model.autoencoder(slot, layer) else { return Ok(None) };
        let directions = units.clone().flat_map(|unit| autoencoder.direction(unit).iter().copied()).collect();
        let rows = |directions| self.model.tensor(&[units.len(), autoencoder.n_outputs()], directions);
        let block = self.model.block(layer);
        Ok(match autoencoder.site() {
            AutoencoderSite::MlpPostAct => Some(block.mlp().write(&rows(directions)?)?.flatten_all()?.to_vec1()?),
            AutoencoderSite::AttnVOut => Some(block.attn.write_all(&rows(directions)?)?.flatten_all()?.to_vec1()?),
            // What it does goes through the MLP's neurons.
            AutoencoderSite::MlpIn => None,
            _ => Some(directions),
        })
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
