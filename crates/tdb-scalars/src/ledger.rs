//! The checks that an answer carries: each does again, in another way, what the answer rests on.

use tdb_api::{Check, CheckName};
use tdb_model::numbers::dot;
use tdb_model::{
    ForwardOptions, Gradients, Index, Intervention, Numbers, Pass, Patch, PatchHooks, Point, Run, Site, Slot, Together,
    Transformer, Values,
};

use crate::effects::{Entries, Random};
use crate::error::Result;
use crate::metric::Metric;
use crate::price::ROWS;

/// A run whose answer is checked.
pub(crate) struct Checked<'a> {
    pub run: &'a Run,
    pub interventions: &'a [Intervention],
    pub metric: &'a Metric,
}

fn check(name: CheckName, found: f64, limit: f64, sentence: String) -> Check {
    // What is no number passes nothing.
    Check { name, passed: found <= limit, found: if found.is_finite() { found } else { f64::MAX }, limit, sentence }
}

impl Checked<'_> {
    fn model(&self) -> &Transformer {
        self.run.model()
    }

    fn tokens(&self) -> usize {
        self.run.tokens().len()
    }

    fn objective(&self) -> Result<f64> {
        Ok(self.metric.value_of_all(&self.run.logits(self.tokens() - 1)?))
    }

    fn vary(&self, runs: &[Vec<Patch>]) -> Result<Vec<Vec<f32>>> {
        let mut out = vec![Vec::new(); runs.len()];
        let options = Together {
            interventions: self.interventions,
            logits: self.metric.logits(),
            rows: ROWS,
            ..Default::default()
        };
        self.run.vary(runs, options, &mut |i, logits| {
            out[i] = logits.to_vec();
            Ok(())
        })?;
        Ok(out)
    }

    /// The checks that need nothing but the run.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn of_run(&self, seed: u64) -> Result<Vec<Check>> {
        let mut checks = Vec::new();
        checks.extend(self.sum()?);
        checks.extend(self.writes()?);
        checks.push(self.identity(seed)?);
        checks.push(self.difference()?);
        Ok(checks)
    }

    /// Whether the residual stream is changed between what layers write and what they read.
    fn is_changed(&self) -> bool {
        self.interventions.iter().any(|i| i.pass == Pass::Forward && i.site != Site::ResidPostEmb)
    }

    /// Direct effects and constants add up to the objective. Not where logits are capped, which makes them no sum.
    fn sum(&self) -> Result<Option<Check>> {
        let Metric::LogitDifference { .. } = self.metric else { return Ok(None) };
        let (model, last) = (self.model(), self.tokens() - 1);
        if model.unembedding().is_capped() || self.is_changed() {
            return Ok(None);
        }
        let at_norm = {
            let logits = self.run.logits(last)?;
            model.unembedding().vjp(&logits, &self.metric.gradient(&logits))
        };
        let row =
            |x: &candle_core::Tensor| Ok::<_, candle_core::Error>(Numbers::of(&x.narrow(0, last, 1)?)?.data().to_vec());
        let residual = row(self.run.last_residual())?;
        let gradient = model.final_norm().vjp_row(&residual, &at_norm, true);
        let mut parts = vec![f64::from(dot(&row(self.run.residual_before(0))?, &gradient))];
        for layer in 0..model.config().n_layers {
            parts.push(f64::from(dot(&row(&self.run.get(Site::ResidDeltaAttn, layer)?)?, &gradient)));
            if model.site_dims(Site::ResidDeltaMlp, 1).is_some() {
                parts.push(f64::from(dot(&row(&self.run.get(Site::ResidDeltaMlp, layer)?)?, &gradient)));
            }
        }
        let n = parts.len();
        // The norm's bias through the unembedding.
        let nothing = model.final_norm().jvp_row(&residual, &residual, true);
        let bias: Vec<f32> = model.final_norm().row(&residual).iter().zip(nothing).map(|(y, x)| y - x).collect();
        parts.push(f64::from(dot(&bias, &at_norm)));
        let size: f64 = parts.iter().map(|x| x.abs()).sum();
        let (sum, objective) = (parts.iter().sum::<f64>(), self.objective()?);
        let sentence =
            format!("{n} direct effects and a constant add up to {sum:.5}; the objective is {objective:.5}.");
        Ok(Some(check(CheckName::Sum, (sum - objective).abs(), 1e-4 * (1.0 + size), sentence)))
    }

    /// Heads, neurons and biases of every layer, at the last token, add up to what the layer writes. Not where layers are
    /// normalised after they have written.
    fn writes(&self) -> Result<Option<Check>> {
        let (model, last) = (self.model(), self.tokens() - 1);
        let config = model.config();
        if config.post_norms || self.is_changed() {
            return Ok(None);
        }
        let host = |x: candle_core::Tensor| Ok::<_, candle_core::Error>(Numbers::of(&x)?.to_row_major());
        let mut worst = 0.0f64;
        let mut compare = |sum: Vec<f32>, written: &[f32]| {
            let size = written.iter().fold(1e-6f32, |a, x| a.max(x.abs()));
            let apart = sum.iter().zip(written).fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
            let apart = f64::from(apart / size);
            worst = if apart.is_finite() { worst.max(apart) } else { f64::INFINITY };
        };
        for layer in 0..config.n_layers {
            let block = model.block(layer);
            let bias = |has: bool, name: &str| match has {
                true => host(model.weight(&format!("blocks.{layer}.{name}.bias"))?).map_err(crate::Error::from),
                false => Ok(vec![0.0; config.d_model]),
            };
            let mut sum = bias(config.attention.bias.o, "attn.o")?;
            let heads = self.run.get(Site::AttnVOut, layer)?.get(last)?;
            for head in 0..config.n_heads {
                let write = host(block.attn.write(head, &heads.narrow(0, head, 1)?)?)?;
                sum.iter_mut().zip(write).for_each(|(sum, x)| *sum += x);
            }
            compare(sum, &host(self.run.get(Site::ResidDeltaAttn, layer)?.narrow(0, last, 1)?)?);
            if block.has_mlp() {
                let mut sum = bias(config.mlp_bias, "mlp.out")?;
                let neurons = self.run.get(Site::MlpPostAct, layer)?.narrow(0, last, 1)?;
                let write = host(block.mlp().write(&neurons)?)?;
                sum.iter_mut().zip(write).for_each(|(sum, x)| *sum += x);
                compare(sum, &host(self.run.get(Site::ResidDeltaMlp, layer)?.narrow(0, last, 1)?)?);
            }
        }
        let sentence = format!(
            "In {} layers, heads, neurons and biases add up to what the layer writes, up to {worst:.1e} of it.",
            config.n_layers
        );
        Ok(Some(check(CheckName::Writes, worst, 1e-3, sentence)))
    }

    /// Patched with itself, a run is the same: to the bit on a processor, whose operations do not depend on what is computed
    /// beside.
    fn identity(&self, seed: u64) -> Result<Check> {
        let (model, tokens) = (self.model(), self.tokens());
        let mut random = Random::new(seed);
        let mut sites = vec![Site::ResidPostAttn, Site::AttnV, Site::AttnVOut, Site::MlpPostAct, Site::ResidPostMlp];
        sites.retain(|site| model.site_dims(*site, tokens).is_some());
        let mut runs = vec![vec![Patch::from_run(
            self.run,
            Point { site: Site::ResidPostEmb, layer: None },
            vec![Index::All, Index::All],
        )?]];
        for site in sites {
            let rank = model.site_dims(site, tokens).map_or(2, |dims| dims.len());
            let indices = [vec![Index::At(random.below(tokens))], vec![Index::All; rank - 1]].concat();
            let point = Point { site, layer: Some(random.below(model.config().n_layers)) };
            runs.push(vec![Patch::from_run(self.run, point, indices)?]);
        }
        let expected = self.read_logits()?;
        let mut worst = 0.0f64;
        for found in self.vary(&runs)? {
            for (found, expected) in found.iter().zip(&expected) {
                worst = worst.max(f64::from((found - expected).abs()));
            }
        }
        let limit = if model.device().is_cpu() { 0.0 } else { 1e-4 };
        let sentence =
            format!("{} patches of the run with itself moved no logit by more than {worst:.1e}.", runs.len());
        Ok(check(CheckName::Identity, worst, limit, sentence))
    }

    /// The base run's logits that the metric reads.
    fn read_logits(&self) -> Result<Vec<f32>> {
        let all = self.run.logits(self.tokens() - 1)?;
        Ok(match self.metric.logits() {
            tdb_model::Logits::All => all,
            tdb_model::Logits::Of(tokens) => tokens.iter().map(|t| all[*t as usize]).collect(),
        })
    }

    /// A run patched with something else is another one.
    fn difference(&self) -> Result<Check> {
        let (model, last) = (self.model(), self.tokens() - 1);
        let other = (self.run.tokens()[last] + 1) % model.embedding().n_vocab() as u32;
        let point = Point { site: Site::ResidPostEmb, layer: None };
        let values = Values::Each(model.embedding().row(other).into());
        let patch = Patch { point, indices: vec![Index::At(last), Index::All], values };
        let fixed = self.interventions.iter().any(|i| i.pass == Pass::Forward);
        let same = self.vary(&[vec![patch]])?[0] == self.read_logits()?;
        let sentence = match same {
            true => "Another token's embedding in the place of the last one's changed nothing.",
            false => "Another token's embedding in the place of the last one's changed the logits.",
        };
        // Under interventions the last token may have no part in the answer.
        Ok(check(CheckName::Difference, f64::from(u8::from(same && !fixed)), 0.0, sentence.to_owned()))
    }

    /// Activation times gradient of up to two of these nodes against finite differences, the scale of the final norm being
    /// held.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn gradient(&self, nodes: &[Entries], gradients: &Gradients, seed: u64) -> Result<Check> {
        /// Steps by which activations are scaled.
        const STEP: f32 = 0.05;
        let (mut random, last) = (Random::new(seed ^ 1), self.tokens() - 1);
        let mut estimates = Vec::with_capacity(nodes.len());
        for node in nodes {
            let gradient = node.gradient(self.run, gradients)?;
            let terms = node.values(self.run)?.into_iter().zip(gradient.unwrap_or_default());
            estimates.push(terms.map(|(x, g)| f64::from(x) * f64::from(g)).sum::<f64>());
        }
        let largest = (0..nodes.len()).max_by(|a, b| estimates[*a].abs().total_cmp(&estimates[*b].abs()));
        let mut chosen: Vec<usize> = largest.into_iter().collect();
        if !nodes.is_empty() {
            chosen.push(random.below(nodes.len()));
        }
        chosen.dedup();
        let scale = Point { site: Site::FinalLnScale, layer: None };
        let hold = Patch::from_run(self.run, scale, vec![Index::At(last), Index::All])?;
        let mut runs = Vec::new();
        for &i in &chosen {
            let values = nodes[i].values(self.run)?;
            for steps in [1.0, -1.0, 2.0, -2.0] {
                let moved: Vec<f32> = values.iter().map(|x| x * (1.0 + steps * STEP)).collect();
                runs.push(vec![nodes[i].set_to(Values::Each(moved.into())), hold.clone()]);
            }
        }
        let found: Vec<f64> = self.vary(&runs)?.iter().map(|logits| self.metric.value(logits)).collect();
        let (mut worst, mut size) = (0.0f64, 0.0f64);
        for (&i, f) in chosen.iter().zip(found.chunks_exact(4)) {
            // Of fourth order: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h.
            let difference = (8.0 * (f[0] - f[1]) - (f[2] - f[3])) / (12.0 * f64::from(STEP));
            worst = worst.max((difference - estimates[i]).abs());
            size = size.max(estimates[i].abs());
        }
        let limit = 0.02 * size + 1e-3 * (1.0 + self.objective()?.abs());
        let sentence = format!(
            "Activation times gradient of {} nodes is a finite difference up to {worst:.1e} (largest {size:.4}).",
            chosen.len()
        );
        Ok(check(CheckName::Gradient, worst, limit, sentence))
    }

    /// Two of these patched runs, whose metrics are known, against runs of their own: the one that moved the metric most, and
    /// one chosen at random.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn sharing(&self, runs: &[Vec<Patch>], metrics: &[f64], seed: u64) -> Result<Option<Check>> {
        if runs.is_empty() {
            return Ok(None);
        }
        let base = self.objective()?;
        let moved = |i: &usize| (metrics[*i] - base).abs();
        let largest = (0..runs.len()).max_by(|a, b| moved(a).total_cmp(&moved(b)));
        let mut chosen: Vec<usize> = largest.into_iter().collect();
        chosen.push(Random::new(seed ^ 2).below(runs.len()));
        chosen.dedup();
        let (mut worst, mut size) = (0.0f64, 0.0f64);
        for &i in &chosen {
            let mut hooks = PatchHooks(&runs[i]);
            let options =
                ForwardOptions { interventions: self.interventions, hooks: Some(&mut hooks), ..Default::default() };
            let alone = self.model().forward(self.run.tokens(), options)?;
            let alone = self.metric.value_of_all(&alone.logits(self.tokens() - 1)?);
            let apart = (alone - metrics[i]).abs();
            worst = if apart.is_finite() { worst.max(apart) } else { f64::INFINITY };
            size = size.max(alone.abs());
        }
        let n = chosen.len();
        let sentence =
            format!("{n} of the runs that were computed together are those of their own, up to {worst:.1e}.");
        Ok(Some(check(CheckName::Sharing, worst, 1e-4 * (1.0 + size), sentence)))
    }

    /// With every activation at the beginning taken from another run, the run is that one.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn whole(&self, other: &Run) -> Result<Check> {
        let point = Point { site: Site::ResidPostEmb, layer: None };
        let patch = Patch::from_run(other, point, vec![Index::All, Index::All])?;
        let found = &self.vary(&[vec![patch]])?[0];
        let all = other.logits(self.tokens() - 1)?;
        let expected: Vec<f32> = match self.metric.logits() {
            tdb_model::Logits::All => all,
            tdb_model::Logits::Of(tokens) => tokens.iter().map(|t| all[*t as usize]).collect(),
        };
        let apart = found.iter().zip(&expected).fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
        let sentence = format!("With all embeddings of the other prompt, its logits came out up to {apart:.1e}.");
        Ok(check(CheckName::Whole, f64::from(apart), 1e-4, sentence))
    }
}

/// How much of this prompt's activations the autoencoders leave over.
///
/// # Errors
/// If an operation fails.
pub(crate) fn dictionaries(checked: &Checked<'_>) -> Result<Vec<Check>> {
    /// Less is no reconstruction.
    const MOST_LEFT_OVER: f64 = 0.5;
    let (run, model) = (checked.run, checked.model());
    let mut checks = Vec::new();
    for slot in Slot::ALL.into_iter().filter(|slot| model.has(*slot)) {
        let (mut left, mut all, mut errors) = (0.0f64, 0.0f64, Vec::new());
        for layer in 0..model.config().n_layers {
            let Some(state) = run.latents(slot, layer) else { continue };
            let rest = Numbers::of(&run.latent_error(slot, layer)?)?.to_row_major();
            let input = Numbers::of(&state.target)?.to_row_major();
            let width = state.target.dim(1)?;
            // The first token's activations are unlike all others'.
            let from = if checked.tokens() > 1 { width } else { 0 };
            left += rest[from..].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            all += input[from..].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            let point = Point { site: slot.error(), layer: Some(layer) };
            errors.push(Patch { point, indices: vec![Index::All, Index::All], values: Values::Same(0.0) });
        }
        let without = checked.metric.value(&checked.vary(&[errors])?[0]);
        let with = checked.objective()?;
        let share = left / all.max(f64::MIN_POSITIVE);
        let layers = match slot {
            Slot::Mlp => "MLP",
            Slot::Attention => "attention",
            Slot::Residual => "residual stream's",
        };
        let sentence = format!(
            "The {layers} autoencoders leave {:.1} % of this prompt's activations over; with what they make alone, the \
             objective is {without:.4} instead of {with:.4}.",
            100.0 * share
        );
        checks.push(check(CheckName::Dictionary, share, MOST_LEFT_OVER, sentence));
    }
    Ok(checks)
}
