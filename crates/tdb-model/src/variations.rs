//! Many runs that differ from one in a few activations, computed together.
//!
//! A run that is patched first in layer `l` at token `t` has everything before that layer, and at every layer the rows of the
//! tokens before `t`, from the run that it differs from: attention is causal. The rows that are left, of many runs, pass
//! through each linear layer as one matrix; attention is computed run by run. Between layers only the residual stream of
//! these rows is kept.
//!
//! Two more kinds of rows are left out. What is changed behind the mixing of tokens (a head's attention or output, a neuron,
//! what a layer writes) reaches later tokens in the next layer: in the first one only the rows up to the last patched token
//! are computed. And the logits are read from the last token: in the last layer the others give keys and values alone.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::fault::{self, Fault};
use crate::intervention::{Index, Intervention, indices_within};
use crate::modules::attention::{LastRows, Part, PastKeysValues};
use crate::modules::block::on_stream;
use crate::modules::norm::Sites;
use crate::numbers::Numbers;
use crate::patch::{Patch, Values};
use crate::run::{Run, check_interventions, set_in_row};
use crate::site::{Pass, Point, Site};
use crate::slot::Slot;
use crate::tap::{Hooks, RowsOf, Tap};

/// Which logits of the last token are computed for each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits<'a> {
    /// Those of the whole vocabulary.
    All,
    /// Those of these tokens, in this order.
    Of(&'a [u32]),
}

/// How runs are computed together.
#[derive(Clone, Copy)]
pub struct Together<'a> {
    /// The interventions of the run that the others differ from.
    pub interventions: &'a [Intervention],
    /// Which logits are computed of each.
    pub logits: Logits<'a>,
    /// So many rows of activations are computed at a time, at most; a single run may have more. Memory grows with it.
    pub rows: usize,
    /// Asked after every layer; `true` ends the work with [`Error::Cancelled`].
    pub is_cancelled: &'a (dyn Fn() -> bool + 'a),
}

impl Default for Together<'_> {
    fn default() -> Self {
        Together { interventions: &[], logits: Logits::All, rows: 384, is_cancelled: &|| false }
    }
}

/// Receives the logits of one run, as [`Together::logits`] asks for them.
pub type EachRun<'a> = &'a mut dyn FnMut(usize, &[f32]) -> Result<()>;

/// Receives the residual stream of one run, `[T, D]`.
pub type EachStream<'a> = &'a mut dyn FnMut(usize, &Tensor) -> Result<()>;

/// One of the runs: which rows of it are computed.
struct Variation<'a> {
    index: usize,
    patches: &'a [Patch],
    /// The first layer that is computed.
    layer: usize,
    /// The first token that is computed.
    token: usize,
    /// One more than the last token that is computed in the first layer; in later ones, all are.
    end: usize,
}

/// The rows that are computed together at one layer.
struct Rows<'a> {
    of: Vec<&'a Variation<'a>>,
    /// Of each of these, one more than the last token whose row is there.
    ends: Vec<usize>,
    /// Whether only the last token's row of each is there.
    only_last: bool,
    /// Runs that begin in a later layer, the next one last.
    waiting: Vec<&'a Variation<'a>>,
    /// `[N, D]`, the residual stream.
    x: Option<Tensor>,
}

impl<'a> Rows<'a> {
    /// `batch` is ordered by descending first layer.
    fn of(batch: &'a [Variation<'a>]) -> Self {
        Rows { of: Vec::new(), ends: Vec::new(), only_last: false, waiting: batch.iter().collect(), x: None }
    }

    /// The first layer that is computed; `None` without runs.
    fn first_layer(&self) -> Option<usize> {
        self.waiting.last().map(|v| v.layer)
    }
}

/// Keeps what stands at one point of the computation.
struct Capture {
    point: Point,
    found: Option<Tensor>,
}

impl Hooks for Capture {
    fn wants(&self, point: Point, pass: Pass) -> bool {
        pass == Pass::Forward && point == self.point
    }

    fn forward(&mut self, _: Point, activation: &Tensor) -> candle_core::Result<Option<Tensor>> {
        self.found = Some(activation.clone());
        Ok(None)
    }
}

impl Run {
    /// Runs over the same tokens that differ from this one in patches, a list of them for each. `each` is given the index of
    /// a run and its logits at the last token as soon as they are there; those patched in late layers come first.
    ///
    /// Every run is what [`crate::PatchHooks`] make of a run of its own. Hooks of this run are not called again.
    ///
    /// # Errors
    /// If a patch or an intervention does not fit the model, not all layers of this run were computed, `each` returns an
    /// error, or the work is cancelled.
    pub fn vary(&self, runs: &[Vec<Patch>], options: Together<'_>, each: EachRun<'_>) -> Result<()> {
        if options.logits == Logits::Of(&[]) {
            return Err(Error::input("no token is named whose logit is to be computed"));
        }
        let (n_layers, n_tokens) = (self.model().config().n_layers, self.tokens().len());
        self.in_batches(runs, &options, &mut |batch| {
            // What changes no row of the last token in the last layer changes no logit.
            for variation in batch.iter_mut().filter(|v| v.layer + 1 == n_layers && v.end < n_tokens) {
                variation.layer = n_layers;
                variation.token = n_tokens - 1;
            }
            batch.sort_by_key(|v| std::cmp::Reverse(v.layer));
            let mut rows = Rows::of(batch);
            for layer in rows.first_layer().unwrap_or(n_layers)..=n_layers {
                self.advance(&mut rows, layer, layer < n_layers, &options, None)?;
            }
            self.read(&rows, &options, each)
        })
    }

    /// As [`Run::vary`], up to the residual stream at a point, `[T, D]`, which `each` is given instead of logits; no layer
    /// beyond it is computed. [`Together::logits`] has no meaning.
    ///
    /// # Errors
    /// As [`Run::vary`], and if the residual stream does not stand at `point`.
    pub fn vary_up_to(
        &self,
        runs: &[Vec<Patch>],
        point: Point,
        options: Together<'_>,
        each: EachStream<'_>,
    ) -> Result<()> {
        let here = self.get(point.site, point.layer)?;
        // So many layers are computed; what begins behind them changes nothing here.
        let end = match (point.site, point.layer) {
            (Site::ResidPostEmb, None) => 0,
            (Site::ResidPostAttn | Site::ResidPostMlp | Site::ResidLatentInput, Some(layer)) => layer + 1,
            _ => return Err(Error::input(format!("the residual stream does not stand at {point:?}"))),
        };
        self.in_batches(runs, &options, &mut |batch| {
            let mut rows = Rows::of(batch);
            let mut changed = BTreeMap::new();
            for layer in rows.first_layer().unwrap_or(end)..=end {
                changed.extend(self.advance(&mut rows, layer, layer < end, &options, Some(point))?);
            }
            for of in &*batch {
                match changed.remove(&of.index) {
                    Some(rows) => each(of.index, &Tensor::cat(&[&here.narrow(0, 0, of.token)?, &rows], 0)?)?,
                    None => each(of.index, &here)?,
                }
            }
            Ok(())
        })
    }

    /// Runs of which as many as fit are computed together, those that begin in late layers first.
    fn in_batches(
        &self,
        runs: &[Vec<Patch>],
        options: &Together<'_>,
        compute: &mut dyn FnMut(&mut [Variation<'_>]) -> Result<()>,
    ) -> Result<()> {
        let (model, n_tokens) = (self.model(), self.tokens().len());
        let n_layers = model.config().n_layers;
        if self.n_layers() < n_layers {
            let run = self.n_layers();
            return Err(Error::input(format!(
                "only {run} of {n_layers} layers were run, so nothing can differ from them"
            )));
        }
        check_interventions(model, n_tokens, options.interventions)?;
        runs.iter().flatten().try_for_each(|patch| patch.check(model, n_tokens))?;
        let variation = |(index, patches): (usize, &'_ Vec<Patch>)| {
            let layer = patches.iter().map(|p| p.first_layer(n_layers)).min().unwrap_or(n_layers);
            let token = patches.iter().map(Patch::first_token).min().unwrap_or(n_tokens - 1);
            let token = if fault::is(Fault::LateStart) { (token + 1).min(n_tokens - 1) } else { token };
            let end = match fault::is(Fault::ShiftedPatch) {
                true => n_tokens,
                false => self.end_in_first_layer(patches, layer, options.interventions).max(token + 1),
            };
            (index, layer, token, end)
        };
        let mut all: Vec<Variation<'_>> = Vec::with_capacity(runs.len());
        for ((index, layer, token, end), patches) in runs.iter().enumerate().map(variation).zip(runs) {
            all.push(Variation { index, patches, layer, token, end });
        }
        all.sort_by_key(|v| (std::cmp::Reverse(v.layer), std::cmp::Reverse(v.token)));
        let mut rest = all.as_mut_slice();
        while !rest.is_empty() {
            let n = fitting(rest, options.rows, n_tokens);
            let (now, later) = rest.split_at_mut(n);
            compute(now)?;
            rest = later;
        }
        Ok(())
    }

    /// One more than the last token whose row these patches change in the first layer that is computed.
    fn end_in_first_layer(&self, patches: &[Patch], layer: usize, interventions: &[Intervention]) -> usize {
        let (n_tokens, n_layers) = (self.tokens().len(), self.model().config().n_layers);
        let names_key = |i: &Intervention| is_of_pairs(i.site) && matches!(i.indices.get(1), Some(Index::At(_)));
        // Dictionaries on the residual stream act where a layer begins or ends; of what is left out there are no keys.
        if self.model().has(Slot::Residual) || interventions.iter().any(names_key) {
            return n_tokens;
        }
        let here = patches.iter().filter(|patch| patch.first_layer(n_layers) == layer);
        let end = |patch: &Patch| match patch.indices.first() {
            Some(Index::At(token)) if patch.point.layer == Some(layer) && stays_in_row(patch) => token + 1,
            _ => n_tokens,
        };
        here.map(end).max().unwrap_or(n_tokens)
    }

    /// Takes in the runs that begin at this layer and, if asked for, computes the layer. Gives the rows of those runs that
    /// came by `captured`, by the runs' indices.
    fn advance(
        &self,
        rows: &mut Rows<'_>,
        layer: usize,
        computes: bool,
        options: &Together<'_>,
        captured: Option<Point>,
    ) -> Result<Vec<(usize, Tensor)>> {
        let model = self.model();
        let mut capture = captured.map(|point| Capture { point, found: None });
        let mut found = self.join(rows, layer, options, &mut capture)?;
        if computes && let Some(x) = &rows.x {
            let parts = self.parts(rows, layer)?;
            let together = self.rows_of(rows, options);
            // The rows that are read in the end, one of each run.
            let last = match captured.is_none() && layer + 1 == model.config().n_layers {
                true => Some(self.last_rows(rows, options)?),
                false => None,
            };
            let hooks = capture.as_mut().map(|capture| capture as &mut dyn Hooks);
            let mut tap = Tap { together: &together, hooks, ..Default::default() };
            let autoencoders = model.autoencoders(layer);
            let x = model.block(layer).forward_together(x, &parts, last.as_ref(), autoencoders, &mut tap)?;
            if let Some((all, point)) = capture.and_then(|capture| capture.found.zip(captured)) {
                let here = self.get(point.site, point.layer)?;
                for ((range, of), end) in self.ranges(rows).zip(&rows.of).zip(&rows.ends) {
                    found.push((of.index, with_rest(&all.narrow(0, range.start, range.len())?, &here, *end)?));
                }
            }
            rows.only_last = last.is_some();
            rows.x = Some(x);
        }
        if (options.is_cancelled)() {
            return Err(Error::Cancelled);
        }
        Ok(found)
    }

    /// The rows that are there, as the runs have them before `layer`: behind those of a run's first layer come the rows that
    /// were the same until there.
    fn grown(&self, rows: &mut Rows<'_>, layer: usize) -> Result<Vec<Tensor>> {
        let (Some(x), n_tokens) = (rows.x.take(), self.tokens().len()) else { return Ok(Vec::new()) };
        if rows.only_last || rows.ends.iter().all(|end| *end == n_tokens) {
            return Ok(vec![x]);
        }
        let base = self.residual_before(layer);
        let grown =
            |(range, end): (Range<usize>, &usize)| with_rest(&x.narrow(0, range.start, range.len())?, base, *end);
        let parts = self.ranges(rows).zip(&rows.ends).map(grown).collect::<Result<_>>()?;
        rows.ends.fill(n_tokens);
        Ok(parts)
    }

    /// The last token's row of each run, and what acts on it.
    fn last_rows(&self, rows: &Rows<'_>, options: &Together<'_>) -> Result<LastRows> {
        let last = self.tokens().len() - 1;
        let at: Vec<u32> = self.ranges(rows).map(|range| range.end as u32 - 1).collect();
        let of = rows.of.iter().enumerate();
        Ok(LastRows {
            at: Tensor::new(at, self.residual_before(0).device())?,
            token: last,
            together: of.map(|(i, v)| rows_of(v, i..i + 1, last, options.interventions)).collect(),
        })
    }

    /// Adds the rows of those runs that begin at this layer, as they are before it. Gives those that were captured.
    fn join(
        &self,
        rows: &mut Rows<'_>,
        layer: usize,
        options: &Together<'_>,
        capture: &mut Option<Capture>,
    ) -> Result<Vec<(usize, Tensor)>> {
        let n_tokens = self.tokens().len();
        let before = match layer {
            0 => Point { site: Site::ResidPostEmb, layer: None },
            _ => Point { site: Site::ResidPostMlp, layer: Some(layer - 1) },
        };
        let mut parts = self.grown(rows, layer)?;
        let mut found = Vec::new();
        while let Some(v) = rows.waiting.pop_if(|v| v.layer == layer) {
            // Behind the last layer there are no rows but the last one.
            let is_end = layer == self.n_layers() && capture.is_none();
            let (from, end) = if is_end { (n_tokens - 1, n_tokens) } else { (v.token, v.end) };
            rows.only_last |= is_end;
            let n = end - from;
            let own = [rows_of(v, 0..n, from, options.interventions)];
            let hooks = capture.as_mut().map(|capture| capture as &mut dyn Hooks);
            let mut tap = Tap { together: &own, hooks, ..Default::default() };
            let mut x = self.residual_before(layer).narrow(0, from, n)?;
            if let Some(read) = self.embedding_read().filter(|_| layer == 0) {
                x = on_stream(self.model().on_embedding(), read.narrow(0, from, n)?, &mut tap)?.1;
            }
            parts.push(tap.forward(before, x)?);
            rows.of.push(v);
            rows.ends.push(end);
            if let Some((changed, point)) = capture.as_mut().and_then(|c| c.found.take().zip(Some(c.point))) {
                found.push((v.index, with_rest(&changed, &self.get(point.site, point.layer)?, end)?));
            }
        }
        rows.x = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(Tensor::cat(&parts, 0)?),
        };
        Ok(found)
    }

    fn parts(&self, rows: &Rows<'_>, layer: usize) -> Result<Vec<Part>> {
        let layer = if fault::is(Fault::StaleCache) { 0 } else { layer };
        let (k, v) = (self.get(Site::AttnK, layer)?, self.get(Site::AttnV, layer)?);
        let part = |(rows, of): (Range<usize>, &&Variation<'_>)| {
            let past = match of.token {
                0 => None,
                n => Some(PastKeysValues { k: k.narrow(0, 0, n)?, v: v.narrow(0, 0, n)? }),
            };
            Ok(Part { rows, past })
        };
        self.ranges(rows).zip(&rows.of).map(part).collect()
    }

    /// Where the rows of each run stand.
    fn ranges(&self, rows: &Rows<'_>) -> impl Iterator<Item = Range<usize>> {
        let len = |(v, end): (&&Variation<'_>, &usize)| if rows.only_last { 1 } else { end - v.token };
        let lens: Vec<usize> = rows.of.iter().zip(&rows.ends).map(len).collect();
        lens.into_iter().scan(0, |end, len| {
            *end += len;
            Some(*end - len..*end)
        })
    }

    fn rows_of(&self, rows: &Rows<'_>, options: &Together<'_>) -> Vec<RowsOf> {
        let ranges = self.ranges(rows).zip(&rows.of);
        ranges.map(|(range, v)| rows_of(v, range, v.token, options.interventions)).collect()
    }

    /// The final norm and the logits of every run's last row.
    fn read(&self, rows: &Rows<'_>, options: &Together<'_>, each: EachRun<'_>) -> Result<()> {
        // So many rows of logits of the whole vocabulary are kept at a time.
        const AT_A_TIME: usize = 32;
        let Some(x) = &rows.x else { return Ok(()) };
        let model = self.model();
        let last = self.tokens().len() - 1;
        let ends: Vec<usize> = self.ranges(rows).map(|range| range.end - 1).collect();
        let ends = Tensor::from_iter(ends.into_iter().map(|end| end as u32), x.device())?;
        let together: Vec<RowsOf> =
            rows.of.iter().enumerate().map(|(i, v)| rows_of(v, i..i + 1, last, options.interventions)).collect();
        let mut tap = Tap { together: &together, ..Default::default() };
        let (_, x) = model.final_norm().forward(Sites::last(), &x.index_select(&ends, 0)?, &mut tap)?;
        let x = Numbers::of(&x)?.to_row_major();
        let width = model.config().d_model;
        for (x, of) in x.chunks(AT_A_TIME * width).zip(rows.of.chunks(AT_A_TIME)) {
            let logits = match options.logits {
                Logits::All => model.unembedding().logits(x),
                Logits::Of(tokens) => model.unembedding().logits_of(tokens, x),
            };
            let mut rows: Vec<&[f32]> = logits.chunks_exact(logits.len() / of.len()).collect();
            if fault::is(Fault::MixedRuns) {
                rows.rotate_left(1);
            }
            for (row, v) in rows.into_iter().zip(of) {
                let mut row = row.to_vec();
                self.intervene_in_logits(&mut row, options);
                each(v.index, &row)?;
            }
        }
        Ok(())
    }

    fn intervene_in_logits(&self, row: &mut [f32], options: &Together<'_>) {
        let last = self.tokens().len() - 1;
        let all = options.interventions.iter().filter_map(|i| i.within(last, 1)).filter(|i| i.site == Site::Logits);
        for intervention in all {
            match options.logits {
                Logits::All => set_in_row(&intervention, 0, row, intervention.value),
                Logits::Of(tokens) => {
                    let mut whole = vec![0.0; self.model().config().n_vocab];
                    tokens.iter().zip(&*row).for_each(|(token, value)| whole[*token as usize] = *value);
                    set_in_row(&intervention, 0, &mut whole, intervention.value);
                    tokens.iter().zip(row.iter_mut()).for_each(|(token, value)| *value = whole[*token as usize]);
                }
            }
        }
    }
}

/// Whether a patch of one token changes no later token's row in its own layer. What keys and values are made of does.
fn stays_in_row(patch: &Patch) -> bool {
    match (patch.point.site, patch.indices.as_slice()) {
        // Of an earlier token: of later ones there are no keys in the rows up to this one.
        (site, [Index::At(query), Index::At(key), ..]) if is_of_pairs(site) => key <= query,
        (
            Site::AttnQ
            | Site::AttnSoftmaxDenominator
            | Site::AttnVOut
            | Site::ResidDeltaAttn
            | Site::ResidPostAttn
            | Site::MlpLnCentered
            | Site::MlpLnScale
            | Site::MlpLnNormalized
            | Site::MlpIn
            | Site::MlpPreAct
            | Site::MlpUp
            | Site::MlpPostAct
            | Site::ResidDeltaMlp,
            _,
        ) => true,
        (site, _) => Slot::at(site).is_some_and(|slot| slot != Slot::Residual),
    }
}

fn is_of_pairs(site: Site) -> bool {
    matches!(site, Site::AttnQkLogits | Site::AttnQkProbs)
}

/// Rows of a run up to the token before `end`, with those of `base` behind them.
fn with_rest(rows: &Tensor, base: &Tensor, end: usize) -> Result<Tensor> {
    match base.dim(0)? - end {
        0 => Ok(rows.clone()),
        rest => Ok(Tensor::cat(&[rows, &base.narrow(0, end, rest)?], 0)?),
    }
}

/// How many of the first runs have at most `rows` rows together; at least one.
fn fitting(runs: &[Variation<'_>], rows: usize, n_tokens: usize) -> usize {
    let mut sum = 0;
    let fits = |v: &&Variation<'_>| {
        sum += n_tokens - v.token;
        sum <= rows
    };
    runs.iter().take_while(fits).count().max(1)
}

/// What acts on the rows of a run, of which the first is that of token `from`.
fn rows_of(of: &Variation<'_>, rows: Range<usize>, from: usize, interventions: &[Intervention]) -> RowsOf {
    let n = rows.len();
    let patch = |patch: &Patch| {
        if fault::is(Fault::IgnoredPatch) {
            return None;
        }
        let mut indices = indices_within(patch.point.site, &patch.indices, from, n)?;
        if let (true, Index::At(token)) = (fault::is(Fault::ShiftedPatch), indices[0]) {
            indices[0] = Index::At((token + 1).min(n - 1));
        }
        let values = match (&patch.values, indices[0]) {
            // Numbers for all tokens: those of the rows.
            (Values::Each(values), Index::All) => values[values.len() / (from + n) * from..].into(),
            (Values::Each(values), Index::At(_)) => values.clone(),
            (Values::Same(value), _) => return Some(Patch { indices, values: Values::Same(*value), ..*patch }),
        };
        Some(Patch { indices, values: Values::Each(values), ..*patch })
    };
    RowsOf {
        interventions: interventions.iter().filter_map(|i| i.within(from, n)).collect(),
        patches: of.patches.iter().filter_map(patch).collect(),
        rows,
    }
}
