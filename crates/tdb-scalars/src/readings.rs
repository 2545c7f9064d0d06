//! Nodes read in token space: which tokens a node's write makes likelier, which embeddings would excite a node.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use tdb_api::{NodeType, TokenAndScalar, TopTokens};
use tdb_model::numbers::{Screen, axpy, dot, product, products};
use tdb_model::parallel;
use tdb_model::{Attention, AutoencoderSite, Index, Site, Slot};

use crate::compute;
use crate::dictionary::slot_of_error;
use crate::engine::Engine;
use crate::error::{Error, Result, bad};
use crate::kept::{self, KEPT, Kept, Vocabulary};
use crate::nodes::{Component, Node};
use crate::select::{Extremes, Open, Scored, is_left_out};
use crate::side::Side;
use crate::slots;
use crate::tensors::{dot_in_double, row_of, times_gain};
use crate::trace::{Trace, behind_neurons};
use crate::values::{Values, wrap};

/// The best and the worst tokens of one direction, by score.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Largest first.
    pub top: Vec<(u32, f32)>,
    /// Smallest first.
    pub bottom: Vec<(u32, f32)>,
}

impl Reading {
    /// As it crosses the wire: with the tokens' texts, and scores relative to the largest in size.
    ///
    /// # Errors
    /// If a score is not finite.
    pub fn to_wire(&self, engine: &Engine) -> Result<TopTokens> {
        let first = |side: &[(u32, f32)]| side.first().map_or(0.0, |e| e.1.abs());
        let scale = first(&self.top).max(first(&self.bottom));
        let convert = |side: &[(u32, f32)]| -> Result<Vec<TokenAndScalar>> {
            side.iter()
                .map(|&(token, scalar)| {
                    if !scalar.is_finite() {
                        return Err(Error::Bad("a token's score is not a finite number".to_owned()));
                    }
                    let normalized = if scale == 0.0 { 0.0 } else { scalar / scale };
                    Ok(TokenAndScalar {
                        token: engine.token_text(token),
                        scalar: f64::from(scalar),
                        normalized_scalar: f64::from(normalized),
                    })
                })
                .collect()
        };
        Ok(TopTokens { top: convert(&self.top)?, bottom: convert(&self.bottom)? })
    }
}

/// Components that are read in one vocabulary, each with its direction, `[D]`.
struct Read<'a> {
    engine: &'a Engine,
    vocabulary: Vocabulary,
    components: &'a [Component],
    directions: &'a [Vec<f32>],
    /// Tokens listed at either end.
    count: usize,
}

impl Read<'_> {
    /// Leaves out the tokens that readings leave out. The same to the bit, whatever is kept of earlier readings.
    fn all(&self) -> Vec<Reading> {
        let mut found: Vec<Option<Reading>> = vec![None; self.components.len()];
        // The same unit at several tokens: the first one's tokens serve for the others.
        let (mut seen, all) = (HashSet::new(), 0..self.components.len());
        let (first, others): (Vec<usize>, Vec<usize>) =
            all.partition(|i| seen.insert(kept::key(self.vocabulary, self.components[*i])));
        for group in [first, others] {
            let kept: Vec<Option<Reading>> = parallel::map(group.len(), |i| self.reading_of_kept(group[i]));
            let missing: Vec<usize> =
                group.iter().zip(&kept).filter(|(_, found)| found.is_none()).map(|(i, _)| *i).collect();
            group.into_iter().zip(kept).for_each(|(i, reading)| found[i] = reading);
            for (i, reading) in missing.iter().zip(self.scored(&missing)) {
                found[*i] = Some(reading);
            }
        }
        found.into_iter().flatten().collect()
    }

    /// Rows of the vocabulary, `[n, D]`.
    fn rows(&self, range: Range<usize>) -> Cow<'_, [f32]> {
        match self.vocabulary {
            Vocabulary::Embedding => self.engine.model().embedding().rows(range),
            Vocabulary::Unembedding => self.engine.model().unembedding().rows(range),
        }
    }

    fn blocks(&self) -> Vec<Range<usize>> {
        // The scores of all tokens for all directions never exist at once.
        const BLOCK: usize = 2048;
        let n_vocab = self.engine.model().config().n_vocab;
        (0..n_vocab).step_by(BLOCK).map(|first| first..(first + BLOCK).min(n_vocab)).collect()
    }

    fn is_kept(&self) -> bool {
        self.count <= KEPT / 2
    }

    /// The largest length of a row, from above.
    fn length(&self) -> f64 {
        /// Above the error of a sum of squares in single precision.
        const MARGIN: f64 = 1.001;
        self.engine.kept().length(self.vocabulary, || {
            // On one thread: others that wait for it must not be given parts of it.
            let width = self.engine.model().config().d_model;
            let longest = |block: Range<usize>| {
                let rows = self.rows(block);
                rows.chunks_exact(width).map(|row| dot(row, row)).fold(0.0, f32::max)
            };
            MARGIN * f64::from(self.blocks().into_iter().map(longest).fold(0.0, f32::max)).sqrt()
        })
    }

    /// From the tokens that are kept for this component, if it is sure that no other is among the first.
    fn reading_of_kept(&self, i: usize) -> Option<Reading> {
        if !self.is_kept() || self.count == 0 {
            return None;
        }
        let kept = self.engine.kept().get(self.vocabulary, self.components[i])?;
        let candidates = kept.candidates(&self.directions[i], self.length())?;
        let reading = self.reading(i, [candidates.largest, candidates.smallest], self.count);
        let [largest, smallest] = candidates.others;
        let is_sure = f64::from(reading.top.get(self.count - 1)?.1) > largest
            && f64::from(reading.bottom.get(self.count - 1)?.1) < smallest;
        is_sure.then_some(reading)
    }

    /// The first of these tokens at either end, so many of each.
    fn reading(&self, i: usize, [largest, smallest]: [&[u32]; 2], count: usize) -> Reading {
        let direction = &self.directions[i];
        let score = |token: &u32| {
            let row = self.rows(*token as usize..*token as usize + 1);
            (*token, product(0.0, direction, &row))
        };
        let sorted = |tokens: &[u32], descending: bool| {
            let mut list: Vec<Scored> = tokens.iter().map(score).collect();
            list.sort_by(|a, b| {
                let by_score = if descending { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) };
                by_score.then(a.0.cmp(&b.0))
            });
            list.truncate(count);
            list
        };
        Reading { top: sorted(largest, true), bottom: sorted(smallest, false) }
    }

    /// From the tokens that may be among the first of all: from bounds of all scores where there are bounds that leave few
    /// of them open, else from all scores.
    fn scored(&self, which: &[usize]) -> Vec<Reading> {
        /// From so many directions on, bounds and the scores that they leave open take less time than all scores.
        const SCREENED: usize = 16;
        let Some(width) = which.first().map(|first| self.directions[*first].len()) else { return Vec::new() };
        let count = if self.is_kept() { KEPT } else { self.count };
        let rows =
            |open: &[usize]| open.iter().flat_map(|i| &self.directions[which[*i]]).copied().collect::<Vec<f32>>();
        let missing = |found: &[Option<_>]| (0..which.len()).filter(|i| found[*i].is_none()).collect::<Vec<usize>>();
        // A head that does not look at a token writes nothing of it.
        let writes_nothing = |i: &usize| self.directions[*i].iter().all(|x| *x == 0.0);
        let mut found: Vec<Option<[Vec<Scored>; 2]>> =
            which.iter().map(|i| writes_nothing(i).then(|| self.extremes_of_nothing(count))).collect();
        let open = missing(&found);
        if open.len() >= SCREENED
            && let Some(screen) = Screen::new(&rows(&open), width)
        {
            let of: Vec<usize> = open.iter().map(|i| which[*i]).collect();
            open.into_iter().zip(self.extremes_by_bounds(&screen, &of, count)).for_each(|(i, by)| found[i] = by);
        }
        let open = missing(&found);
        let rest = self.extremes(&rows(&open), width, count);
        open.into_iter().zip(rest).for_each(|(i, extremes)| found[i] = Some(extremes));
        which.iter().zip(found.into_iter().flatten()).map(|(i, extremes)| self.kept(*i, extremes)).collect()
    }

    /// All tokens score zero, so the first ones are at either end.
    fn extremes_of_nothing(&self, count: usize) -> [Vec<Scored>; 2] {
        let skip = self.engine.unread_tokens();
        let tokens = (0..self.engine.model().config().n_vocab).filter(|token| !is_left_out(skip, *token));
        let first: Vec<Scored> = tokens.take(count).map(|token| (token as u32, 0.0)).collect();
        [first.clone(), first]
    }

    /// Blocks of the vocabulary, each part for one thread. Whoever begins anew has nothing yet that others could be worse
    /// than: few parts, each of many blocks.
    fn parts(&self) -> Vec<Vec<Range<usize>>> {
        let blocks = self.blocks();
        blocks.chunks(blocks.len().div_ceil(2 * parallel::threads()).max(1)).map(<[_]>::to_vec).collect()
    }

    /// The largest and the smallest scores of each direction, `[N, D]`, from all scores.
    fn extremes(&self, directions: &[f32], width: usize, count: usize) -> Vec<[Vec<Scored>; 2]> {
        if directions.is_empty() {
            return Vec::new();
        }
        let (n, parts) = (directions.len() / width, self.parts());
        let parts = parallel::map(parts.len(), |part| {
            let mut extremes = vec![Extremes::new(count); n];
            for block in &parts[part] {
                let scores = products(directions, &self.rows(block.clone()), width, false);
                for (extremes, scores) in extremes.iter_mut().zip(scores.chunks_exact(block.len())) {
                    extremes.offer(scores, block.start, self.engine.unread_tokens());
                }
            }
            extremes
        });
        let merge = |a: Vec<Extremes>, b: Vec<Extremes>| a.into_iter().zip(b).map(|(a, b)| a.merged(b)).collect();
        parts.into_iter().reduce(merge).unwrap_or_default().into_iter().map(Extremes::sorted).collect()
    }

    /// As [`Read::extremes`], from the scores that bounds leave open; `None` where too many of them are.
    fn extremes_by_bounds(&self, screen: &Screen, which: &[usize], count: usize) -> Vec<Option<[Vec<Scored>; 2]>> {
        let parts = self.parts();
        let parts = parallel::map(parts.len(), |part| {
            let mut open = Open::new(which.len(), screen.width(), count, self.engine.unread_tokens());
            for block in &parts[part] {
                screen.offer(&self.rows(block.clone()), open.from(block.start));
            }
            open
        });
        let open = parts.into_iter().reduce(Open::merged).map(Open::tokens).unwrap_or_default();
        // One by one, scores take longer.
        let most = self.engine.model().config().n_vocab / 16;
        parallel::map(which.len(), |i| {
            let [largest, smallest] = open.get(i)?;
            if largest.len().max(smallest.len()) > most {
                return None;
            }
            let Reading { top, bottom } = self.reading(which[i], [largest, smallest], count);
            Some([top, bottom])
        })
    }

    /// Keeps these tokens, of which the first are the reading.
    fn kept(&self, i: usize, extremes: [Vec<Scored>; 2]) -> Reading {
        if !self.is_kept() {
            let [top, bottom] = extremes;
            return Reading { top, bottom };
        }
        let [largest, smallest] =
            [&extremes[0], &extremes[1]].map(|list| list.iter().map(|entry| entry.0).collect::<Vec<u32>>());
        // Scored one by one, as they are when they come from what was kept.
        let reading = self.reading(i, [&largest, &smallest], self.count);
        if let Some(kept) = Kept::new(&self.directions[i], &extremes) {
            self.engine.kept().put(self.vocabulary, self.components[i], kept);
        }
        reading
    }
}

/// The best and worst of one list of scores, `[V]`.
pub fn rank(scores: &[f32], count: usize, skip: Option<&[bool]>) -> Reading {
    let mut extremes = Extremes::new(count);
    extremes.offer(scores, 0, skip);
    let [top, bottom] = extremes.sorted();
    Reading { top, bottom }
}

/// What the node writes to the residual stream in this run, `[D]`.
///
/// # Errors
/// If the run has no such node.
pub fn write_vector(side: &Side<'_>, node: Component) -> Result<Vec<f32>> {
    let (direction, activation) = match node {
        Component::Embedding { token } => return row_of(&side.get(Site::ResidPostEmb, None)?, token),
        Component::Node(Node::Head { layer, query, key, head }) => {
            return compute::head_write(side, layer, [query, key, head]);
        }
        Component::Node(Node::Neuron { layer, token, index }) => {
            let post_act = row_of(&side.get(Site::MlpPostAct, layer)?, token)?;
            let factor = side.write_factor(Slot::Mlp, layer, token)?;
            (side.model().block(layer).mlp().write_direction(index), post_act[index] * factor)
        }
        Component::Node(Node::Latent { slot, layer, token, index }) => {
            let activation = side.run.latents(slot, layer).map_or(0.0, |state| state.latents.get(token, index));
            (compute::write_direction(side, slot, layer, token, index)?, activation)
        }
        Component::Error { slot, layer, token } => {
            let error = side.run.latent_error(slot, layer)?.narrow(0, token, 1)?;
            let site = slots::in_layer(side.model(), slot, layer)?.site();
            return row_of(&compute::to_residual(side, site, layer, &error, Some(token))?, 0);
        }
        Component::Skip { layer, token } => {
            let state = side.run.latents(Slot::Mlp, layer);
            let skip = match state {
                Some(state) => slots::in_layer(side.model(), Slot::Mlp, layer)?.skip(&state.input)?,
                None => None,
            };
            return match skip {
                Some(skip) => row_of(&skip, token),
                None => bad!("the dictionary of layer {layer} has no skip connection"),
            };
        }
    };
    Ok(direction.into_iter().map(|x| x * activation).collect())
}

/// The tokens that each node's write makes likelier and less likely: write times the final layer norm's gain times
/// the unembedding, minus the mean over the vocabulary (a constant does not change probabilities).
///
/// # Errors
/// If the run has no such node.
pub fn upvoted_tokens(side: &Side<'_>, nodes: &[Component], count: usize) -> Result<Vec<Reading>> {
    let model = side.model();
    let (gain, unembedding, n_vocab) = (model.final_norm().gain(), model.unembedding(), model.config().n_vocab);
    let direction = |node: &Component| -> Result<Vec<f32>> {
        let mut write = write_vector(side, *node)?;
        times_gain(&mut write, gain);
        Ok(write)
    };
    let directions = parallel::try_map(nodes.len(), |i| direction(&nodes[i]))?;
    let vocabulary = Vocabulary::Unembedding;
    let mut readings =
        Read { engine: side.engine, vocabulary, components: nodes, directions: &directions, count }.all();
    for (reading, direction) in readings.iter_mut().zip(&directions) {
        let mean = (dot_in_double(direction, unembedding.sum_of_rows()) / n_vocab as f64) as f32;
        reading.top.iter_mut().chain(&mut reading.bottom).for_each(|(_, score)| *score -= mean);
    }
    Ok(readings)
}

/// The tokens whose embeddings, as the residual stream, would raise and lower each node before its nonlinearity:
/// embedding times the gradient of the pre-activation, the layer norm's scale held fixed.
///
/// # Errors
/// If a node is neither neuron nor latent.
pub fn exciting_tokens(side: &Side<'_>, nodes: &[Component], count: usize) -> Result<Vec<Reading>> {
    let (mut together, mut alone) = (BTreeMap::<usize, Vec<_>>::new(), Vec::new());
    for (i, node) in nodes.iter().enumerate() {
        match *node {
            Component::Node(Node::Latent { slot: Slot::Mlp, layer, token, index })
                if is_behind_neurons(side, layer) =>
            {
                together.entry(layer).or_default().push((i, token, index));
            }
            _ => alone.push(i),
        }
    }
    let mut directions = vec![Vec::new(); nodes.len()];
    let found = parallel::try_map(alone.len(), |i| read_vector(side, nodes[alone[i]]))?;
    alone.into_iter().zip(found).for_each(|(i, direction)| directions[i] = direction);
    for (layer, latents) in together {
        let found = read_behind_neurons(side, layer, &latents)?;
        latents.iter().zip(found).for_each(|((i, ..), direction)| directions[*i] = direction);
    }
    let vocabulary = Vocabulary::Embedding;
    Ok(Read { engine: side.engine, vocabulary, components: nodes, directions: &directions, count }.all())
}

/// Whether a layer's MLP latents are computed from its neurons.
fn is_behind_neurons(side: &Side<'_>, layer: usize) -> bool {
    let site = side.model().autoencoder(Slot::Mlp, layer).map(|autoencoder| autoencoder.site());
    matches!(site, Some(AutoencoderSite::MlpPostAct | AutoencoderSite::ResidDeltaMlp))
}

/// As [`read_vector`] for such latents of one layer, whose weights are read once for all of them; of each the second and
/// third numbers are its token and its index.
fn read_behind_neurons(side: &Side<'_>, layer: usize, latents: &[(usize, usize, usize)]) -> Result<Vec<Vec<f32>>> {
    let model = side.model();
    let autoencoder = slots::in_layer(model, Slot::Mlp, layer)?;
    let resid = side.read_by(Slot::Mlp, layer)?;
    let tokens: Vec<u32> = latents.iter().map(|(_, token, _)| *token as u32).collect();
    let rows = resid.index_select(&Tensor::new(tokens, resid.device())?, 0)?;
    let mut read = |row: usize, input: &Tensor| -> Result<Vec<f32>> {
        Ok(autoencoder.read_gradient(latents[row].2, &row_of(input, 0)?, false))
    };
    let found = behind_neurons(model, model.block(layer), autoencoder.site(), &rows, true, &mut read)?;
    (0..latents.len()).map(|row| row_of(&found, row)).collect()
}

/// Gradient of a node's pre-activation at the residual stream of its token, `[D]`.
fn read_vector(side: &Side<'_>, node: Component) -> Result<Vec<f32>> {
    let model = side.model();
    match node {
        Component::Node(Node::Neuron { layer, token, index }) => {
            let (block, resid) = (model.block(layer), row_of(&side.read_by(Slot::Mlp, layer)?, token)?);
            Ok(block.mlp_norm.vjp_row(&resid, &block.mlp().read_direction(index), true))
        }
        Component::Node(Node::Latent { slot: Slot::Attention, layer, token, index }) => {
            // The token alone: it can only attend to itself, so the write is that of its own value.
            let (block, resid) = (model.block(layer), row_of(&side.read_by(Slot::Attention, layer)?, token)?);
            let heads = read_of_heads(side, layer, token, index)?;
            let values = by_value_head(&block.attn, &heads, model.config().n_kv_heads)?;
            Ok(block.attn_norm.vjp_row(&resid, &row_of(&block.attn.value_vjp(&values)?, 0)?, true))
        }
        Component::Node(node @ Node::Latent { token, .. }) => {
            let trace =
                Trace { node, pre_activation: true, frozen_scale: true, through: None, up: false, downstream: None };
            row_of(&trace.seed(&side.run, None)?.gradient, token)
        }
        _ => bad!("only neurons and latents have tokens that excite them"),
    }
}

/// What an attention latent reads of the heads at one token before its activation function, `[1, H, E]`, the scale of a
/// normalisation held fixed.
fn read_of_heads(side: &Side<'_>, layer: usize, token: usize, latent: usize) -> Result<Tensor> {
    let (model, slot) = (side.model(), Slot::Attention);
    let autoencoder = slots::in_layer(model, slot, layer)?;
    let Some(state) = side.run.latents(slot, layer) else { return bad!("layer {layer} has no latents in this run") };
    let row = autoencoder.read_gradient(latent, &row_of(&state.input, token)?, true);
    compute::seen_from_heads(side, autoencoder, layer, &model.tensor(&[1, row.len()], row)?, Some(token))
}

/// `[1, H, E]`, summed over the heads that share a value: `[1, H_kv, E]`.
fn by_value_head(attn: &Attention, x: &Tensor, n_kv_heads: usize) -> Result<Tensor> {
    let (_, heads, width) = x.dims3()?;
    if heads == n_kv_heads {
        return Ok(x.clone());
    }
    let mut out = vec![0.0; n_kv_heads * width];
    for (head, row) in row_of(x, 0)?.chunks_exact(width).enumerate() {
        axpy(&mut out[attn.kv_head(head) * width..][..width], 1.0, row);
    }
    Ok(Tensor::from_vec(out, (1, n_kv_heads, width), x.device())?)
}

/// One node's pre-activation for the embedding of every token in the vocabulary alone (no position, no attention),
/// `[T, V]` with equal rows. The node is the one that the request's only ablation names.
///
/// # Errors
/// If the request does not have exactly one ablation, of a neuron or of a latent on the MLP.
pub(crate) fn vocabulary_into_node<'a>(side: &'a Side<'_>) -> Result<Values<'a>> {
    let scores = side.engine.vocabulary_into_node(side)?;
    let dims = vec![side.tokens(), scores.len()];
    Ok(Values::Rows { dims, row: Box::new(move |_| Ok(scores.to_vec())) })
}

impl Engine {
    /// See [`vocabulary_into_node`]: `[V]`.
    pub(crate) fn vocabulary_into_node(&self, side: &Side<'_>) -> Result<Arc<[f32]>> {
        let [ablation] = side.plan.interventions.as_slice() else {
            let found = side.plan.interventions.len();
            return bad!(
                "\"vocab_token_write_to_input_direction\" needs exactly one ablation, which names the node; there are {found}"
            );
        };
        let (Some(layer), Some(Index::At(index))) = (ablation.layer, ablation.indices.last().copied()) else {
            return bad!("the ablation that names the node needs a layerIndex and a unit");
        };
        let (model, block) = (self.model(), self.model().block(layer));
        let autoencoder = match ablation.site {
            Site::MlpPostAct => None,
            Site::MlpLatent => Some(slots::in_layer(model, Slot::Mlp, layer)?),
            Site::ResidLatent => Some(slots::in_layer(model, Slot::Residual, layer)?),
            other => {
                return bad!(
                    "tokens that excite a node are defined for MLP neurons and latents of MLP and residual autoencoders, not for {other:?}"
                );
            }
        };
        let score = |rows: Range<usize>| -> Result<Vec<f32>> {
            let dims = [rows.len(), model.config().d_model];
            let embedded = model.embedding().rows(rows);
            let Some(autoencoder) = autoencoder else {
                let (read, bias) = (block.mlp().read_direction(index), block.mlp().read_bias(index));
                let scores = embedded.chunks_exact(read.len());
                return Ok(scores.map(|row| dot(&block.mlp_norm.row(row), &read) + bias).collect());
            };
            let embedded = model.tensor(&dims, embedded.into_owned())?;
            let input = match autoencoder.site() {
                AutoencoderSite::MlpPostAct => block.mlp().apply(&block.mlp_norm.apply(&embedded)?)?.post_act,
                AutoencoderSite::ResidDeltaMlp => {
                    let state = block.mlp().apply(&block.mlp_norm.apply(&embedded)?)?;
                    block.post_norm(Slot::Mlp, &state.delta)?
                }
                AutoencoderSite::MlpIn | AutoencoderSite::MlpTranscoder => block.mlp_norm.apply(&embedded)?,
                _ => embedded,
            };
            Ok(autoencoder.pre_activation_of_latent(index, &input)?)
        };
        const BLOCK: usize = 512;
        let n_vocab = model.config().n_vocab;
        let block = |i: usize| score(i * BLOCK..((i + 1) * BLOCK).min(n_vocab));
        Ok(parallel::try_map(n_vocab.div_ceil(BLOCK), block)?.concat().into())
    }
}

/// Which node a node index on the wire means, for reading.
///
/// # Errors
/// If nodes of its type have no reading, or it is out of range.
pub fn read_node(side: &Side<'_>, node: &tdb_api::MirroredNodeIndex) -> Result<Component> {
    let tokens = side.tokens();
    let index = |position: usize, len: usize| -> Result<usize> {
        let found = node.tensor_indices.get(position).copied().flatten();
        match found.and_then(|i| wrap(i, len)) {
            Some(i) => Ok(i),
            None => bad!(
                "tensorIndices[{position}] of a node of type \"{}\" is {found:?}, outside 0..{len}",
                node.node_type
            ),
        }
    };
    let config = side.model().config();
    let layer = || match node.layer_index.and_then(|l| wrap(l, config.n_layers)) {
        Some(layer) => Ok(layer),
        None => bad!("layerIndex of a node of type \"{}\" is {:?}", node.node_type, node.layer_index),
    };
    match node.node_type {
        NodeType::Layer if node.layer_index.is_none() => Ok(Component::Embedding { token: index(0, tokens)? }),
        NodeType::MlpNeuron => {
            let (token, index) = (index(0, tokens)?, index(1, config.d_ff)?);
            Ok(Component::Node(Node::Neuron { layer: layer()?, token, index }))
        }
        NodeType::AttentionHead if node.tensor_indices.len() == 3 => {
            let (query, key, head) = (index(0, tokens)?, index(1, tokens)?, index(2, config.n_heads)?);
            Ok(Component::Node(Node::Head { layer: layer()?, query, key, head }))
        }
        NodeType::MlpTranscoderSkip => Ok(Component::Skip { layer: layer()?, token: index(0, tokens)? }),
        other if slot_of_error(other).is_some() => {
            let slot = slot_of_error(other).unwrap_or(Slot::Mlp);
            let layer = layer()?;
            slots::in_layer(side.model(), slot, layer)?;
            Ok(Component::Error { slot, layer, token: index(0, tokens)? })
        }
        other => match slots::of_latents(side.model(), other)? {
            Some(slot) => {
                let layer = layer()?;
                let n_latents = slots::in_layer(side.model(), slot, layer)?.n_latents();
                let (token, index) = (index(0, tokens)?, index(1, n_latents)?);
                Ok(Component::Node(Node::Latent { slot, layer, token, index }))
            }
            None => bad!("nodes of type \"{other}\" have no reading in token space"),
        },
    }
}

/// How much each attended-to token adds to an attention latent's pre-activation at `token`: the heads' writes along
/// its encoder row, summed over heads, `[T]`. `None` if the latent is not active.
///
/// # Errors
/// If the run has no such layer.
pub fn token_pair_attribution(side: &Side<'_>, layer: usize, token: usize, latent: usize) -> Result<Option<Vec<f32>>> {
    let (model, slot) = (side.model(), Slot::Attention);
    let (Some(_), Some(state)) = (model.autoencoder(slot, layer), side.run.latents(slot, layer)) else {
        return Ok(None);
    };
    // Its activation before interventions; what is positive passed the nonlinearity with slope 1.
    if state.encoded.get(token, latent) <= 0.0 {
        return Ok(None);
    }
    compute::attended_reads(side, layer, token, &read_of_heads(side, layer, token, latent)?).map(Some)
}
