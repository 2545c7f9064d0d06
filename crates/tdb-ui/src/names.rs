//! Names of nodes for people and for paths.

use tdb_api::{NodeIndex, NodeType};

/// The table's name of a node: `attn_L5_1`, `mlp_L3_2011`, `embedding`.
pub fn node_name(node: &NodeIndex) -> String {
    match node.layer_index {
        None if node.node_type == NodeType::Layer => "embedding".into(),
        layer => component_name(node.node_type, layer.unwrap_or_default(), unit(node)),
    }
}

/// The name of a component apart from any token.
pub fn component_name(node_type: NodeType, layer: i64, unit: i64) -> String {
    match node_type {
        NodeType::AttentionHead => format!("attn_L{layer}_{unit}"),
        NodeType::MlpNeuron => format!("mlp_L{layer}_{unit}"),
        NodeType::AutoencoderLatent => format!("latent_L{layer}_{unit}"),
        NodeType::MlpAutoencoderLatent => format!("mlp_ae_L{layer}_{unit}"),
        NodeType::AttentionAutoencoderLatent | NodeType::AutoencoderLatentByTokenPair => {
            format!("attn_ae_L{layer}_{unit}")
        }
        NodeType::ResidualAutoencoderLatent => format!("resid_ae_L{layer}_{unit}"),
        NodeType::MlpAutoencoderError => format!("mlp_error_L{layer}"),
        NodeType::AttentionAutoencoderError => format!("attn_error_L{layer}"),
        NodeType::ResidualAutoencoderError => format!("resid_error_L{layer}"),
        NodeType::MlpTranscoderSkip => format!("mlp_skip_L{layer}"),
        other => format!("{other}.{layer}.{unit}"),
    }
}

/// The attention or the MLP part of a layer.
pub fn layer_name(node_type: NodeType, layer: i64) -> String {
    let part = match node_type {
        NodeType::AttentionHead
        | NodeType::AttentionAutoencoderLatent
        | NodeType::AttentionAutoencoderError
        | NodeType::AutoencoderLatentByTokenPair
        | NodeType::QkChannel
        | NodeType::VChannel => "attn",
        NodeType::MlpNeuron
        | NodeType::MlpAutoencoderLatent
        | NodeType::MlpAutoencoderError
        | NodeType::MlpTranscoderSkip => "mlp",
        NodeType::AutoencoderLatent => "latents",
        _ => "resid",
    };
    format!("{part}_L{layer}")
}

/// A component apart from its place in a prompt: type of its page, layer, unit.
pub type Component = (NodeType, i64, i64);

/// The component that a node belongs to; embeddings belong to none.
pub fn component(node: &NodeIndex) -> Option<Component> {
    if is_remainder(node.node_type) {
        return None;
    }
    Some((page_type(node.node_type), node.layer_index?, unit(node)))
}

/// Whether nodes of this type are what a dictionary does not put into latents. They have no pages.
pub fn is_remainder(node_type: NodeType) -> bool {
    matches!(
        node_type,
        NodeType::MlpAutoencoderError
            | NodeType::AttentionAutoencoderError
            | NodeType::ResidualAutoencoderError
            | NodeType::MlpTranscoderSkip
    )
}

/// The last index: the head, neuron or latent.
pub fn unit(node: &NodeIndex) -> i64 {
    node.tensor_indices.last().copied().flatten().unwrap_or_default()
}

/// The token that the node sits at (for heads: attends from); `None` for all.
pub fn token_from(node: &NodeIndex) -> Option<usize> {
    node.tensor_indices.first().copied().flatten().and_then(|i| usize::try_from(i).ok())
}

/// The token that a head attends to.
pub fn token_to(node: &NodeIndex) -> Option<usize> {
    if node.node_type != NodeType::AttentionHead || node.tensor_indices.len() < 3 {
        return None;
    }
    node.tensor_indices.get(1).copied().flatten().and_then(|i| usize::try_from(i).ok())
}

/// What a type is called in a sentence.
pub fn type_label(node_type: NodeType) -> &'static str {
    match node_type {
        NodeType::AttentionHead => "attention head",
        NodeType::MlpNeuron => "MLP neuron",
        NodeType::AutoencoderLatent => "autoencoder latent",
        NodeType::MlpAutoencoderLatent => "MLP autoencoder latent",
        NodeType::AttentionAutoencoderLatent => "attention autoencoder latent",
        NodeType::ResidualAutoencoderLatent => "residual autoencoder latent",
        NodeType::MlpAutoencoderError => "error of the MLP dictionary",
        NodeType::AttentionAutoencoderError => "error of the attention dictionary",
        NodeType::ResidualAutoencoderError => "error of the residual dictionary",
        NodeType::MlpTranscoderSkip => "skip connection of the transcoder",
        NodeType::AutoencoderLatentByTokenPair => "attention autoencoder latent, by token pair",
        NodeType::ResidualStreamChannel => "residual stream channel",
        NodeType::QkChannel => "query–key channel",
        NodeType::VChannel => "value channel",
        NodeType::Layer => "layer",
        NodeType::VocabToken => "vocabulary token",
    }
}

/// A short word for chips and columns.
pub fn type_short(node_type: NodeType) -> &'static str {
    match node_type {
        NodeType::AttentionHead => "heads",
        NodeType::MlpNeuron => "neurons",
        NodeType::AutoencoderLatent => "latents",
        NodeType::MlpAutoencoderLatent => "MLP latents",
        NodeType::AttentionAutoencoderLatent | NodeType::AutoencoderLatentByTokenPair => "attention latents",
        NodeType::ResidualAutoencoderLatent => "residual latents",
        NodeType::MlpAutoencoderError => "MLP error",
        NodeType::AttentionAutoencoderError => "attention error",
        NodeType::ResidualAutoencoderError => "residual error",
        NodeType::MlpTranscoderSkip => "transcoder skip",
        NodeType::Layer => "embedding",
        other => other.as_str(),
    }
}

/// The colour family of a type.
pub fn type_class(node_type: NodeType) -> &'static str {
    match node_type {
        NodeType::AttentionHead => "kind-attention",
        NodeType::MlpNeuron => "kind-mlp",
        NodeType::Layer => "kind-embedding",
        _ => "kind-latent",
    }
}

/// The type that node pages know: latents of attention have their examples by token pair.
pub fn page_type(node_type: NodeType) -> NodeType {
    match node_type {
        NodeType::AttentionAutoencoderLatent => NodeType::AutoencoderLatentByTokenPair,
        other => other,
    }
}

/// The path of a component's page.
pub fn node_path(slug: &str, node_type: NodeType, layer: i64, unit: i64) -> String {
    format!("/{slug}/{}/{layer}/{unit}", page_type(node_type))
}

/// Reads what a person types to jump: `L5.H1`, `h 5 1`, `attn_L5_1`, `mlp 3 2011`, `3:2011` with a type given
/// elsewhere.
pub fn parse_jump(text: &str, default: NodeType) -> Option<(NodeType, i64, i64)> {
    let lower = text.to_ascii_lowercase();
    let mut numbers = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut pending = String::new();
    for c in lower.chars().chain([' ']) {
        let same = pending
            .chars()
            .last()
            .is_some_and(|p| p.is_ascii_digit() == c.is_ascii_digit() && c.is_ascii_alphanumeric());
        if !same && !pending.is_empty() {
            match pending.parse::<i64>() {
                Ok(number) => numbers.push(number),
                Err(_) => words.push(std::mem::take(&mut pending)),
            }
            pending.clear();
        }
        if c.is_ascii_alphanumeric() {
            pending.push(c);
        }
    }
    let &[layer, unit] = numbers.as_slice() else { return None };
    let has = |w: &str| words.iter().any(|x| x == w);
    let attention = has("attn") || has("attention");
    let latent = has("ae") || has("latent") || has("autoencoder") || has("sae");
    let node_type = if latent && attention {
        NodeType::AutoencoderLatentByTokenPair
    } else if latent && has("mlp") {
        NodeType::MlpAutoencoderLatent
    } else if latent && (has("resid") || has("residual")) {
        NodeType::ResidualAutoencoderLatent
    } else if latent {
        NodeType::AutoencoderLatent
    } else if attention || has("h") || has("head") {
        NodeType::AttentionHead
    } else if has("mlp") || has("n") || has("neuron") {
        NodeType::MlpNeuron
    } else if has("resid") || has("residual") || has("channel") {
        NodeType::ResidualStreamChannel
    } else if words.iter().all(|w| w == "l" || w == "layer") {
        default
    } else {
        return None;
    };
    Some((node_type, layer, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_read_in_many_spellings() {
        let d = NodeType::MlpNeuron;
        assert_eq!(parse_jump("L5.H1", d), Some((NodeType::AttentionHead, 5, 1)));
        assert_eq!(parse_jump("attn_L5_1", d), Some((NodeType::AttentionHead, 5, 1)));
        assert_eq!(parse_jump("h 5 1", d), Some((NodeType::AttentionHead, 5, 1)));
        assert_eq!(parse_jump("mlp 3 2011", d), Some((NodeType::MlpNeuron, 3, 2011)));
        assert_eq!(parse_jump("mlp_ae_L2_9", d), Some((NodeType::MlpAutoencoderLatent, 2, 9)));
        assert_eq!(parse_jump("3:2011", NodeType::AttentionHead), Some((NodeType::AttentionHead, 3, 2011)));
        assert_eq!(parse_jump("mlp 3", d), None);
        assert_eq!(parse_jump("hello 3 4", d), None);
    }
}
