//! Nodes read in token space: which tokens a node's write makes likelier, which embeddings would excite a node.

use std::sync::Arc;

use rayon::prelude::*;
use tdb_api::{TokenAndScalar, TopTokens};
use tdb_model::kernels::{self, Threads, View, dot, wide};
use tdb_model::layer_norm;
use tdb_model::{AutoencoderSite, Matrix};

use crate::compute;
use crate::engine::Engine;
use crate::error::{Error, Result, bad};
use crate::nodes::{AutoencoderKind, Node};
use crate::replay::{self, through};
use crate::side::Side;
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

/// Readings of directions `[N, D]` against the rows of `vocabulary: [V, D]`, each score minus `offset(n)`, leaving
/// out the tokens that `skip` marks.
pub fn read(
    vocabulary: &Matrix,
    directions: &[f32],
    offset: impl Fn(usize) -> f32 + Sync,
    count: usize,
    skip: Option<&[bool]>,
) -> Vec<Reading> {
    let width = vocabulary.cols();
    let n = directions.len() / width;
    if n == 0 {
        return Vec::new();
    }
    // Blocks of the vocabulary: the scores of all tokens for all directions never exist at once.
    const BLOCK: usize = 2048;
    let blocks: Vec<usize> = (0..vocabulary.rows()).step_by(BLOCK).collect();
    let parts: Vec<Vec<Reading>> = blocks
        .par_iter()
        .map(|&first| {
            let rows = vocabulary.row_range(first..(first + BLOCK).min(vocabulary.rows()));
            let scores = kernels::matmul(View::new(directions, n, width), View::of(&rows).t(), Threads::One);
            let scored = |scores: &[f32]| best(scores, first, count, skip);
            scores.chunks_exact(rows.rows()).map(scored).collect()
        })
        .collect();
    (0..n)
        .map(|i| {
            let shift = offset(i);
            let side = |pick: fn(&Reading) -> &Vec<(u32, f32)>, descending: bool| {
                let mut all: Vec<(u32, f32)> = parts.iter().flat_map(|part| pick(&part[i]).iter().copied()).collect();
                sort(&mut all, descending);
                all.truncate(count);
                all.iter_mut().for_each(|e| e.1 -= shift);
                all
            };
            Reading { top: side(|r| &r.top, true), bottom: side(|r| &r.bottom, false) }
        })
        .collect()
}

/// The best and worst of one list of scores, `[V]`.
pub fn rank(scores: &[f32], count: usize, skip: Option<&[bool]>) -> Reading {
    best(scores, 0, count, skip)
}

fn best(scores: &[f32], first: usize, count: usize, skip: Option<&[bool]>) -> Reading {
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(count.min(scores.len()) + 1);
    let mut bottom = top.clone();
    const BLOCK: usize = 64;
    let full = |list: &[(u32, f32)]| list.len() == count && count > 0;
    for (block, scores) in scores.chunks(BLOCK).enumerate() {
        // Most blocks hold nothing that is better than what is listed, which can be seen of all numbers at once.
        let [largest, smallest] = wide(|| [kernels::max(scores), kernels::min(scores)]);
        if full(&top) && full(&bottom) && largest <= top[count - 1].1 && smallest >= bottom[count - 1].1 {
            continue;
        }
        for (i, &score) in scores.iter().enumerate() {
            let token = first + block * BLOCK + i;
            if skip.is_some_and(|skip| skip.get(token).copied().unwrap_or(false)) {
                continue;
            }
            offer(&mut top, (token as u32, score), count, true);
            offer(&mut bottom, (token as u32, score), count, false);
        }
    }
    Reading { top, bottom }
}

/// Keeps `list` the `count` best, sorted.
fn offer(list: &mut Vec<(u32, f32)>, entry: (u32, f32), count: usize, descending: bool) {
    let better = |a: f32, b: f32| if descending { a > b } else { a < b };
    if list.len() == count && list.last().is_none_or(|last| !better(entry.1, last.1)) {
        return;
    }
    let at = list.partition_point(|e| !better(entry.1, e.1));
    list.insert(at, entry);
    list.truncate(count);
}

fn sort(list: &mut [(u32, f32)], descending: bool) {
    list.sort_by(|a, b| {
        let by_score = if descending { b.1.total_cmp(&a.1) } else { a.1.total_cmp(&b.1) };
        by_score.then(a.0.cmp(&b.0))
    });
}

/// A node whose write or read is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadNode {
    Embedding { token: usize },
    Node(Node),
}

/// What the node writes to the residual stream in this run, `[D]`.
pub fn write_vector(side: &Side<'_>, node: ReadNode) -> Vec<f32> {
    match node {
        ReadNode::Embedding { token } => side.forward.post_emb.row(token).to_vec(),
        ReadNode::Node(Node::Head { layer, query, key, head }) => compute::head_write(side, layer, [query, key, head]),
        ReadNode::Node(Node::Neuron { layer, token, index }) => {
            let activation = side.forward.layers[layer].mlp.post_act.row(token)[index];
            scaled(side.model().weights().layers[layer].mlp_out.weight.transpose().row(index), activation)
        }
        ReadNode::Node(Node::Latent { kind, layer, token, index }) => {
            let activation = kind.state(&side.forward.layers[layer]).map_or(0.0, |l| l.latents.get(token, index));
            scaled(compute::write_direction(side, kind, layer, index), activation)
        }
    }
}

fn scaled(mut direction: Vec<f32>, factor: f32) -> Vec<f32> {
    kernels::scale(&mut direction, factor);
    direction
}

/// The tokens that each node's write makes likelier and less likely: write times the final layer norm's gain times
/// the unembedding, minus the mean over the vocabulary (a constant does not change probabilities).
pub fn upvoted_tokens(side: &Side<'_>, nodes: &[ReadNode], count: usize) -> Vec<Reading> {
    let engine = side.engine;
    let gain = &side.model().weights().ln_f.gain;
    let mean = engine.mean_unembedding();
    let width = gain.len();
    let mut directions = Vec::with_capacity(nodes.len() * width);
    let scaled: Vec<Vec<f32>> =
        nodes.par_iter().map(|node| write_vector(side, *node).iter().zip(gain).map(|(x, g)| x * g).collect()).collect();
    scaled.iter().for_each(|row| directions.extend_from_slice(row));
    let offset = |i: usize| dot(&directions[i * width..][..width], mean);
    read(&side.model().weights().unembed, &directions, offset, count, engine.unread_tokens())
}

/// The tokens whose embeddings, as the residual stream, would raise and lower each node before its nonlinearity:
/// embedding times the gradient of the pre-activation, the layer norm's scale held fixed.
///
/// # Errors
/// If a node is neither neuron nor latent.
pub fn exciting_tokens(side: &Side<'_>, nodes: &[ReadNode], count: usize) -> Result<Vec<Reading>> {
    let reads: Vec<Vec<f32>> = nodes.par_iter().map(|node| read_vector(side, *node)).collect::<Result<_>>()?;
    let directions: Vec<f32> = reads.concat();
    let engine = side.engine;
    Ok(read(&side.model().weights().tok_embed, &directions, |_| 0.0, count, engine.unread_tokens()))
}

/// Gradient of a node's pre-activation at the residual stream of its token, `[D]`.
fn read_vector(side: &Side<'_>, node: ReadNode) -> Result<Vec<f32>> {
    let model = side.model();
    match node {
        ReadNode::Node(Node::Neuron { layer, token, index }) => {
            let weights = &model.weights().layers[layer];
            let resid = side.forward.layers[layer].post_attn.row(token);
            Ok(layer_norm::apply_backward(&weights.ln_2, resid, &weights.mlp_in.weight.row(index), true))
        }
        ReadNode::Node(Node::Latent { kind, layer, token, index }) => {
            let autoencoder = kind.in_layer(model, layer)?;
            let encoder = autoencoder.encoder_row(index);
            if autoencoder.site() == AutoencoderSite::ResidDeltaAttn {
                // The token alone: it can only attend to itself, so the write is that of its own value.
                let weights = &model.weights().layers[layer];
                let resid = side.forward.before_attn(layer).row(token);
                let dx = through(&through(&encoder, &weights.out), &weights.value);
                return Ok(layer_norm::apply_backward(&weights.ln_1, resid, &dx, true));
            }
            let resid = side.forward.layers[layer].post_attn.row(token);
            Ok(replay::Mlp::forward(model, layer, resid).backward(
                model,
                layer,
                resid,
                autoencoder.site(),
                encoder,
                true,
            ))
        }
        _ => bad!("only neurons and latents have tokens that excite them"),
    }
}

/// One node's pre-activation for the embedding of every token in the vocabulary alone (no position, no attention),
/// `[T, V]` with equal rows. The node is the one that the request's only ablation names.
///
/// # Errors
/// If the request does not have exactly one ablation, of a neuron or of a latent on the MLP.
pub(crate) fn vocabulary_into_node<'a>(side: &'a Side<'_>) -> Result<Values<'a>> {
    let scores = side.engine.vocabulary_into_node(side)?;
    let dims = vec![side.tokens(), scores.len()];
    Ok(Values::Rows { dims, row: Box::new(move |_| scores.to_vec()) })
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
        let (Some(layer), Some(tdb_model::Index::At(index))) = (ablation.layer, ablation.indices.last().copied())
        else {
            return bad!("the ablation that names the node needs a layerIndex and a unit");
        };
        let model = self.model();
        let weights = &model.weights().layers[layer];
        let embedding = &model.weights().tok_embed;
        let (vocabulary, width) = (embedding.rows(), embedding.cols());
        const BLOCK: usize = 512;
        let blocks: Vec<usize> = (0..vocabulary).step_by(BLOCK).collect();
        let per_block = |first: &usize, score: &(dyn Fn(&[f32], usize) -> Vec<f32> + Sync)| {
            let rows = BLOCK.min(vocabulary - first);
            let mut x = vec![0.0; rows * width];
            for (i, row) in x.chunks_exact_mut(width).enumerate() {
                embedding.copy_row(first + i, row);
                layer_norm::apply(&weights.ln_2, row);
            }
            score(&x, rows)
        };
        let scores: Vec<Vec<f32>> = match ablation.site {
            tdb_model::Site::MlpPostAct => {
                let read = weights.mlp_in.weight.row(index);
                let bias = weights.mlp_in.bias[index];
                let score = |x: &[f32], _| x.chunks_exact(width).map(|row| dot(row, &read) + bias).collect();
                blocks.par_iter().map(|first| per_block(first, &score)).collect()
            }
            tdb_model::Site::MlpLatent => {
                let autoencoder = AutoencoderKind::Mlp.in_layer(model, layer)?;
                let score = |x: &[f32], rows: usize| {
                    let pre = kernels::linear(View::new(x, rows, width), &weights.mlp_in);
                    let post = kernels::map(&pre, kernels::gelu);
                    if autoencoder.site() == AutoencoderSite::MlpPostAct {
                        return autoencoder.pre_activation_of_latent(index, &post, rows);
                    }
                    let delta =
                        kernels::linear(View::new(&post, rows, weights.mlp_out.weight.cols()), &weights.mlp_out);
                    autoencoder.pre_activation_of_latent(index, &delta, rows)
                };
                blocks.par_iter().map(|first| per_block(first, &score)).collect()
            }
            other => {
                return bad!(
                    "tokens that excite a node are defined for MLP neurons and latents of MLP autoencoders, not for {other:?}"
                );
            }
        };
        Ok(scores.concat().into())
    }
}

/// Which node a node index on the wire means, for reading.
///
/// # Errors
/// If nodes of its type have no reading, or it is out of range.
pub fn read_node(side: &Side<'_>, node: &tdb_api::MirroredNodeIndex) -> Result<ReadNode> {
    use tdb_api::NodeType;
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
        NodeType::Layer if node.layer_index.is_none() => Ok(ReadNode::Embedding { token: index(0, tokens)? }),
        NodeType::MlpNeuron => {
            let (token, index) = (index(0, tokens)?, index(1, config.d_ff)?);
            Ok(ReadNode::Node(Node::Neuron { layer: layer()?, token, index }))
        }
        NodeType::AttentionHead if node.tensor_indices.len() == 3 => {
            let (query, key, head) = (index(0, tokens)?, index(1, tokens)?, index(2, config.n_heads)?);
            Ok(ReadNode::Node(Node::Head { layer: layer()?, query, key, head }))
        }
        other => match AutoencoderKind::of_latents(side.model(), other)? {
            Some(kind) => {
                let layer = layer()?;
                let n_latents = kind.in_layer(side.model(), layer)?.n_latents();
                let (token, index) = (index(0, tokens)?, index(1, n_latents)?);
                Ok(ReadNode::Node(Node::Latent { kind, layer, token, index }))
            }
            None => bad!("nodes of type \"{other}\" have no reading in token space"),
        },
    }
}

/// How much each attended-to token adds to an attention latent's pre-activation at `token`: the heads' writes along
/// its encoder row, summed over heads, `[T]`. `None` if the latent is not active.
pub fn token_pair_attribution(side: &Side<'_>, layer: usize, token: usize, latent: usize) -> Option<Vec<f32>> {
    let autoencoder = side.model().attn_autoencoder(layer)?;
    let state = &side.forward.layers[layer].attn;
    // Its activation before interventions; what is positive passed the nonlinearity with slope 1.
    if state.latents.as_ref()?.encoded.get(token, latent) <= 0.0 {
        return None;
    }
    let config = side.model().config();
    let weights = &side.model().weights().layers[layer];
    let read = through(&autoencoder.encoder_row(latent), &weights.out);
    let width = config.d_head;
    let attribution = |key: usize| -> f32 {
        let value = state.v.row(key);
        (0..config.n_heads)
            .map(|head| {
                let range = head * width..(head + 1) * width;
                state.qk_probs.at(&[token, key, head]) * dot(&value[range.clone()], &read[range])
            })
            .sum()
    };
    Some((0..side.tokens()).map(attribution).collect())
}
