//! Causal attention of many heads: `softmax(s q kᵀ) v`, then the output projection.
//!
//! Tensors over pairs of tokens are stored head by head, `[H, Q, K]`; those that readers, hooks and interventions see
//! are views of them with dimensions `[Q, K, H]`. With fewer key/value heads than query heads, neighbouring query heads
//! share one. Queries and keys carry the square root of the scale each.

mod head;

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::config::{Config, NormKind, Positions, Rotary};
use crate::error::Error;
use crate::fault::{self, Fault};
use crate::modules::autoencoder::{Autoencoder, LatentState};
use crate::modules::block::{decoded, encoded};
use crate::modules::norm::Norm;
use crate::modules::{Linear, Place};
use crate::numbers::Numbers;
use crate::ops::rows::{dot, softmax};
use crate::ops::{Ops, Rotation, Vector, Visible};
use crate::parallel;
use crate::site::{Pass, Point, Site};
use crate::source::Weights;
use crate::tap::{RowsOf, Tap};

pub use head::HeadProjections;

/// The attention layer of one block, without the norm before it.
#[derive(Clone, Debug)]
pub struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    /// Output weights of each head, `[D, E]`.
    out_by_head: Vec<crate::ops::Weight>,
    /// What the norm after the layer, where there is one, multiplies its output by: a part of what heads write.
    write_gain: Option<Vector>,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    rotary: Option<Rotary>,
    /// What learned positions add to queries and to keys, `[context, heads * E]`, where they add to nothing else.
    positions: Option<[Tensor; 2]>,
    n_heads: usize,
    n_kv_heads: usize,
    width: usize,
    factor: f32,
    softcap: Option<f32>,
    window: Option<usize>,
    layer: usize,
    ops: Ops,
}

/// What the backward pass and readers need of an attention layer; `Q` queries, `K` keys (`Q < K` only when sampling with
/// a cache).
#[derive(Clone, Debug)]
pub struct AttentionState {
    /// `[Q, H, E]`, as they are multiplied with the keys.
    pub q: Tensor,
    /// `[K, G, E]` for `G` key/value heads.
    pub k: Tensor,
    /// `[K, G, E]`
    pub v: Tensor,
    /// `[Q, K, H]`, `-inf` where a query does not see a key.
    pub qk_logits: Tensor,
    /// `[Q, K, H]`
    pub qk_probs: Tensor,
    /// `[Q, H, E]`
    pub v_out: Tensor,
    /// `[Q, D]`
    pub delta: Tensor,
    /// `[H, Q, K]`, under a cap: the logits as computed, before anything changed them.
    capped: Option<Tensor>,
    /// Queries and keys before their norm, where they have one.
    before_norm: Option<[Tensor; 2]>,
    /// Exponentials `[H, Q, K]` and the denominator `[Q, 1, H]`; only where something acted on the denominator.
    softmax: Option<[Tensor; 2]>,
    /// Whether `qk_probs` may differ from the softmax of `qk_logits`.
    probs_touched: bool,
}

impl AttentionState {
    /// What the softmax divides by, relative to each row's largest logit, `[Q, 1, H]`.
    pub(crate) fn denominator(&self, ops: Ops) -> Result<Tensor> {
        match &self.softmax {
            Some([_, denominator]) => Ok(denominator.clone()),
            None => seen(&ops.exponentials(&stored(&self.qk_logits)?)?.1),
        }
    }
}

/// Keys and values of earlier tokens, `[K, G, E]` each, as interventions and hooks left them.
#[derive(Clone, Debug)]
pub struct PastKeysValues {
    /// Keys, after rotation.
    pub k: Tensor,
    /// Values.
    pub v: Tensor,
}

/// The rows of one run among those of several that are computed together.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub rows: Range<usize>,
    /// `None` if the first row is the first token.
    pub past: Option<PastKeysValues>,
}

/// Of runs whose rows are computed together, the rows that are read after the layer: the last one of each.
pub(crate) struct LastRows {
    /// Where they stand among all rows.
    pub at: Tensor,
    /// Whose they are.
    pub token: usize,
    /// What acts on them.
    pub together: Vec<RowsOf>,
}

impl LastRows {
    pub fn tap(&self) -> Tap<'_> {
        Tap { together: &self.together, ..Default::default() }
    }
}

/// What heads make of queries, keys and values: `[H, Q, K]` as they are stored, and `[Q, H, E]`.
struct Attended {
    logits: Tensor,
    capped: Option<Tensor>,
    softmax: Option<[Tensor; 2]>,
    probs: Tensor,
    probs_touched: bool,
    /// Before anything acted on it.
    v_out: Tensor,
}

/// Which of the two an attention logit is the product of.
#[derive(Clone, Copy, Debug)]
enum QueryOrKey {
    Query,
    Key,
}

/// Gradients at queries, keys and values: `[T, H, E]`, `[T, G, E]`, `[T, G, E]`.
#[derive(Clone, Debug)]
pub struct AttentionGradients {
    /// Gradient at queries.
    pub q: Tensor,
    /// Gradient at keys.
    pub k: Tensor,
    /// Gradient at values.
    pub v: Tensor,
}

impl AttentionGradients {
    /// No gradient anywhere.
    ///
    /// # Errors
    /// If the device fails.
    pub fn zeros(state: &AttentionState) -> Result<Self> {
        Ok(AttentionGradients { q: state.q.zeros_like()?, k: state.k.zeros_like()?, v: state.v.zeros_like()? })
    }
}

/// Derivatives of queries, keys and values along a direction: `[T, H, E]`, `[T, G, E]`, `[T, G, E]`.
#[derive(Clone, Debug)]
pub struct AttentionDerivative {
    /// Derivative of queries.
    pub q: Tensor,
    /// Derivative of keys.
    pub k: Tensor,
    /// Derivative of values.
    pub v: Tensor,
}

/// `[Q, K, H]` as it is seen, of `[H, Q, K]` as it is stored.
fn seen(x: &Tensor) -> Result<Tensor> {
    x.permute((1, 2, 0))
}

/// The reverse of [`seen`].
fn stored(x: &Tensor) -> Result<Tensor> {
    x.permute((2, 0, 1))?.contiguous()
}

/// Keys and values with those of earlier tokens before them.
fn after_past(past: Option<&PastKeysValues>, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
    match past {
        Some(past) => Ok((Tensor::cat(&[&past.k, &k], 0)?, Tensor::cat(&[&past.v, &v], 0)?)),
        None => Ok((k, v)),
    }
}

impl Attention {
    /// `{name}.{q,k,v,o}`, and `{name}.{q_norm,k_norm}` where the configuration has them.
    pub(crate) fn load(
        weights: &Weights,
        name: &str,
        layer: usize,
        config: &Config,
        write_gain: Option<Vector>,
        place: &Place,
    ) -> std::result::Result<Self, Error> {
        let (heads, groups, width, d_model) = (config.n_heads, config.n_kv_heads, config.d_head, config.d_model);
        let settings = &config.attention;
        let part = |part: &str, shape, bias| Linear::load(weights, &format!("{name}.{part}"), shape, bias, place);
        let norm = |part: &str| match settings.qk_norm {
            true => {
                let kind = if config.norm == NormKind::RmsOnePlus { config.norm } else { NormKind::Rms };
                Norm::load_kind(weights, &format!("{name}.{part}"), width, kind, config.norm_epsilon, place).map(Some)
            }
            false => Ok(None),
        };
        let out = part("o", [d_model, heads * width], settings.bias.o)?;
        let columns = |head: usize| out.weight().matrix().col_range(head * width..(head + 1) * width);
        let out_by_head = (0..heads).map(|head| crate::ops::Weight::new(columns(head), &place.device)).collect();
        let query = part("q", [heads * width, d_model], settings.bias.q)?;
        let key = part("k", [groups * width, d_model], settings.bias.k)?;
        let factor = config.qk_factor(layer);
        let positions = match config.positions {
            Positions::LearnedForQueriesAndKeys => {
                let positions = weights.matrix("positions.weight", [config.ctx_window, d_model])?;
                let positions = positions.to_tensor()?.contiguous()?.to_device(&place.device)?;
                Some([query.jvp_scaled(&positions, factor)?, key.jvp_scaled(&positions, factor)?])
            }
            Positions::Learned | Positions::Rotary(_) => None,
        };
        Ok(Attention {
            query,
            key,
            value: part("v", [groups * width, d_model], settings.bias.v)?,
            out,
            out_by_head,
            write_gain,
            query_norm: norm("q_norm")?,
            key_norm: norm("k_norm")?,
            rotary: match &config.positions {
                Positions::Rotary(layers) => layers.get(layer).copied().flatten(),
                Positions::Learned | Positions::LearnedForQueriesAndKeys => None,
            },
            positions,
            n_heads: heads,
            n_kv_heads: groups,
            width,
            factor,
            softcap: settings.softcap,
            window: settings.windows.get(layer).copied().flatten(),
            layer,
            ops: place.ops,
        })
    }

    /// The key/value head that a query head uses.
    pub fn kv_head(&self, head: usize) -> usize {
        head / (self.n_heads / self.n_kv_heads)
    }

    /// `input: [Q, D]` (after the norm) to the layer's output, `[Q, D]`.
    pub(crate) fn forward(
        &self,
        input: &Tensor,
        past: Option<&PastKeysValues>,
        on_heads: Option<&Autoencoder>,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<(AttentionState, Option<LatentState>), Error> {
        let at = |site| Point { site, layer: Some(self.layer) };
        let first = past.map_or(Ok(0), |past| past.k.dim(0))?;
        let all = [(0..input.dim(0)?, first)];
        let (q, q_before) = self.project(QueryOrKey::Query, &all, input)?;
        let q = tap.forward(at(Site::AttnQ), q)?;
        let (k, k_before) = self.project(QueryOrKey::Key, &all, input)?;
        let k = tap.forward(at(Site::AttnK), k)?;
        let v = self.heads(&self.value.forward(input)?, self.n_kv_heads)?;
        let v = tap.forward(at(Site::AttnV), v)?;
        let (k, v) = after_past(past, k, v)?;
        let Attended { logits, capped, softmax, probs, probs_touched, v_out } = self.attend(&q, &k, &v, tap)?;
        let v_out = tap.forward(at(Site::AttnVOut), v_out)?;
        let (latents, written) = encoded(on_heads, self.layer, &self.merged(&v_out)?, tap)?;
        let delta = self.output(&written)?;
        let state = AttentionState {
            q,
            k,
            v,
            qk_logits: seen(&logits)?,
            qk_probs: seen(&probs)?,
            v_out,
            delta,
            capped,
            before_norm: q_before.zip(k_before).map(|(q, k)| [q, k]),
            softmax,
            probs_touched,
        };
        Ok((state, latents))
    }

    /// The layer's output for the rows of several runs, `[N, D]` to `[N, D]`, or for the last row of each alone. The rows of
    /// `tap.together` are those of `parts`, in their order.
    pub(crate) fn forward_together(
        &self,
        input: &Tensor,
        parts: &[Part],
        last: Option<&LastRows>,
        on_heads: Option<&Autoencoder>,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<Tensor, Error> {
        let at = |site| Point { site, layer: Some(self.layer) };
        let first = |part: &Part| part.past.as_ref().map_or(Ok(0), |past| past.k.dim(0));
        let rows = parts.iter().map(|part| Ok((part.rows.clone(), first(part)?))).collect::<Result<Vec<_>>>()?;
        let (k, _) = self.project(QueryOrKey::Key, &rows, input)?;
        let k = tap.forward(at(Site::AttnK), k)?;
        let v = self.heads(&self.value.forward(input)?, self.n_kv_heads)?;
        let v = tap.forward(at(Site::AttnV), v)?;
        let Some(last) = last else { return self.attended_together(input, &rows, (&k, &v), parts, on_heads, tap) };
        let queries: Vec<_> = (0..parts.len()).map(|i| (i..i + 1, last.token)).collect();
        let input = input.index_select(&last.at, 0)?;
        self.attended_together(&input, &queries, (&k, &v), parts, on_heads, &mut last.tap())
    }

    /// The layer's output for queries of each run: their rows among those of `input`, and the token of the first.
    fn attended_together(
        &self,
        input: &Tensor,
        queries: &[(Range<usize>, usize)],
        (k, v): (&Tensor, &Tensor),
        parts: &[Part],
        on_heads: Option<&Autoencoder>,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<Tensor, Error> {
        let at = |site| Point { site, layer: Some(self.layer) };
        let (q, _) = self.project(QueryOrKey::Query, queries, input)?;
        let q = tap.forward(at(Site::AttnQ), q)?;
        let together = tap.together;
        let of_part = |i: usize| {
            let (part, queries) = (&parts[i], &queries[i].0);
            let own = |x: &Tensor, rows: &Range<usize>| x.narrow(0, rows.start, rows.len());
            let (k, v) = after_past(part.past.as_ref(), own(k, &part.rows)?, own(v, &part.rows)?)?;
            let alone = [RowsOf { rows: 0..queries.len(), ..together[i].clone() }];
            let mut tap = Tap { together: &alone, ..Default::default() };
            Ok(self.attend(&own(&q, queries)?, &k, &v, &mut tap)?.v_out)
        };
        let v_out: Vec<Tensor> = match self.ops {
            Ops::Fast => parallel::try_map(parts.len(), of_part)?,
            Ops::Plain => (0..parts.len()).map(of_part).collect::<std::result::Result<_, Error>>()?,
        };
        let v_out = tap.forward(at(Site::AttnVOut), Tensor::cat(&v_out, 0)?)?;
        let (_, written) = encoded(on_heads, self.layer, &self.merged(&v_out)?, tap)?;
        Ok(self.output(&written)?)
    }

    /// What heads write together, `[N, H E]` to `[N, D]`.
    fn output(&self, side_by_side: &Tensor) -> Result<Tensor> {
        match fault::is(Fault::DroppedBias) {
            true => self.out.jvp(side_by_side),
            false => self.out.forward(side_by_side),
        }
    }

    /// `q: [Q, H, E]`, `k` and `v: [K, G, E]`; the last query stands at the last key.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, tap: &mut Tap<'_>) -> std::result::Result<Attended, Error> {
        let at = |site| Point { site, layer: Some(self.layer) };
        let visible = self.visible(q.dim(0)?, k.dim(0)?);
        let mut logits = self.logits(q, k, visible)?;
        let capped = self.softcap.map(|_| logits.clone());
        // Only an intervention or a hook can show a query a hidden key.
        let logits_touched = tap.touches(at(Site::AttnQkLogits), Pass::Forward);
        if logits_touched {
            logits = stored(&tap.forward(at(Site::AttnQkLogits), seen(&logits)?)?)?;
        }
        let denominator = at(Site::AttnSoftmaxDenominator);
        let (mut probs, softmax) = match tap.touches(denominator, Pass::Forward) {
            true => {
                let (numerator, sum) = self.ops.exponentials(&logits)?;
                let sum = tap.forward(denominator, seen(&sum)?)?;
                let probs = numerator.broadcast_mul(&stored(&sum)?.recip()?)?;
                (probs, Some([numerator, sum]))
            }
            false => (self.ops.softmax(&logits, (!logits_touched).then_some(visible))?, None),
        };
        let probs_touched = tap.touches(at(Site::AttnQkProbs), Pass::Forward);
        if probs_touched {
            probs = stored(&tap.forward(at(Site::AttnQkProbs), seen(&probs)?)?)?;
        }
        let v_out = self.ops.head_mix(&probs, v)?;
        Ok(Attended { logits, capped, softmax, probs, probs_touched, v_out })
    }

    /// As the pass computes it, without interventions and hooks: `x: [T, D]` after the norm. `delta` is what the output
    /// projection gives, before the norm that some families have after it.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn apply(&self, x: &Tensor) -> std::result::Result<AttentionState, Error> {
        Ok(self.forward(x, None, None, &mut Tap::default())?.0)
    }

    /// Query, key and value of one token, `[H, E]`, `[G, E]` and `[G, E]`, from its row of the layer's input, `x: [1, D]`
    /// after the norm, without interventions and hooks.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn query_key_value(&self, x: &Tensor, token: usize) -> Result<[Tensor; 3]> {
        let rows = [(0..1, token)];
        let (q, _) = self.project(QueryOrKey::Query, &rows, x)?;
        let (k, _) = self.project(QueryOrKey::Key, &rows, x)?;
        let v = self.heads(&self.value.forward(x)?, self.n_kv_heads)?;
        Ok([q.squeeze(0)?, k.squeeze(0)?, v.squeeze(0)?])
    }

    /// The logit of a query and a key of one head, `[E]` each, as [`AttentionState`] has them.
    pub fn logit(&self, q: &[f32], k: &[f32]) -> f32 {
        let logit = dot(q, k);
        self.softcap.map_or(logit, |cap| cap * (logit / cap).tanh())
    }

    /// Gradient at the layer's output, `[T, D]`, to the gradient at its input, `[T, D]`.
    pub(crate) fn backward(
        &self,
        state: &AttentionState,
        d_delta: &Tensor,
        on_heads: Option<(&Autoencoder, &LatentState)>,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<Tensor, Error> {
        let at = |site| Point { site, layer: Some(self.layer) };
        let d_written = decoded(on_heads, self.layer, self.out.vjp(d_delta)?, tap)?;
        let d_v_out = self.heads(&d_written, self.n_heads)?;
        let d_v_out = tap.backward(at(Site::AttnVOut), d_v_out)?;
        let probs = stored(&state.qk_probs)?;
        let d_v = self.ops.head_mix_transposed(&probs, &d_v_out, self.n_kv_heads)?;
        let d_v = tap.backward(at(Site::AttnV), d_v)?;
        let d_probs =
            self.backward_stored(at(Site::AttnQkProbs), self.ops.head_products(&d_v_out, &state.v, None)?, tap)?;
        let d_logits = self.backward_softmax(state, &probs, d_probs, tap)?;
        let visible = self.visible(state.q.dim(0)?, state.k.dim(0)?);
        let logits = at(Site::AttnQkLogits);
        let touched = tap.touches(logits, Pass::Backward) || tap.touches(logits, Pass::Forward);
        let mut d_logits = self.backward_stored(logits, d_logits, tap)?;
        if touched {
            // The mask comes before the site: what it hides takes no part, whatever gradient was set there.
            d_logits = self.ops.mask(&d_logits, visible, 0.0)?;
        }
        let AttentionGradients { q, k, .. } = self.through_logits(state, &d_logits)?;
        let k = tap.backward(at(Site::AttnK), k)?;
        let q = tap.backward(at(Site::AttnQ), q)?;
        Ok(self.vjp(state, &AttentionGradients { q, k, v: d_v })?)
    }

    /// [`Tap::backward`] for a gradient that is stored head by head.
    fn backward_stored(&self, point: Point, gradient: Tensor, tap: &mut Tap<'_>) -> std::result::Result<Tensor, Error> {
        let before = seen(&gradient)?;
        let id = before.id();
        let after = tap.backward(point, before)?;
        if after.id() == id { Ok(gradient) } else { Ok(stored(&after)?) }
    }

    fn backward_softmax(
        &self,
        state: &AttentionState,
        probs: &Tensor,
        d_probs: Tensor,
        tap: &mut Tap<'_>,
    ) -> std::result::Result<Tensor, Error> {
        let point = Point { site: Site::AttnSoftmaxDenominator, layer: Some(self.layer) };
        let explicit = match &state.softmax {
            Some([numerator, denominator]) => Some((numerator.clone(), stored(denominator)?)),
            None if tap.keeps(point.site) || tap.touches(point, Pass::Backward) => {
                Some(self.ops.exponentials(&stored(&state.qk_logits)?)?)
            }
            None => None,
        };
        let Some((numerator, denominator)) = explicit else {
            // The probabilities that went on may be others than the logits gave.
            return Ok(match state.probs_touched {
                true => self.ops.softmax_vjp(&self.ops.softmax(&stored(&state.qk_logits)?, None)?, &d_probs)?,
                false if fault::is(Fault::SoftmaxWithoutMean) => (probs * &d_probs)?,
                false => self.ops.softmax_vjp(probs, &d_probs)?,
            });
        };
        // p = n / s: dn = dp / s + ds n' with ds = -Σ dp n / s², and n' = n.
        let d_sum = ((&d_probs * &numerator)?.sum_keepdim(2)?.neg()? / denominator.sqr()?)?;
        let d_sum = stored(&tap.backward(point, seen(&d_sum)?)?)?;
        Ok((d_probs.broadcast_div(&denominator)?.broadcast_add(&d_sum)? * numerator)?)
    }

    /// Gradient at the logits `[H, T, T]` to those at queries and keys; none at values.
    fn through_logits(&self, state: &AttentionState, d_logits: &Tensor) -> Result<AttentionGradients> {
        let d_logits = self.through_cap(state, d_logits)?;
        Ok(AttentionGradients {
            q: self.ops.head_mix(&d_logits, &state.k)?,
            k: self.ops.head_mix_transposed(&d_logits, &state.q, self.n_kv_heads)?,
            v: state.v.zeros_like()?,
        })
    }

    /// Gradient (or derivative) at the logits times the slope of the cap.
    fn through_cap(&self, state: &AttentionState, d_logits: &Tensor) -> Result<Tensor> {
        match (self.softcap, &state.capped) {
            (Some(cap), Some(capped)) => self.ops.softcap_vjp(d_logits, capped, cap),
            _ => Ok(d_logits.clone()),
        }
    }

    /// Gradients at queries, keys and values to the gradient at the layer's input, `[T, D]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn vjp(&self, state: &AttentionState, d: &AttentionGradients) -> Result<Tensor> {
        let [q_before, k_before] = match &state.before_norm {
            Some([q, k]) => [Some(q), Some(k)],
            None => [None, None],
        };
        let (q, factor) = self.unproject(self.query_norm.as_ref(), q_before, &d.q)?;
        let (k, _) = self.unproject(self.key_norm.as_ref(), k_before, &d.k)?;
        let v = self.merged(&d.v)?;
        self.ops.linear_vjp(&[
            (&q, self.query.weight(), factor),
            (&k, self.key.weight(), factor),
            (&v, self.value.weight(), 1.0),
        ])
    }

    /// Gradient at the layer's output at one token, `[D]`, to those at queries, keys and values.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn vjp_output(&self, state: &AttentionState, query: usize, d_output: &[f32]) -> Result<AttentionGradients> {
        let d_output = Tensor::from_slice(d_output, (1, d_output.len()), state.delta.device())?;
        self.vjp_heads(state, query, &self.out.vjp(&d_output)?)
    }

    /// Gradient at the heads' outputs at one token, side by side, `[1, H * E]`, to those at queries, keys and values.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn vjp_heads(&self, state: &AttentionState, query: usize, d_heads: &Tensor) -> Result<AttentionGradients> {
        let d_v_out = self.heads(d_heads, self.n_heads)?;
        let probs = stored(&state.qk_probs.narrow(0, query, 1)?)?;
        let d_probs = self.ops.head_products(&d_v_out, &state.v, None)?;
        let d_logits = stored_in(&self.ops.softmax_vjp(&probs, &d_probs)?, query, state)?;
        let mut gradients = self.through_logits(state, &d_logits)?;
        gradients.v = self.ops.head_mix_transposed(&probs, &d_v_out, self.n_kv_heads)?;
        Ok(gradients)
    }

    /// Gradient at the logits of one query in one head, `[query + 1]`, to those at queries and keys.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn vjp_logits(
        &self,
        state: &AttentionState,
        query: usize,
        head: usize,
        d_logits: &[f32],
    ) -> Result<AttentionGradients> {
        let keys = state.k.dim(0)?;
        let mut all = vec![0.0; self.n_heads * keys];
        all[head * keys..][..d_logits.len()].copy_from_slice(d_logits);
        let row = Tensor::from_vec(all, (self.n_heads, 1, keys), state.q.device())?;
        self.through_logits(state, &stored_in(&row, query, state)?)
    }

    /// `d[q, h] · v[k, g(h)]` for `d: [Q, H, E]`: the gradient at the probabilities, `[Q, K, H]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn vjp_probs(&self, v: &Tensor, d_v_out: &Tensor) -> Result<Tensor> {
        seen(&self.ops.head_products(d_v_out, v, None)?)
    }

    /// What other inputs at single tokens do to an objective through the softmax beyond first order in the logits,
    /// `Σ dp (p' - p) - Σ dl (l' - l)` over all pairs and heads: large where the softmax is saturated, so that its slope tells
    /// nothing. `d_probs: [T, T, H]` is the gradient `dp` at the probabilities, `dl` the one at the logits that follows from
    /// it. Row `n` of `inputs: [N, D]` stands in the place of the layer's input at `tokens[n]`, one at a time.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn beyond_first_order(
        &self,
        state: &AttentionState,
        d_probs: &Tensor,
        tokens: &[usize],
        inputs: &Tensor,
    ) -> Result<Vec<f64>> {
        let rows: Vec<_> = tokens.iter().enumerate().map(|(n, token)| (n..n + 1, *token)).collect();
        let (q_new, _) = self.project(QueryOrKey::Query, &rows, inputs)?;
        let (k_new, _) = self.project(QueryOrKey::Key, &rows, inputs)?;
        let host = |x: &Tensor| Ok::<_, candle_core::Error>(Numbers::of(x)?.to_row_major());
        let [q, k, q_new, k_new] = [host(&state.q)?, host(&state.k)?, host(&q_new)?, host(&k_new)?];
        let logits = host(&stored(&state.qk_logits)?)?;
        let [probs, d_probs] = [host(&stored(&state.qk_probs)?)?, host(&stored(d_probs)?)?];
        let (n_tokens, width) = (state.q.dim(0)?, self.width);
        let row = |x: &[f32], heads: usize, token: usize, head: usize| {
            let from = (token * heads + head) * width;
            from..(from + width).min(x.len())
        };
        let of_input = |n: usize| {
            let (token, mut sum) = (tokens[n], 0.0);
            for head in 0..self.n_heads {
                let group = self.kv_head(head);
                let k_changed = &k_new[row(&k_new, self.n_kv_heads, n, group)];
                for query in token..n_tokens {
                    let pairs = (head * n_tokens + query) * n_tokens..(head * n_tokens + query + 1) * n_tokens;
                    let before = &logits[pairs.clone()];
                    let q_row = match query == token {
                        true => &q_new[row(&q_new, self.n_heads, n, head)],
                        false => &q[row(&q, self.n_heads, query, head)],
                    };
                    let mut after = before.to_vec();
                    for key in (0..n_tokens).filter(|key| before[*key] != f32::NEG_INFINITY) {
                        if key == token {
                            after[key] = self.logit(q_row, k_changed);
                        } else if query == token {
                            after[key] = self.logit(q_row, &k[row(&k, self.n_kv_heads, key, group)]);
                        }
                    }
                    sum += beyond_first_order_of_row(before, &after, &probs[pairs.clone()], &d_probs[pairs]);
                }
            }
            sum
        };
        Ok(parallel::map(tokens.len(), of_input))
    }

    /// Queries, keys and values along `dx: [T, D]` at the layer's input.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn jvp(&self, state: &AttentionState, dx: &Tensor) -> Result<AttentionDerivative> {
        let [q_before, k_before] = match &state.before_norm {
            Some([q, k]) => [Some(q), Some(k)],
            None => [None, None],
        };
        Ok(AttentionDerivative {
            q: self.project_along(&self.query, self.query_norm.as_ref(), q_before, self.n_heads, dx)?,
            k: self.project_along(&self.key, self.key_norm.as_ref(), k_before, self.n_kv_heads, dx)?,
            v: self.heads(&self.value.jvp(dx)?, self.n_kv_heads)?,
        })
    }

    /// Derivative of the probabilities along queries and keys, `[T, T, H]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn jvp_probs(&self, state: &AttentionState, d: &AttentionDerivative) -> Result<Tensor> {
        let hidden = Some((self.visible(state.q.dim(0)?, state.k.dim(0)?), 0.0));
        let through_q = self.ops.head_products(&d.q, &state.k, hidden)?;
        let d_logits = self.ops.add(&through_q, &self.ops.head_products(&state.q, &d.k, hidden)?)?;
        let d_logits = self.through_cap(state, &d_logits)?;
        // The Jacobian of the softmax is symmetric.
        seen(&self.ops.softmax_vjp(&stored(&state.qk_probs)?, &d_logits)?)
    }

    /// Derivative of the layer's output along queries, keys and values, `[T, D]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn jvp_output(&self, state: &AttentionState, d: &AttentionDerivative) -> Result<Tensor> {
        self.out.jvp(&self.jvp_heads(state, d)?)
    }

    /// Derivative of the heads' outputs, side by side, along queries, keys and values, `[T, H * E]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn jvp_heads(&self, state: &AttentionState, d: &AttentionDerivative) -> Result<Tensor> {
        let through_probs = self.ops.head_mix(&stored(&self.jvp_probs(state, d)?)?, &state.v)?;
        let through_values = self.ops.head_mix(&stored(&state.qk_probs)?, &d.v)?;
        self.merged(&self.ops.add(&through_probs, &through_values)?)
    }

    /// The heads' outputs side by side, `[T, H, E]` to `[T, H * E]`: what the output projection reads.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn side_by_side(&self, v_out: &Tensor) -> Result<Tensor> {
        self.merged(v_out)
    }

    /// What all heads together write for rows of their outputs, `[N, H * E]` to `[N, D]`: the output weights without the
    /// bias.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn write_all(&self, x: &Tensor) -> Result<Tensor> {
        self.out.jvp(x)
    }

    /// What one head writes for rows of weighted values, `[N, E]` to `[N, D]`: the output weights without the bias; where
    /// there is a norm after the layer, before the division by its scale ([`crate::Run::write_scale`]).
    ///
    /// # Errors
    /// If an operation fails.
    pub fn write(&self, head: usize, x: &Tensor) -> Result<Tensor> {
        let head = if fault::is(Fault::PermutedHeads) { (head + 1) % self.n_heads } else { head };
        let written = self.ops.linear(x, &self.out_by_head[head], None, 1.0)?;
        match &self.write_gain {
            Some(gain) => self.ops.affine(&written, Some(gain), None),
            None => Ok(written),
        }
    }

    /// `d W_O` for rows `d: [N, D]`, head by head, `[N, H, E]`. Rows of zeros at both ends cost nothing.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn write_vjp(&self, d: &Tensor) -> Result<Tensor> {
        match &self.write_gain {
            Some(gain) => self.heads(&self.out.vjp(&self.ops.affine(d, Some(gain), None)?)?, self.n_heads),
            None => self.heads(&self.out.vjp(d)?, self.n_heads),
        }
    }

    /// Gradient at values, `[N, G, E]`, to the gradient at the layer's input through them alone, `[N, D]`.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn value_vjp(&self, d: &Tensor) -> Result<Tensor> {
        self.value.vjp(&self.merged(d)?)
    }

    fn visible(&self, queries: usize, keys: usize) -> Visible {
        Visible { queries, keys, window: self.window }
    }

    fn logits(&self, q: &Tensor, k: &Tensor, visible: Visible) -> Result<Tensor> {
        match self.softcap {
            None => self.ops.head_products(q, k, Some((visible, f32::NEG_INFINITY))),
            Some(cap) => {
                let capped = self.ops.softcap(&self.ops.head_products(q, k, None)?, cap)?;
                self.ops.mask(&capped, visible, f32::NEG_INFINITY)
            }
        }
    }

    fn rotation(&self, first: usize, inverse: bool) -> Option<Rotation<'_>> {
        self.rotary.as_ref().map(|rotary| Rotation { rotary, first, inverse })
    }

    /// Queries or keys, `[N, heads, E]`, and what they were before their norm. `rows` are ranges of rows with the position
    /// of the first of each.
    fn project(
        &self,
        side: QueryOrKey,
        rows: &[(Range<usize>, usize)],
        input: &Tensor,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (linear, norm, heads) = match side {
            QueryOrKey::Query => (&self.query, self.query_norm.as_ref(), self.n_heads),
            QueryOrKey::Key => (&self.key, self.key_norm.as_ref(), self.n_kv_heads),
        };
        if norm.is_none() && self.rotary.is_none() {
            let mut x = linear.forward_scaled(input, self.factor)?;
            if let Some(positions) = &self.positions {
                let of_rows =
                    |(rows, first): &(Range<usize>, usize)| positions[side as usize].narrow(0, *first, rows.len());
                x = self.ops.add(&x, &Tensor::cat(&rows.iter().map(of_rows).collect::<Result<Vec<_>>>()?, 0)?)?;
            }
            return Ok((self.heads(&x, heads)?, None));
        }
        let before = self.heads(&linear.forward(input)?, heads)?;
        let mut x = match norm {
            Some(norm) => self.heads(&norm.apply(&self.head_rows(&before)?)?, heads)?,
            None => before.clone(),
        };
        if self.rotary.is_some() {
            x = self.rotated(&x, rows)?;
        }
        Ok(((x * f64::from(self.factor))?, norm.map(|_| before)))
    }

    fn rotated(&self, x: &Tensor, rows: &[(Range<usize>, usize)]) -> Result<Tensor> {
        let turned = rows.iter().filter_map(|(rows, first)| {
            let rotation = self.rotation(*first, false)?;
            Some(x.narrow(0, rows.start, rows.len()).and_then(|x| self.ops.rotate(&x, rotation)))
        });
        match turned.collect::<Result<Vec<_>>>()?.as_slice() {
            [all] => Ok(all.clone()),
            parts => Tensor::cat(parts, 0),
        }
    }

    /// The gradient at the projection's output, `[N, heads * E]`, and the factor that it still misses.
    fn unproject(&self, norm: Option<&Norm>, before: Option<&Tensor>, d: &Tensor) -> Result<(Tensor, f32)> {
        let mut d = match self.rotation(0, true) {
            Some(rotation) => self.ops.rotate(d, rotation)?,
            None => d.clone(),
        };
        if let (Some(norm), Some(before)) = (norm, before) {
            d = norm.vjp(&self.head_rows(before)?, &self.head_rows(&d)?, false)?.reshape(d.dims())?;
        }
        Ok((self.merged(&d)?, self.factor))
    }

    fn project_along(
        &self,
        linear: &Linear,
        norm: Option<&Norm>,
        before: Option<&Tensor>,
        heads: usize,
        dx: &Tensor,
    ) -> Result<Tensor> {
        let mut d = self.heads(&linear.jvp_scaled(dx, self.factor)?, heads)?;
        if let (Some(norm), Some(before)) = (norm, before) {
            d = norm.jvp(&self.head_rows(before)?, &self.head_rows(&d)?, false)?.reshape(d.dims())?;
        }
        match self.rotation(0, false) {
            Some(rotation) => self.ops.rotate(&d, rotation),
            None => Ok(d),
        }
    }

    /// `[N, heads * E]` to `[N, heads, E]`.
    fn heads(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        x.reshape(((), heads, self.width))
    }

    /// `[N, heads, E]` to `[N * heads, E]`.
    fn head_rows(&self, x: &Tensor) -> Result<Tensor> {
        x.reshape(((), self.width))
    }

    /// `[N, heads, E]` to `[N, heads * E]`.
    fn merged(&self, x: &Tensor) -> Result<Tensor> {
        x.flatten_from(1)
    }
}

/// `Σ dp (p' - p) - Σ dl (l' - l)` for one query, of which `before` are the logits `l` and `after` the logits `l'`.
fn beyond_first_order_of_row(before: &[f32], after: &[f32], probs: &[f32], d_probs: &[f32]) -> f64 {
    let mut new = after.to_vec();
    softmax(&mut new);
    let mean: f64 = probs.iter().zip(d_probs).map(|(p, d)| f64::from(*p) * f64::from(*d)).sum();
    let mut sum = 0.0;
    for key in (0..before.len()).filter(|key| before[*key] != f32::NEG_INFINITY) {
        let (p, d) = (f64::from(probs[key]), f64::from(d_probs[key]));
        let moved = f64::from(after[key]) - f64::from(before[key]);
        sum += d * (f64::from(new[key]) - p) - p * (d - mean) * moved;
    }
    sum
}

/// `[H, 1, K]` as the row of one query in `[H, T, K]`, zero elsewhere.
fn stored_in(row: &Tensor, query: usize, state: &AttentionState) -> Result<Tensor> {
    let queries = state.q.dim(0)?;
    row.pad_with_zeros(1, query, queries - query - 1)
}
