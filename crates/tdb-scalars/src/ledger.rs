//! The checks that an answer carries: each does again, in another way, what the answer rests on.

use tdb_api::{Check, CheckName, MirroredNodeIndex};
use tdb_model::numbers::dot;
use tdb_model::{
    ForwardOptions, Gradients, Hooks, Index, Intervention, Numbers, Pass, Patch, PatchHooks, Point, Run, Site, Slot,
    Transformer, Values,
};

use crate::effects::{Entries, NODE_SITES, Random};
use crate::error::Result;
use crate::metric::Metric;
use crate::outcome::{Asked, Found, Outcome, Scale};
use crate::side::Side;

/// How much is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Beside an answer, of which checks are to cost a tenth at most: layers, tokens and nodes drawn anew for every prompt.
    /// A run costs what is computed behind its first patch, so that late layers and tokens come up more often than early
    /// ones ([`Random::draw`]).
    Sample,
    /// Every layer, when nothing else is asked.
    Whole,
}

/// A run whose answer is checked.
pub(crate) struct Checked<'a> {
    pub extent: Extent,
    pub run: &'a Run,
    pub interventions: &'a [Intervention],
    /// What the answer is about.
    pub outcome: &'a Outcome,
}

/// Patched runs that checks compare with the run. They cost little where they are computed with others.
pub(crate) struct Probes {
    /// Patched with what they have, but for the last one.
    pub runs: Vec<Vec<Patch>>,
    /// So many patches are in all but the last one.
    n_patches: usize,
    /// The layer before which the residual stream of the last one is turned.
    first: usize,
}

/// Nodes with their estimates, and runs in which their values are made smaller and larger: two for each.
pub(crate) struct Differences<'n> {
    chosen: Vec<(&'n Entries, f64)>,
    hold: Option<Patch>,
    pub runs: Vec<Vec<Patch>>,
}

impl Differences<'_> {
    /// By which share activations are made smaller and larger.
    const STEP: f32 = 0.05;

    /// The runs with a node's values times `1 - step` and `1 + step`.
    fn moved(&self, run: &Run, i: usize, step: f32) -> Result<[Vec<Patch>; 2]> {
        let node = self.chosen[i].0;
        let values = node.values(run)?;
        Ok([1.0 - step, 1.0 + step].map(|factor| {
            let moved: Vec<f32> = values.iter().map(|x| x * factor).collect();
            Some(node.set_to(Values::Each(moved.into()))).into_iter().chain(self.hold.clone()).collect()
        }))
    }

    /// The slope of the outcome between the two.
    fn slope(ends: &[f64], step: f32) -> f64 {
        (ends[1] - ends[0]) / (2.0 * f64::from(step))
    }
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

    /// Always the same for a prompt and a `seed`.
    fn random(&self, seed: u64) -> Random {
        let mix = |seed: u64, token: &u32| (seed ^ u64::from(*token)).wrapping_mul(0x100_0000_01B3).rotate_left(23);
        Random::new(self.run.tokens().iter().fold(seed ^ 0xCBF2_9CE4_8422_2325, mix))
    }

    /// So many layers are computed behind these patches.
    fn depth(&self, patches: &[Patch]) -> usize {
        let n_layers = self.model().config().n_layers;
        let first = |patch: &Patch| match patch.point {
            Point { site: Site::ResidPostEmb, .. } => 0,
            Point { layer, .. } => layer.unwrap_or(n_layers),
        };
        patches.iter().map(|patch| n_layers - first(patch)).max().unwrap_or(0)
    }

    /// The layer with which a checked run begins.
    fn first_layer(&self, random: &mut Random) -> usize {
        let n_layers = self.model().config().n_layers;
        match self.extent {
            Extent::Whole => 0,
            Extent::Sample => random.draw((0..n_layers).map(|layer| n_layers - layer)).unwrap_or(0),
        }
    }

    /// The logits at the last token, `[V]`.
    fn logits(&self) -> Result<Vec<f32>> {
        Ok(self.run.logits(self.tokens() - 1)?)
    }

    /// What becomes of patched runs that nothing else is computed with.
    fn vary(&self, asked: Asked<'_>) -> Result<Found> {
        self.outcome.vary(self.run, asked, self.interventions, &|| false, &mut |_, _| {})
    }

    /// The checks that need nothing but the run.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn of_run(&self, probes: &Probes, found: &[Vec<f32>], seed: u64) -> Result<Vec<Check>> {
        let mut checks = Vec::new();
        checks.extend(self.sum()?);
        checks.extend(self.writes(&mut self.random(seed))?);
        checks.extend(self.identity_and_difference(probes, found)?);
        Ok(checks)
    }

    /// Runs that are to be the same, and one that is to be another.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn probes(&self, seed: u64) -> Result<Probes> {
        let mut random = self.random(seed ^ 3);
        let first = self.first_layer(&mut random);
        let mut runs = self.patched_with_itself(first, &mut random)?;
        let n_patches = runs.iter().map(Vec::len).sum();
        let last = self.tokens() - 1;
        let mut turned = Patch::from_run(self.run, residual_before(first), vec![Index::At(last), Index::All])?;
        if let Values::Each(values) = &turned.values {
            turned.values = Values::Each(values.iter().map(|x| -x).collect());
        }
        runs.push(vec![turned]);
        Ok(Probes { runs, n_patches, first })
    }

    /// Whether the residual stream is changed between what layers write and what they read.
    fn is_changed(&self) -> bool {
        self.interventions.iter().any(|i| i.pass == Pass::Forward && i.site != Site::ResidPostEmb)
    }

    /// Direct effects and constants add up to the objective. Not where logits are capped, which makes them no sum.
    fn sum(&self) -> Result<Option<Check>> {
        let metric = &self.outcome.metric;
        let Metric::LogitDifference { .. } = metric else { return Ok(None) };
        let (model, last) = (self.model(), self.tokens() - 1);
        if model.unembedding().is_capped() || self.is_changed() {
            return Ok(None);
        }
        let logits = self.logits()?;
        let d_logits = metric.gradient(&logits);
        let at_norm = model.unembedding().vjp(&logits, &d_logits);
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
        // The norm's bias through the unembedding, and the unembedding's own.
        let nothing = model.final_norm().jvp_row(&residual, &residual, true);
        let bias: Vec<f32> = model.final_norm().row(&residual).iter().zip(nothing).map(|(y, x)| y - x).collect();
        let own = model.unembedding().bias().map_or(0.0, |bias| dot(bias, &d_logits));
        parts.push(f64::from(dot(&bias, &at_norm) + own));
        let size: f64 = parts.iter().map(|x| x.abs()).sum();
        let (sum, objective) = (parts.iter().sum::<f64>(), metric.value_of_all(&logits));
        let sentence =
            format!("{n} direct effects and a constant add up to {sum:.5}; the logit difference is {objective:.5}.");
        Ok(Some(check(CheckName::Sum, (sum - objective).abs(), 1e-4 * (1.0 + size), sentence)))
    }

    /// Heads, neurons and biases of a layer, at the last token, add up to what the layer writes. Not where layers are
    /// normalised after they have written.
    fn writes(&self, random: &mut Random) -> Result<Option<Check>> {
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
        let mut layers: Vec<usize> = match self.extent {
            Extent::Whole => (0..config.n_layers).collect(),
            Extent::Sample => vec![random.below(config.n_layers), random.below(config.n_layers)],
        };
        layers.dedup();
        for &layer in &layers {
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
            "In {} of {} layers, heads, neurons and biases add up to what the layer writes, up to {worst:.1e} of it.",
            layers.len(),
            config.n_layers
        );
        Ok(Some(check(CheckName::Writes, worst, 1e-3, sentence)))
    }

    /// Patched with itself, a run is the same: to the bit on a processor, whose operations do not depend on what is computed
    /// beside. Patched with something else, it is another one.
    fn identity_and_difference(&self, probes: &Probes, found: &[Vec<f32>]) -> Result<[Check; 2]> {
        let (n_patches, first) = (probes.n_patches, probes.first);
        let n_runs = probes.runs.len() - 1;
        let expected = self.read(self.logits()?);
        let mut worst = 0.0f64;
        for found in &found[..n_runs] {
            for (found, expected) in found.iter().zip(&expected) {
                worst = worst.max(f64::from((found - expected).abs()));
            }
        }
        let limit = if self.model().device().is_cpu() { 0.0 } else { 1e-4 };
        let sentence = format!("{n_patches} patches of the run with itself moved no logit by more than {worst:.1e}.");
        let identity = check(CheckName::Identity, worst, limit, sentence);

        let fixed = self.interventions.iter().any(|i| i.pass == Pass::Forward);
        let same = found[n_runs] == expected;
        let sentence = match same {
            true => "the logits stayed the same",
            false => "the logits changed",
        };
        let sentence =
            format!("With the sign of the last token's residual stream turned before layer {first}, {sentence}.");
        // Under interventions the last token may have no part in the answer.
        let difference = check(CheckName::Difference, f64::from(u8::from(same && !fixed)), 0.0, sentence);
        Ok([identity, difference])
    }

    /// Two runs patched with themselves: one at a token chosen at random, at every kind of site in layers from `first` on, and
    /// one in the whole of a late layer.
    fn patched_with_itself(&self, first: usize, random: &mut Random) -> Result<Vec<Vec<Patch>>> {
        let (model, tokens) = (self.model(), self.tokens());
        let n_layers = model.config().n_layers;
        let patch = |site: Site, layer: Option<usize>, token: Index| {
            let rank = model.site_dims(site, tokens).map_or(2, |dims| dims.len());
            let indices = [vec![token], vec![Index::All; rank - 1]].concat();
            Patch::from_run(self.run, Point { site, layer }, indices)
        };
        // Neither the first token, which has none before it, nor the last, which has none behind it, where there are others.
        let token = match (tokens, self.extent) {
            (1 | 2, _) => tokens - 1,
            (_, Extent::Whole) => 1 + random.below(tokens - 2),
            (_, Extent::Sample) => 1 + random.draw((1..tokens - 1).map(|token| tokens - token)).unwrap_or(0),
        };
        let mut sites = vec![Site::ResidPostAttn, Site::AttnV, Site::AttnVOut, Site::MlpPostAct, Site::ResidPostMlp];
        sites.retain(|site| model.site_dims(*site, tokens).is_some());
        let Point { site, layer } = residual_before(first);
        let mut at_token = vec![patch(site, layer, Index::At(token))?];
        for site in sites {
            at_token.push(patch(site, Some(first + random.below(n_layers - first)), Index::At(token))?);
        }
        let late = match self.extent {
            Extent::Whole => n_layers.saturating_sub(1 + random.below(2)),
            Extent::Sample => n_layers - 1,
        };
        Ok(vec![at_token, vec![patch(Site::AttnVOut, Some(late), Index::All)?]])
    }

    /// Those logits that the metric reads.
    fn read(&self, all: Vec<f32>) -> Vec<f32> {
        match self.outcome.metric.logits() {
            tdb_model::Logits::All => all,
            tdb_model::Logits::Of(tokens) => tokens.iter().map(|t| all[*t as usize]).collect(),
        }
    }

    /// Finite differences to hold activation times gradient ([`Outcome::checked_scale`]) of one or two of these nodes against.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn differences<'n>(&self, nodes: &'n [Entries], gradients: &Gradients, seed: u64) -> Result<Differences<'n>> {
        let mut estimates = Vec::with_capacity(nodes.len());
        for node in nodes {
            let gradient = node.gradient(self.run, gradients)?;
            let terms = node.values(self.run)?.into_iter().zip(gradient.unwrap_or_default());
            estimates.push(terms.map(|(x, g)| f64::from(x) * f64::from(g)).sum::<f64>());
        }
        let chosen = self.differenced(nodes, &estimates, &mut self.random(seed ^ 1));
        let hold = match self.outcome.checked_scale() {
            Scale::Free => None,
            Scale::Held => {
                let scale = Point { site: Site::FinalLnScale, layer: None };
                Some(Patch::from_run(self.run, scale, vec![Index::At(self.tokens() - 1), Index::All])?)
            }
        };
        let chosen = chosen.into_iter().map(|i| (&nodes[i], estimates[i])).collect();
        let mut differences = Differences { chosen, hold, runs: Vec::new() };
        for i in 0..differences.chosen.len() {
            differences.runs.extend(differences.moved(self.run, i, Differences::STEP)?);
        }
        Ok(differences)
    }

    /// The estimates against these differences, whose `outcomes` are known.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn gradient(&self, differences: &Differences<'_>, outcomes: &[f64]) -> Result<Check> {
        let tolerance = 1e-3 * (1.0 + self.outcome.of(self.run)?.abs());
        let (mut worst, mut size) = (0.0f64, 0.0f64);
        for (i, ends) in outcomes.chunks_exact(2).enumerate() {
            let estimate = differences.chosen[i].1;
            let mut apart = (Differences::slope(ends, Differences::STEP) - estimate).abs();
            // The outcome may bend or jump within the step, as where other latents become the largest ones; a wrong
            // gradient stays wrong nearer by.
            if apart > 0.02 * estimate.abs() + tolerance {
                let step = Differences::STEP / 16.0;
                let runs = differences.moved(self.run, i, step)?;
                let ends = self.vary(Asked { values: &runs, logits: &[] })?.values;
                apart = (Differences::slope(&ends, step) - estimate).abs();
            }
            worst = worst.max(apart);
            size = size.max(estimate.abs());
        }
        let limit = 0.02 * size + tolerance;
        let sentence = format!(
            "Activation times gradient of {} nodes is a finite difference up to {worst:.1e} (largest {size:.4}).",
            differences.chosen.len()
        );
        Ok(check(CheckName::Gradient, worst, limit, sentence))
    }

    /// The nodes whose estimates are held against finite differences: the one with the largest and one more, or of a sample
    /// one that has an estimate.
    fn differenced(&self, nodes: &[Entries], estimates: &[f64], random: &mut Random) -> Vec<usize> {
        let n_layers = self.model().config().n_layers;
        let largest = (0..nodes.len()).max_by(|a, b| estimates[*a].abs().total_cmp(&estimates[*b].abs()));
        let Some(largest) = largest else { return Vec::new() };
        let mut chosen = match self.extent {
            Extent::Whole => vec![largest, random.below(nodes.len())],
            Extent::Sample => {
                let some: Vec<usize> = (0..nodes.len()).filter(|i| estimates[*i] != 0.0).collect();
                let depth = |i: &usize| n_layers - nodes[*i].point.layer.unwrap_or(0);
                let drawn = random.draw(some.iter().map(|i| depth(i) * (self.tokens() - nodes[*i].token())));
                vec![drawn.map_or(largest, |i| some[i])]
            }
        };
        chosen.dedup();
        chosen
    }

    /// The one of these patched runs, whose outcomes are known, that moved the outcome most, against a run of its own. Of a
    /// sample: one that moved it by a hundredth of that or more, and a run that has the layers below from the one it differs from.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn sharing(&self, runs: &[Vec<Patch>], outcomes: &[f64]) -> Result<Option<Check>> {
        let base = self.outcome.of(self.run)?;
        let moved = |i: &usize| (outcomes[*i] - base).abs();
        let Some(most) = (0..runs.len()).max_by(|a, b| moved(a).total_cmp(&moved(b))) else { return Ok(None) };
        let some: Vec<usize> = (0..runs.len()).filter(|i| 100.0 * moved(i) >= moved(&most)).collect();
        let (i, shared) = match self.extent {
            Extent::Whole => (most, None),
            Extent::Sample => {
                let drawn = self.random(runs.len() as u64).draw(some.iter().map(|i| self.depth(&runs[*i])));
                (drawn.map_or(most, |i| some[i]), Some(self.run))
            }
        };
        let mut hooks = PatchHooks(&runs[i]);
        let (interventions, hooks) = (self.interventions, Some(&mut hooks as &mut dyn Hooks));
        let options = ForwardOptions { interventions, hooks, shared, ..Default::default() };
        let alone = self.outcome.of(&self.model().forward(self.run.tokens(), options)?)?;
        let apart = (alone - outcomes[i]).abs();
        let sentence = format!(
            "Of {} runs that were computed together, one that moved the answer{} is a run of its own, up to {apart:.1e}.",
            runs.len(),
            if i == most { " most" } else { "" }
        );
        Ok(Some(check(CheckName::Sharing, apart, 1e-4 * (1.0 + alone.abs()), sentence)))
    }

    /// With every activation at the beginning taken from another run, the run is that one.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn whole(&self, other: &Run) -> Result<Check> {
        let point = Point { site: Site::ResidPostEmb, layer: None };
        let patch = Patch::from_run(other, point, vec![Index::All, Index::All])?;
        let found = &self.vary(Asked { values: &[], logits: &[vec![patch]] })?.logits[0];
        let expected = self.read(other.logits(self.tokens() - 1)?);
        let apart = found.iter().zip(&expected).fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
        let sentence = format!("With all embeddings of the other prompt, its logits came out up to {apart:.1e}.");
        Ok(check(CheckName::Whole, f64::from(apart), 1e-4, sentence))
    }
}

/// The residual stream that a layer begins with.
fn residual_before(layer: usize) -> Point {
    match layer {
        0 => Point { site: Site::ResidPostEmb, layer: None },
        _ => Point { site: Site::ResidPostMlp, layer: Some(layer - 1) },
    }
}

/// The checks of one side of the debugger's answer: those of its run, of its gradients, and of the exact effect of one of its
/// nodes.
///
/// # Errors
/// If an operation fails.
pub(crate) fn of_side(side: &Side<'_>, nodes: &[MirroredNodeIndex]) -> Result<Vec<Check>> {
    let (run, interventions) = (&side.run, side.plan.interventions.as_slice());
    let outcome = Outcome::new(run, side.plan.loss.as_ref(), side.plan.trace.as_ref())?;
    let checked = Checked { extent: Extent::Sample, run, interventions, outcome: &outcome };
    let seed = nodes.len() as u64;
    // What dictionaries leave over is no single activation.
    let mut entries: Vec<Entries> =
        nodes.iter().filter_map(|node| Entries::of(side.model(), side.tokens(), node).ok()).collect();
    // Those of the answer itself, which hold the final norm's scale and were kept for the listed nodes.
    let own = side.gradients.as_ref().filter(|_| outcome.trace().is_none() && !entries.is_empty());
    if entries.is_empty() {
        entries = side.engine.some_entries(run, outcome.trace(), seed)?;
    }
    let is_cancelled = || side.is_cancelled();
    let computed;
    let gradients = match own {
        Some(gradients) => gradients,
        None => {
            let scale = outcome.checked_scale();
            computed = outcome.gradients(run, scale, &NODE_SITES, interventions, &is_cancelled)?;
            &computed
        }
    };
    let (probes, differences) = (checked.probes(seed)?, checked.differences(&entries, gradients, seed)?);
    let n_layers = side.model().config().n_layers;
    let depth = |entries: &Entries| n_layers - entries.point.layer.unwrap_or(0);
    let one = &entries[checked.random(seed ^ 2).draw(entries.iter().map(depth)).unwrap_or(0)];
    let removed = vec![vec![one.set_to(Values::Same(0.0))]];
    let values = [removed.as_slice(), &differences.runs].concat();
    let found = checked.vary(Asked { values: &values, logits: &probes.runs })?;
    let (exact, ends) = found.values.split_at(removed.len());
    let mut checks = checked.of_run(&probes, &found.logits, seed)?;
    checks.push(checked.gradient(&differences, ends)?);
    checks.extend(checked.sharing(&removed, exact)?);
    checks.extend(dictionaries(&checked)?);
    Ok(checks)
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
        let (mut left, mut all) = (0.0f64, 0.0f64);
        for layer in 0..model.config().n_layers {
            let Some(state) = run.latents(slot, layer) else { continue };
            let rest = Numbers::of(&run.latent_error(slot, layer)?)?.to_row_major();
            let input = Numbers::of(&state.target)?.to_row_major();
            let width = state.target.dim(1)?;
            // The first token's activations are unlike all others'.
            let from = if checked.tokens() > 1 { width } else { 0 };
            left += rest[from..].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            all += input[from..].iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        }
        let share = left / all.max(f64::MIN_POSITIVE);
        let layers = match slot {
            Slot::Mlp => "MLP",
            Slot::Attention => "attention",
            Slot::Residual => "residual stream's",
        };
        let sentence =
            format!("The {layers} autoencoders leave {:.1} % of this prompt's activations over.", 100.0 * share);
        checks.push(check(CheckName::Dictionary, share, MOST_LEFT_OVER, sentence));
    }
    Ok(checks)
}
