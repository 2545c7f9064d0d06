//! Which nodes an answer lists, and their values.

use std::collections::HashSet;

use tdb_api::{
    DerivedScalarType as Dst, GroupId, IndexMap, MirroredNodeIndex, MultipleTopKDerivedScalarsRequestSpec, NodeType,
    PassType, TensorND,
};

use tdb_model::{Slot, Transformer};

use crate::derived;
use crate::dictionary::latent_type;
use crate::error::{At, Result, bad};
use crate::place::Place;
use crate::side::Side;
use crate::slots;
use crate::store::Store;
use crate::top_k::Entry;
use crate::values::{Sums, unflatten, wrap};

/// Most nodes that an answer lists.
pub(crate) const NODE_LIMIT: usize = 1_000_000;

/// Each node of a list once, and the sums of each scalar.
pub(crate) struct Ranking {
    pub nodes: Vec<MirroredNodeIndex>,
    pub sums: IndexMap<GroupId, IndexMap<Dst, TensorND>>,
}

/// Group by group: the largest of every kind of node, merged in descending order, then the smallest likewise.
pub(crate) fn rank(store: &mut Store<'_, '_>, spec: &MultipleTopKDerivedScalarsRequestSpec) -> Result<Ranking> {
    let mut nodes = Vec::new();
    let mut seen = HashSet::new();
    let mut sums: IndexMap<GroupId, IndexMap<Dst, TensorND>> = IndexMap::new();
    for (group, dsts) in &spec.dst_list_by_group_id {
        let mut sides: [Vec<(f32, MirroredNodeIndex)>; 2] = [Vec::new(), Vec::new()];
        for dst in dsts {
            let dimensions = derived::dimensions(*dst);
            let keep: Vec<bool> =
                dimensions.iter().map(|d| spec.dimensions_to_keep_for_intermediate_sum.contains(d)).collect();
            let k = match spec.top_and_bottom_k {
                Some(k) => k as usize,
                None => NODE_LIMIT,
            };
            let mut layers = layers_after_cut(store.side(), *dst, spec.residual_cut_layer)?;
            if spec.leave_out_replaced {
                layers.retain(|layer| !is_replaced(store.side().model(), *dst, *layer, dsts));
            }
            // A dictionary may stand in no layer that is asked about.
            if layers.is_empty() {
                continue;
            }
            let dims = store.get(*dst, PassType::Forward, layers[0])?.dims();
            let engine = store.side().engine;
            // Rows of the vocabulary without a token are never listed; so many more are looked at.
            let is_vocabulary = derived::node_type(*dst) == NodeType::VocabToken;
            let rows = if is_vocabulary { dims.last().copied().unwrap_or_default() } else { 0 };
            let unlisted = (0..rows).filter(|row| !engine.has_token(*row)).count();
            let places = if spec.token_index.is_some() { 1 } else { dims[0] };
            let most = k.saturating_add(unlisted * places).min(NODE_LIMIT);
            let mut extremes = store.extremes(*dst, PassType::Forward, &layers, most, spec.token_index, &keep)?;
            for side in [&mut extremes.top, &mut extremes.bottom].into_iter().filter(|_| unlisted > 0) {
                side.retain(|entry| engine.has_token(entry.at % rows));
                side.truncate(k);
            }
            let node = |entry: &Entry| {
                let mut index = vec![0; dims.len()];
                unflatten(entry.at, &dims, &mut index);
                let mut tensor_indices: Vec<Option<i64>> = index.iter().map(|i| Some(*i as i64)).collect();
                if let Some(token) = spec.token_index {
                    tensor_indices[0] = Some(token);
                }
                MirroredNodeIndex {
                    node_type: derived::node_type(*dst),
                    tensor_indices,
                    layer_index: layers[entry.layer].map(|l| l as i64),
                    pass_type: PassType::Forward,
                }
            };
            sides[0].extend(extremes.top.iter().map(|e| (e.value, node(e))));
            sides[1].extend(extremes.bottom.iter().map(|e| (e.value, node(e))));
            sums.entry(*group).or_default().insert(*dst, to_tensor(&extremes.sum)?);
        }
        for mut side in sides {
            side.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(std::cmp::Ordering::Equal));
            for (_, node) in side {
                if seen.insert(node_key(&node)) {
                    nodes.push(node);
                }
            }
        }
    }
    Ok(Ranking { nodes, sums })
}

/// Whether a layer's neurons or heads, which `dst` is about, stand in the list as latents of a dictionary: one of `ranked`
/// is about these.
fn is_replaced(model: &Transformer, dst: Dst, layer: Option<usize>, ranked: &[Dst]) -> bool {
    let slot = match derived::node_type(dst) {
        NodeType::MlpNeuron => Slot::Mlp,
        NodeType::AttentionHead => Slot::Attention,
        _ => return false,
    };
    let has = layer.is_some_and(|layer| model.autoencoder(slot, layer).is_some());
    has && ranked.iter().any(|other| derived::node_type(*other) == latent_type(slot))
}

/// The layers in which a scalar is ranked. With a cut, the residual dictionary's latents and error stand for all that was
/// written before: of other nodes only those that write after it are ranked.
fn layers_after_cut(side: &Side<'_>, dst: Dst, cut: Option<i64>) -> Result<Vec<Option<usize>>> {
    let Some(cut) = cut else { return side.layers(dst) };
    let (model, node_type) = (side.model(), derived::node_type(dst));
    let at = cut_layer(model, cut)?;
    let layers = side.layers(dst)?;
    let writes = match node_type {
        NodeType::ResidualAutoencoderLatent | NodeType::ResidualAutoencoderError => {
            return Ok(layers.into_iter().filter(|layer| *layer == Some(at)).collect());
        }
        NodeType::AttentionHead | NodeType::AttentionAutoencoderLatent | NodeType::AttentionAutoencoderError => {
            Slot::Attention
        }
        NodeType::MlpNeuron
        | NodeType::MlpAutoencoderLatent
        | NodeType::MlpAutoencoderError
        | NodeType::MlpTranscoderSkip => Slot::Mlp,
        _ => return Ok(layers.into_iter().filter(Option::is_some).collect()),
    };
    let follows = |layer: &Option<usize>| layer.is_some_and(|layer| follows_cut(model, at, writes, layer));
    Ok(layers.into_iter().filter(follows).collect())
}

/// The layer whose residual dictionary is the cut.
pub(crate) fn cut_layer(model: &Transformer, cut: i64) -> Result<usize> {
    let field = || "residualCutLayer".into();
    let slot = slots::require(model, Slot::Residual, "residualCutLayer").at(field)?;
    let Some(at) = usize::try_from(cut).ok().filter(|layer| *layer < model.config().n_layers) else {
        return bad!(at "residualCutLayer", "is {cut}, but the model has layers 0..{}", model.config().n_layers);
    };
    slots::in_layer(model, slot, at).at(field)?;
    Ok(at)
}

/// Whether what attention or MLP of a layer write comes after the cut at another.
pub(crate) fn follows_cut(model: &Transformer, at: usize, slot: Slot, layer: usize) -> bool {
    Place::written_by(model, slot, layer) > Place::written_by(model, Slot::Residual, at)
}

pub(crate) type NodeKey = (NodeType, Option<i64>, Vec<Option<i64>>);

pub(crate) fn node_key(node: &MirroredNodeIndex) -> NodeKey {
    (node.node_type, node.layer_index, node.tensor_indices.clone())
}

/// The values of nodes in one group: of each, that of the group's scalar that is about its kind of node.
pub(crate) fn values_of(store: &mut Store<'_, '_>, dsts: &[Dst], nodes: &[MirroredNodeIndex]) -> Result<Vec<f32>> {
    // Scalars that are made row by row are made once for all nodes of a row.
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|i| (nodes[*i].node_type, nodes[*i].layer_index, nodes[*i].tensor_indices.first().copied()));
    let alike = |node: &MirroredNodeIndex| (node.node_type, node.layer_index);
    let mut found = vec![0.0; nodes.len()];
    for alike in order.chunk_by(|a, b| alike(&nodes[*a]) == alike(&nodes[*b])) {
        let (node_type, layer) = (nodes[alike[0]].node_type, nodes[alike[0]].layer_index);
        let Some(dst) = dsts.iter().find(|dst| derived::node_type(**dst) == node_type).copied() else {
            return bad!("no scalar of this group is about nodes of type \"{node_type}\"");
        };
        let values = store.get(dst, PassType::Forward, layer.map(|l| l as usize))?;
        let dims = values.dims();
        let mut entries = values.entries()?;
        for &i in alike {
            let mut index = Vec::with_capacity(dims.len());
            for (i, n) in nodes[i].tensor_indices.iter().zip(&dims) {
                match i.and_then(|i| wrap(i, *n)) {
                    Some(i) => index.push(i),
                    None => return bad!("a node of type \"{node_type}\" has index {i:?}, outside 0..{n}"),
                }
            }
            found[i] = entries.at(&index)?;
            if !found[i].is_finite() {
                return bad!("\"{dst}\" is not a finite number at a listed node");
            }
        }
    }
    Ok(found)
}

/// As it crosses the wire; what is not finite is told as -999, as clients know it.
fn to_tensor(sums: &Sums) -> Result<TensorND> {
    let numbers: Vec<f64> = sums.data.iter().map(|x| if x.is_finite() { *x } else { -999.0 }).collect();
    let rows = |numbers: &[f64], n: usize| -> Vec<Vec<f64>> {
        if n == 0 { Vec::new() } else { numbers.chunks(n).map(<[f64]>::to_vec).collect() }
    };
    Ok(match sums.dims.as_slice() {
        [] => TensorND::Tensor0D(numbers[0]),
        [_] => TensorND::Tensor1D(numbers),
        [_, n] => TensorND::Tensor2D(rows(&numbers, *n)),
        [_, m, n] => TensorND::Tensor3D(numbers.chunks(m * n).map(|matrix| rows(matrix, *n)).collect()),
        dims => {
            return bad!(at "dimensionsToKeepForIntermediateSum", "sums can keep at most three dimensions, not {}", dims.len());
        }
    })
}
