//! Answers about one component, and readings of listed nodes.

use tdb_api::{
    DerivedAttentionScalarsRequestSpec, DerivedAttentionScalarsResponseData, DerivedScalarType as Dst,
    DerivedScalarsRequestSpec, DerivedScalarsResponseData, InferenceAndTokenData, MirroredNodeIndex, NodeType,
    PassType, ScoredTokensRequestSpec, ScoredTokensResponseData, TokenAndAttentionScalars,
    TokenPairAttributionRequestSpec, TokenPairAttributionResponseData, TokenScoringType, TopTokens,
    TopTokensAttendedTo,
};

use tdb_model::Slot;

use crate::context::Context;
use crate::derived;
use crate::engine::Engine;
use crate::error::{At, Error, Result, bad};
use crate::nodes::{Component, Node};
use crate::readings;
use crate::side::Side;
use crate::size::is_read;
use crate::store::Store;
use crate::values::wrap;

/// Nodes whose tokens are scored at a time.
const NODES_READ_AT_ONCE: usize = 1024;

impl Side<'_> {
    /// What every answer tells about its run. How long it took is not part of the answer: the same request gives
    /// the same bytes.
    pub(crate) fn data(&self) -> InferenceAndTokenData {
        InferenceAndTokenData {
            inference_time: 0.0,
            memory_used_before: None,
            memory_used_after: None,
            log: None,
            loss: self.loss.map(f64::from),
            activation_value_for_backward_pass: self.trace_seed.as_ref().map(|seed| f64::from(seed.value)),
            tokens_as_ints: self.plan.tokens.iter().map(|t| i64::from(*t)).collect(),
            tokens_as_strings: self.plan.tokens.iter().map(|t| self.engine.token_text(*t)).collect(),
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.context.observer.is_cancelled()
    }
}

impl Engine {
    pub(crate) fn component_scalars(
        &self,
        store: &mut Store<'_, '_>,
        spec: &DerivedScalarsRequestSpec,
        context: &Context<'_>,
    ) -> Result<DerivedScalarsResponseData> {
        let side = store.side();
        let dst = spec.dst;
        if derived::dimensions(dst).len() != 2 {
            return bad!(
                at "dst",
                "\"{dst}\" has more than one value per token and component; rank it with /multiple_top_k_derived_scalars instead"
            );
        }
        let layer = self.layer(side, dst, spec.layer_index)?;
        let values = store.get(dst, spec.pass_type, layer)?;
        let dims = values.dims();
        let Some(index) = wrap(spec.activation_index, dims[1]) else {
            return bad!(at "activationIndex", "is {}, but \"{dst}\" has components 0..{}", spec.activation_index, dims[1]);
        };
        let mut entries = values.entries()?;
        let activations: Vec<f32> = (0..dims[0]).map(|t| entries.at(&[t, index])).collect::<Result<_>>()?;
        if activations.iter().any(|x| !x.is_finite()) {
            return bad!("\"{dst}\" is not a finite number somewhere in this prompt");
        }
        let normalized_activations = match &spec.normalize_activations_using_neuron_record {
            None => None,
            Some(node) => {
                let maximum = context.records.maximum(node, context.observer)?.activation;
                let normalized = |x: &f32| if maximum > 0.0 { f64::from(x.max(0.0)) / maximum } else { 0.0 };
                Some(activations.iter().map(normalized).collect())
            }
        };
        let node_indices: Vec<MirroredNodeIndex> = (0..dims[0])
            .map(|t| MirroredNodeIndex {
                node_type: derived::node_type(dst),
                tensor_indices: vec![Some(t as i64), Some(spec.activation_index)],
                layer_index: layer.map(|l| l as i64),
                pass_type: spec.pass_type,
            })
            .collect();
        let top_tokens = self.top_tokens(side, spec, &activations, &node_indices)?;
        Ok(DerivedScalarsResponseData {
            response_data_type: Default::default(),
            activations: activations.iter().map(|x| f64::from(*x)).collect(),
            normalized_activations,
            node_indices,
            top_tokens,
        })
    }

    /// The layer that a request names, if the scalar has layers.
    fn layer(&self, side: &Side<'_>, dst: Dst, layer_index: Option<i64>) -> Result<Option<usize>> {
        let n_layers = self.model().config().n_layers;
        match (derived::is_whole_model(dst), layer_index) {
            (true, None) => Ok(None),
            (true, Some(layer)) => bad!(at "layerIndex", "is {layer}, but \"{dst}\" has no layers; leave it null"),
            (false, None) => bad!(at "layerIndex", "is null, but \"{dst}\" needs one in 0..{n_layers}"),
            (false, Some(layer)) => match usize::try_from(layer).ok().filter(|l| *l < n_layers) {
                Some(layer) if side.layers(dst)?.contains(&Some(layer)) => Ok(Some(layer)),
                Some(layer) if !derived::is_within_layer(dst) => {
                    if let Some(slot) = crate::compute::slot_of(side, dst)? {
                        crate::slots::in_layer(self.model(), slot, layer).at(|| "layerIndex".into())?;
                    }
                    bad!(at "layerIndex", "is {layer}, where \"{dst}\" does not exist")
                }
                Some(layer) => bad!(
                    at "layerIndex",
                    "\"{dst}\" exists only in the layer that activationIndexForWithinLayerGrad names, not in {layer}"
                ),
                None => bad!(at "layerIndex", "is {layer}, but the model has layers 0..{n_layers}"),
            },
        }
    }

    fn top_tokens(
        &self,
        side: &Side<'_>,
        spec: &DerivedScalarsRequestSpec,
        activations: &[f32],
        nodes: &[MirroredNodeIndex],
    ) -> Result<Option<TopTokens>> {
        let Some(count) = spec.num_top_tokens else { return Ok(None) };
        let n_vocab = self.model().config().n_vocab as i64;
        if !(1..=n_vocab).contains(&count) {
            return bad!(at "numTopTokens", "is {count}; it must be in 1..={n_vocab}");
        }
        let count = count as usize;
        if spec.dst == Dst::VocabTokenWriteToInputDirection {
            let scores = self.vocabulary_into_node(side)?;
            if scores.iter().all(|x| *x == 0.0) {
                return Ok(None);
            }
            return Ok(Some(readings::rank(&scores, count, self.unread_tokens()).to_wire(self)?));
        }
        let Some(first) = nodes.first() else { return Ok(None) };
        // Only scalars whose value is the node's activation say what the node writes.
        let node = match spec.dst {
            Dst::MlpPostAct
            | Dst::OnlineAutoencoderLatent
            | Dst::OnlineMlpAutoencoderLatent
            | Dst::OnlineAttentionAutoencoderLatent
            | Dst::OnlineResidualAutoencoderLatent => readings::read_node(side, first)?,
            other => {
                return bad!(
                    at "numTopTokens",
                    "is defined for neurons and latents (\"mlp_post_act\", \"online_mlp_autoencoder_latent\", ...), not for \"{other}\""
                );
            }
        };
        if activations[0] == 0.0 {
            return Ok(None);
        }
        let mut found = readings::upvoted_tokens(side, &[node], count)?;
        let Some(reading) = found.pop() else { return Ok(None) };
        let mut wire = reading.to_wire(self)?;
        if activations[0] < 0.0 {
            std::mem::swap(&mut wire.top, &mut wire.bottom);
        }
        Ok(Some(wire))
    }

    pub(crate) fn attention_scalars(
        &self,
        store: &mut Store<'_, '_>,
        spec: &DerivedAttentionScalarsRequestSpec,
        context: &Context<'_>,
    ) -> Result<DerivedAttentionScalarsResponseData> {
        let side = store.side();
        let dst = spec.dst;
        if !matches!(dst, Dst::UnflattenedAttnWriteNorm | Dst::AttnWriteToLatentSummedOverHeads) {
            return bad!(
                at "dst",
                "\"{dst}\" has no value per pair of tokens here; \"unflattened_attn_write_norm\" and \"attn_write_to_latent_summed_over_heads\" have"
            );
        }
        let layer = self.layer(side, dst, spec.layer_index)?;
        let values = store.get(dst, PassType::Forward, layer)?;
        let n = values.dims()[2];
        // Of latents there is one value per pair, that of the latent which the request names elsewhere.
        let index = if dst == Dst::UnflattenedAttnWriteNorm { wrap(spec.activation_index, n) } else { Some(0) };
        let Some(index) = index else {
            return bad!(at "activationIndex", "is {}, but the layer has heads 0..{n}", spec.activation_index);
        };
        let tokens = side.tokens();
        let mut entries = values.entries()?;
        let mut at = |q: usize, k: usize| -> Result<f64> { Ok(f64::from(entries.at(&[q, k, index])?)) };
        let sequence: Vec<Vec<f64>> =
            (0..tokens).map(|q| (0..=q).map(|k| at(q, k)).collect()).collect::<Result<_>>()?;
        if sequence.iter().flatten().any(|x| !x.is_finite()) {
            return bad!("\"{dst}\" is not a finite number somewhere in this prompt");
        }
        let others = match &spec.normalize_activations_using_neuron_record {
            Some(node) => context.records.maximum(node, context.observer)?.attention_sequences,
            None => Vec::new(),
        };
        let texts: Vec<String> = side.plan.tokens.iter().map(|t| self.token_text(*t)).collect();
        Ok(DerivedAttentionScalarsResponseData {
            response_data_type: Default::default(),
            token_and_attention_scalars_list: attention_list(&texts, &sequence, &others),
        })
    }

    pub(crate) fn scored_tokens(
        &self,
        side: &Side<'_>,
        spec: &ScoredTokensRequestSpec,
        node_indices: Vec<MirroredNodeIndex>,
    ) -> Result<ScoredTokensResponseData> {
        let n_vocab = self.model().config().n_vocab as i64;
        if spec.num_tokens > n_vocab {
            return bad!(at "numTokens", "is {}, but the vocabulary has {n_vocab} tokens", spec.num_tokens);
        }
        let count = spec.num_tokens as usize;
        let scores = |node: &MirroredNodeIndex| is_read(spec.token_scoring_type, node.node_type);
        let scored: Vec<bool> = node_indices.iter().map(scores).collect();
        let nodes: Vec<Component> = node_indices
            .iter()
            .zip(&scored)
            .filter(|(_, scored)| **scored)
            .map(|(node, _)| readings::read_node(side, node))
            .collect::<Result<_>>()?;
        // In blocks, so that the scores of all nodes never exist at once, and the work can stop in between.
        let mut found = Vec::with_capacity(nodes.len());
        for nodes in nodes.chunks(NODES_READ_AT_ONCE) {
            if side.is_cancelled() {
                return Err(Error::Cancelled);
            }
            found.extend(match spec.token_scoring_type {
                TokenScoringType::UpvotedOutputTokens => readings::upvoted_tokens(side, nodes, count)?,
                _ => readings::exciting_tokens(side, nodes, count)?,
            });
        }
        let mut found = found.iter();
        let mut top_tokens_list = Vec::with_capacity(scored.len());
        for scored in scored {
            top_tokens_list.push(match scored {
                true => found.next().map(|reading| reading.to_wire(self)).transpose()?,
                false => None,
            });
        }
        Ok(ScoredTokensResponseData { response_data_type: Default::default(), node_indices, top_tokens_list })
    }

    pub(crate) fn token_pairs(
        &self,
        side: &Side<'_>,
        spec: &TokenPairAttributionRequestSpec,
        node_indices: Vec<MirroredNodeIndex>,
    ) -> Result<TokenPairAttributionResponseData> {
        let count = usize::try_from(spec.num_tokens_attended_to).map_err(|e| Error::Internal(e.to_string()))?;
        let mut top_tokens_attended_to_list = Vec::with_capacity(node_indices.len());
        for node in &node_indices {
            let attribution = match node.node_type {
                NodeType::AttentionAutoencoderLatent => match readings::read_node(side, node)? {
                    Component::Node(Node::Latent { slot: Slot::Attention, layer, token, index }) => {
                        readings::token_pair_attribution(side, layer, token, index)?
                    }
                    _ => None,
                },
                _ => None,
            };
            top_tokens_attended_to_list.push(attribution.map(|attribution| {
                let mut order: Vec<usize> = (0..attribution.len()).collect();
                order.sort_by(|a, b| attribution[*b].total_cmp(&attribution[*a]).then(a.cmp(b)));
                order.truncate(count);
                TopTokensAttendedTo {
                    attributions: order.iter().map(|i| f64::from(attribution[*i])).collect(),
                    token_indices: order.iter().map(|i| *i as i64).collect(),
                }
            }));
        }
        Ok(TokenPairAttributionResponseData {
            response_data_type: Default::default(),
            node_indices,
            top_tokens_attended_to_list,
        })
    }
}

/// Values per pair of tokens with their totals and maxima, each also relative to the largest of its kind in this
/// sequence and in `others`. `sequence[q]` holds what is written into `q` from the tokens up to it.
fn attention_list(texts: &[String], sequence: &[Vec<f64>], others: &[Vec<Vec<f64>>]) -> Vec<TokenAndAttentionScalars> {
    let summaries = Summaries::of(sequence);
    let mut largest = summaries.largest();
    for other in others {
        let other = Summaries::of(other).largest();
        for (mine, theirs) in largest.iter_mut().zip(other) {
            *mine = mine.max(theirs);
        }
    }
    let [total_in, max_in, total_out, max_out] = largest;
    let relative = normalized;
    (0..sequence.len())
        .map(|t| TokenAndAttentionScalars {
            token: texts[t].clone(),
            scalars: sequence[t].clone(),
            normalized_scalars: sequence[t].iter().map(|x| relative(*x, max_in)).collect(),
            total_scalar_in: summaries.total_in[t],
            normalized_total_scalar_in: relative(summaries.total_in[t], total_in),
            max_scalar_in: summaries.max_in[t],
            normalized_max_scalar_in: relative(summaries.max_in[t], max_in),
            total_scalar_out: summaries.total_out[t],
            normalized_total_scalar_out: relative(summaries.total_out[t], total_out),
            max_scalar_out: summaries.max_out[t],
            normalized_max_scalar_out: relative(summaries.max_out[t], max_out),
        })
        .collect()
}

/// A value relative to the largest: 0 for what is negative, and where nothing is positive.
fn normalized(x: f64, largest: f64) -> f64 {
    // The reference's clients know values that reach a hair above 1.
    if largest <= 0.0 { 0.0 } else { (x / (largest - 1e-5)).max(0.0) }
}

struct Summaries {
    total_in: Vec<f64>,
    max_in: Vec<f64>,
    total_out: Vec<f64>,
    max_out: Vec<f64>,
}

impl Summaries {
    fn of(sequence: &[Vec<f64>]) -> Self {
        let n = sequence.len();
        let max = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NEG_INFINITY, f64::max);
        let column = |k: usize| sequence[k..].iter().filter_map(move |row| row.get(k).copied());
        Summaries {
            total_in: sequence.iter().map(|row| row.iter().sum()).collect(),
            max_in: sequence.iter().map(|row| max(&mut row.iter().copied())).collect(),
            total_out: (0..n).map(|k| column(k).sum()).collect(),
            max_out: (0..n).map(|k| max(&mut column(k))).collect(),
        }
    }

    /// Of total in, max in, total out, max out.
    fn largest(&self) -> [f64; 4] {
        [&self.total_in, &self.max_in, &self.total_out, &self.max_out]
            .map(|values| values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}
