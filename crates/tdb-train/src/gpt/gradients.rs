//! Loss of some texts, and its gradient at every parameter.
//!
//! Each text is a run of the library, forward and backward. A linear layer's weight then gets the sum over tokens of
//! the outer products of its input and the gradient at its output, a norm's gain the sum of their products. Sums run
//! over the texts in their order, so the same texts give the same bits whatever the number of threads.

use std::collections::BTreeMap;
use std::ops::Range;

use tdb_model::numbers::{axpy, outer_products, softmax};
use tdb_model::parallel;
use tdb_model::{BackwardOptions, ForwardOptions, Gradients, Numbers, Point, Run, Seed, Site, Tensor, Transformer};

use super::layout::{LayerAt, Layout};
use crate::error::{Error, Result};

/// A text to learn. Every token after the first is asked.
#[derive(Clone, Debug)]
pub struct Text {
    /// At least one.
    pub tokens: Vec<u32>,
    /// What follows the last token, if that is asked, too.
    pub end: Option<u32>,
}

impl Text {
    /// How many tokens are asked.
    pub fn asked(&self) -> usize {
        self.tokens.len().saturating_sub(1) + usize::from(self.end.is_some())
    }

    /// What follows each token, from the first on.
    fn targets(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().skip(1).copied().chain(self.end)
    }
}

/// Mean cross-entropy over all tokens that are asked, in nats, and its gradient at every parameter of a model whose
/// parameters are laid out like this.
///
/// # Errors
/// If a text has no tokens or more than the context holds, or a token or `end` lies outside the vocabulary.
pub fn loss_and_gradients(model: &Transformer, layout: &Layout, texts: &[Text]) -> Result<(f64, Vec<f32>)> {
    let asked = texts.iter().map(Text::asked).sum::<usize>().max(1) as f64;
    let weight = (1.0 / asked) as f32;
    let passes = parallel::try_map(texts.len(), |i| Pass::run(model, &texts[i], weight))?;
    let loss = passes.iter().map(|pass| pass.loss).sum::<f64>() / asked;
    let mut gradients = vec![0.0; layout.size];
    for (at, part) in parts(layout, &passes)?.into_iter().flatten() {
        gradients[at].copy_from_slice(&part);
    }
    add_embedding(layout, &passes, &mut gradients)?;
    Ok((loss, gradients))
}

/// The inputs of linear layers and norms, as far as they are multiplied with weights.
const ACTIVATIONS: [Site; 8] = [
    Site::AttnLnNormalized,
    Site::AttnIn,
    Site::AttnVOut,
    Site::MlpLnNormalized,
    Site::MlpIn,
    Site::MlpPostAct,
    Site::FinalLnNormalized,
    Site::PostFinalLn,
];

/// The outputs of the embedding, norms and linear layers.
const GRADIENTS: [Site; 10] = [
    Site::ResidPostEmb,
    Site::AttnIn,
    Site::AttnQ,
    Site::AttnK,
    Site::AttnV,
    Site::ResidDeltaAttn,
    Site::MlpIn,
    Site::MlpPreAct,
    Site::ResidDeltaMlp,
    Site::PostFinalLn,
];

/// What is kept of the run of one text.
struct Pass {
    tokens: Vec<u32>,
    activations: BTreeMap<Point, Tensor>,
    gradients: Gradients,
    /// Summed cross-entropy.
    loss: f64,
}

impl Pass {
    /// The gradients are those of the loss times `weight`.
    fn run(model: &Transformer, text: &Text, weight: f32) -> Result<Self> {
        let run = model.forward(&text.tokens, ForwardOptions::default())?;
        let (loss, seed) = cross_entropy(&run, text, weight)?;
        let options = BackwardOptions { keep: &GRADIENTS, ..Default::default() };
        let gradients = run.backward(Seed::Logits(seed), options)?;
        let mut activations = BTreeMap::new();
        for site in ACTIVATIONS {
            for layer in layers_of(site, run.n_layers()) {
                activations.insert(Point { site, layer }, run.get(site, layer)?);
            }
        }
        Ok(Self { tokens: text.tokens.clone(), activations, gradients, loss })
    }
}

fn layers_of(site: Site, n_layers: usize) -> Vec<Option<usize>> {
    if site.has_layers() { (0..n_layers).map(Some).collect() } else { vec![None] }
}

/// Summed cross-entropy of a text, and the gradient of `weight` times it at the logits of the tokens that ask.
fn cross_entropy(run: &Run, text: &Text, weight: f32) -> Result<(f64, BTreeMap<usize, Vec<f32>>)> {
    let logits = run.get(Site::Logits, None)?;
    let logits = Numbers::of(&logits)?;
    let (mut loss, mut gradient) = (0.0, BTreeMap::new());
    for (token, target) in text.targets().enumerate() {
        let mut row = logits.row(token).to_vec();
        let target = target as usize;
        if target >= row.len() {
            return Err(Error::Text(format!("token {target} is outside the vocabulary of {}", row.len())));
        }
        softmax(&mut row);
        loss -= f64::from(row[target].max(f32::MIN_POSITIVE)).ln();
        row[target] -= 1.0;
        row.iter_mut().for_each(|x| *x *= weight);
        gradient.insert(token, row);
    }
    Ok((loss, gradient))
}

/// The gradient of some of the parameters, and where they lie.
type Part = (Range<usize>, Vec<f32>);

/// All parameters but the embedding.
fn parts(layout: &Layout, passes: &[Pass]) -> Result<Vec<Vec<Part>>> {
    let of_layer = |layer: usize| of_layer(layout, layer, &layout.layers[layer], passes);
    let mut parts: Vec<Vec<Part>> = parallel::try_map(layout.layers.len(), of_layer)?;
    let stack = Stack { passes, layer: None };
    let (normalized, dy) = (stack.activation(Site::FinalLnNormalized)?, stack.gradient(Site::PostFinalLn)?);
    parts.push(vec![(layout.ln_f.all(), norm_gradient(&normalized, &dy, layout.config.d_model))]);
    Ok(parts)
}

fn of_layer(layout: &Layout, layer: usize, at: &LayerAt, passes: &[Pass]) -> Result<Vec<Part>> {
    let stack = Stack { passes, layer: Some(layer) };
    let (d, d_ff) = (layout.config.d_model, layout.config.d_ff);
    let [attn_in, mlp_in] = [stack.activation(Site::AttnIn)?, stack.activation(Site::MlpIn)?];
    let [v_out, neurons] = [stack.activation(Site::AttnVOut)?, stack.activation(Site::MlpPostAct)?];
    let d_pre_act = stack.gradient(Site::MlpPreAct)?;
    let d_qkv = stack.d_qkv(d, layout.config.qk_factor(layer))?;
    let norm = |normalized, dy| Ok::<_, Error>(norm_gradient(&stack.activation(normalized)?, &stack.gradient(dy)?, d));
    Ok(vec![
        (at.ln_1.all(), norm(Site::AttnLnNormalized, Site::AttnIn)?),
        (at.attention_in.all(), linear_gradient(&attn_in, &d_qkv, [d, 3 * d])),
        (at.attention_out.all(), linear_gradient(&v_out, &stack.gradient(Site::ResidDeltaAttn)?, [d, d])),
        (at.ln_2.all(), norm(Site::MlpLnNormalized, Site::MlpIn)?),
        (at.mlp_in.all(), linear_gradient(&mlp_in, &d_pre_act, [d, d_ff])),
        (at.mlp_out.all(), linear_gradient(&neurons, &stack.gradient(Site::ResidDeltaMlp)?, [d_ff, d])),
    ])
}

/// Rows of all texts, one text after the other.
struct Stack<'a> {
    passes: &'a [Pass],
    layer: Option<usize>,
}

impl Stack<'_> {
    fn activation(&self, site: Site) -> Result<Vec<f32>> {
        self.rows(|pass| Ok(pass.activations.get(&Point { site, layer: self.layer }).cloned()))
    }

    fn gradient(&self, site: Site) -> Result<Vec<f32>> {
        self.rows(|pass| Ok(pass.gradients.get(site, self.layer)?))
    }

    fn rows(&self, of: impl Fn(&Pass) -> Result<Option<Tensor>>) -> Result<Vec<f32>> {
        let mut rows = Vec::new();
        for pass in self.passes {
            let tensor = of(pass)?.expect("every pass keeps the same sites");
            rows.extend_from_slice(Numbers::of(&tensor.contiguous()?)?.data());
        }
        Ok(rows)
    }

    /// Gradients at the projections to queries, keys and values, side by side: rows of `3 d`. The sites of queries and
    /// keys hold `factor` times what is projected.
    fn d_qkv(&self, d: usize, factor: f32) -> Result<Vec<f32>> {
        let parts = [(Site::AttnQ, factor), (Site::AttnK, factor), (Site::AttnV, 1.0)];
        let mut out = Vec::new();
        for (part, (site, factor)) in parts.into_iter().enumerate() {
            let rows = self.gradient(site)?;
            out.resize(3 * rows.len(), 0.0);
            for (out, row) in out.chunks_exact_mut(3 * d).zip(rows.chunks_exact(d)) {
                out[part * d..][..d].iter_mut().zip(row).for_each(|(out, x)| *out = factor * x);
            }
        }
        Ok(out)
    }
}

/// Gradient of a weight `[inputs, outputs]`, and of the bias after it.
fn linear_gradient(x: &[f32], dy: &[f32], [inputs, outputs]: [usize; 2]) -> Vec<f32> {
    let mut weight = outer_products(x, dy, [inputs, outputs], true);
    let mut bias = vec![0.0; outputs];
    dy.chunks_exact(outputs).for_each(|row| axpy(&mut bias, 1.0, row));
    weight.append(&mut bias);
    weight
}

/// Gradient of a norm's gain, and of the bias after it.
fn norm_gradient(normalized: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let mut out = vec![0.0; 2 * width];
    let (gain, bias) = out.split_at_mut(width);
    for (x, dy) in normalized.chunks_exact(width).zip(dy.chunks_exact(width)) {
        gain.iter_mut().zip(x).zip(dy).for_each(|((gain, x), dy)| *gain += x * dy);
        axpy(bias, 1.0, dy);
    }
    out
}

/// The token embedding, which is the unembedding, too, and the positions.
fn add_embedding(layout: &Layout, passes: &[Pass], gradients: &mut [f32]) -> Result<()> {
    let (d, vocabulary) = (layout.config.d_model, layout.config.n_vocab);
    let stack = Stack { passes, layer: None };
    let d_logits = d_logits(passes, vocabulary);
    let unembedding = outer_products(&d_logits, &stack.activation(Site::PostFinalLn)?, [vocabulary, d], true);
    gradients[layout.wte.clone()].copy_from_slice(&unembedding);
    let d_embedded = stack.gradient(Site::ResidPostEmb)?;
    let places = passes.iter().flat_map(|pass| pass.tokens.iter().enumerate());
    for (row, (position, &token)) in d_embedded.chunks_exact(d).zip(places) {
        axpy(&mut gradients[layout.wte.start + token as usize * d..][..d], 1.0, row);
        axpy(&mut gradients[layout.wpe.start + position * d..][..d], 1.0, row);
    }
    Ok(())
}

/// Gradient at all logits, zero where nothing is asked.
fn d_logits(passes: &[Pass], vocabulary: usize) -> Vec<f32> {
    let n: usize = passes.iter().map(|pass| pass.tokens.len()).sum();
    let mut all = vec![0.0; n * vocabulary];
    let rows = passes.iter().flat_map(|pass| (0..pass.tokens.len()).map(|token| pass.gradients.logits.get(&token)));
    for (out, row) in all.chunks_exact_mut(vocabulary).zip(rows) {
        if let Some(row) = row {
            out.copy_from_slice(row);
        }
    }
    all
}
