//! The address of a node's page: `/<model>/<type>/<layer>/<index>` and its parameters.

use super::slug::ModelSlug;
use crate::{DerivedScalarType, NodeType};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Parts prompts from each other in `promptsOfInterest`.
pub const PROMPT_SEPARATOR: char = '\u{07F7}';

/// The types of nodes that have a page, as their path names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodePageKind {
    /// The type.
    pub node_type: NodeType,
    /// The scalar that stored records of it hold.
    pub stored: DerivedScalarType,
    /// The scalar that a run gives for it.
    pub live: DerivedScalarType,
    /// Whether its scalars belong to pairs of tokens rather than to tokens.
    pub by_token_pair: bool,
    /// Whether input tokens can be read against it.
    pub input_side: bool,
    /// Whether its write can be read in output tokens.
    pub output_side: bool,
}

impl NodePageKind {
    /// Every kind.
    pub const ALL: [Self; 8] = {
        use DerivedScalarType as D;
        const fn kind(node_type: NodeType, stored: D, live: D, pair: bool, input: bool, output: bool) -> NodePageKind {
            NodePageKind { node_type, stored, live, by_token_pair: pair, input_side: input, output_side: output }
        }
        [
            kind(NodeType::MlpNeuron, D::MlpPostAct, D::MlpPostAct, false, true, true),
            kind(NodeType::AutoencoderLatent, D::AutoencoderLatent, D::OnlineAutoencoderLatent, false, true, true),
            kind(
                NodeType::MlpAutoencoderLatent,
                D::MlpAutoencoderLatent,
                D::OnlineMlpAutoencoderLatent,
                false,
                true,
                true,
            ),
            kind(
                NodeType::AttentionAutoencoderLatent,
                D::AttentionAutoencoderLatent,
                D::OnlineAttentionAutoencoderLatent,
                false,
                false,
                true,
            ),
            kind(
                NodeType::ResidualAutoencoderLatent,
                D::ResidualAutoencoderLatent,
                D::OnlineResidualAutoencoderLatent,
                false,
                true,
                true,
            ),
            kind(NodeType::ResidualStreamChannel, D::ResidPostMlp, D::ResidPostMlp, false, true, true),
            kind(NodeType::AttentionHead, D::AttnWriteNorm, D::UnflattenedAttnWriteNorm, true, false, false),
            kind(
                NodeType::AutoencoderLatentByTokenPair,
                D::FlattenedAttnWriteToLatentSummedOverHeads,
                D::AttnWriteToLatentSummedOverHeads,
                true,
                false,
                true,
            ),
        ]
    };

    /// The kind of nodes of this type, if they have pages.
    pub fn of(node_type: NodeType) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.node_type == node_type)
    }

    /// Reads the type's part of a path. `attn_write_norm` is an old name of heads.
    pub fn from_path(segment: &str) -> Option<Self> {
        let node_type = match segment {
            "attn_write_norm" => NodeType::AttentionHead,
            other => other.parse().ok()?,
        };
        Self::of(node_type)
    }

    /// The kind of nodes that a set of records with this scalar is about.
    pub fn of_records(derived_scalar_type: &str) -> Option<Self> {
        let node_type = match derived_scalar_type {
            "mlp_post_act" => NodeType::MlpNeuron,
            "attn_write_norm" => NodeType::AttentionHead,
            "flattened_attn_write_to_latent_summed_over_heads"
            | "flattened_attn_write_to_latent_summed_over_heads_batched" => NodeType::AutoencoderLatentByTokenPair,
            "mlp_autoencoder_latent" => NodeType::MlpAutoencoderLatent,
            "attention_autoencoder_latent" => NodeType::AttentionAutoencoderLatent,
            "residual_autoencoder_latent" => NodeType::ResidualAutoencoderLatent,
            "autoencoder_latent" | "online_autoencoder_latent" => NodeType::AutoencoderLatent,
            "residual" | "resid_post_mlp" => NodeType::ResidualStreamChannel,
            _ => return None,
        };
        Self::of(node_type)
    }
}

/// A node's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePage {
    /// The model's part of the path.
    pub slug: ModelSlug,
    /// What kind of node.
    pub kind: NodePageKind,
    /// Its layer.
    pub layer_index: i64,
    /// Its place within the layer.
    pub node_index: i64,
}

impl NodePage {
    /// Reads the four parts of a path; the error says which one means nothing.
    pub fn parse(model: &str, node_type: &str, layer: &str, index: &str) -> Result<Self, String> {
        let kind = NodePageKind::from_path(node_type).ok_or_else(|| format!("{node_type:?} is no type of node"))?;
        let number = |name: &str, text: &str| {
            text.parse::<i64>().ok().filter(|n| *n >= 0).ok_or_else(|| format!("{text:?} is no {name} (0, 1, ...)"))
        };
        let (layer_index, node_index) = (number("layer", layer)?, number("node index", index)?);
        Ok(Self { slug: ModelSlug::parse(model), kind, layer_index, node_index })
    }

    /// The path, without parameters.
    pub fn path(&self) -> String {
        let slug = path_segment(&self.slug.to_string());
        format!("/{slug}/{}/{}/{}", self.kind.node_type, self.layer_index, self.node_index)
    }

    /// The name of the set of records about this node.
    pub fn dataset_name(&self) -> Option<String> {
        self.slug.dataset_name(self.kind.node_type)
    }
}

/// The parameters of a node's page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePageQuery {
    /// Prompts whose activations are shown first.
    pub prompts_of_interest: Vec<String>,
    /// Sets of explanations to look in, in place of those that belong to the node's records.
    pub explanation_datasets: Vec<String>,
}

impl NodePageQuery {
    /// Reads a query string, with or without its question mark.
    pub fn parse(query: &str) -> Self {
        let mut out = Self::default();
        for (key, value) in form_urlencoded::parse(query.trim_start_matches('?').as_bytes()) {
            match key.as_ref() {
                "promptsOfInterest" if !value.is_empty() => {
                    out.prompts_of_interest = value.split(PROMPT_SEPARATOR).map(str::to_owned).collect();
                }
                "explanation_datasets" if !value.is_empty() => {
                    out.explanation_datasets = value.split(',').map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        out
    }

    /// The query string, without a question mark; empty if there is nothing to say.
    pub fn encode(&self) -> String {
        let mut out = form_urlencoded::Serializer::new(String::new());
        if !self.prompts_of_interest.is_empty() {
            out.append_pair("promptsOfInterest", &self.prompts_of_interest.join(&PROMPT_SEPARATOR.to_string()));
        }
        if !self.explanation_datasets.is_empty() {
            out.append_pair("explanation_datasets", &self.explanation_datasets.join(","));
        }
        out.finish()
    }
}

/// All but the characters that a path has as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as one part of a path.
pub(super) fn path_segment(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written() {
        let page = NodePage::parse("gpt2-small", "mlp_neuron", "2", "507").unwrap();
        assert_eq!(page.path(), "/gpt2-small/mlp_neuron/2/507");
        assert_eq!(page.kind.live, DerivedScalarType::MlpPostAct);
        let head = NodePage::parse("gpt2-small", "attn_write_norm", "0", "3").unwrap();
        assert_eq!(head.path(), "/gpt2-small/attention_head/0/3");
        assert!(head.kind.by_token_pair);
    }

    #[test]
    fn a_wrong_part_is_named() {
        let error = |t: &str, l: &str, i: &str| NodePage::parse("m", t, l, i).unwrap_err();
        assert!(error("qk_channel", "0", "0").contains("qk_channel"));
        assert!(error("mlp_neurn", "0", "0").contains("mlp_neurn"));
        assert!(error("mlp_neuron", "-1", "0").contains("layer"));
        assert!(error("mlp_neuron", "0", "x").contains("node index"));
    }

    #[test]
    fn prompts_with_any_character_survive() {
        let query = NodePageQuery {
            prompts_of_interest: vec!["50% of #1 & a+b".into(), "<|endoftext|>Paris, é".into()],
            explanation_datasets: vec!["https://x/y".into(), "z".into()],
        };
        assert_eq!(NodePageQuery::parse(&format!("?{}", query.encode())), query);
        assert_eq!(NodePageQuery::parse("promptsOfInterest=a+b%DF%B7c").prompts_of_interest, ["a b", "c"]);
        assert_eq!(NodePageQuery::default().encode(), "");
    }

    #[test]
    fn every_kind_is_found_by_its_path() {
        for kind in NodePageKind::ALL {
            assert_eq!(NodePageKind::from_path(kind.node_type.as_str()), Some(kind));
        }
        assert_eq!(NodePageKind::of_records("residual").unwrap().node_type, NodeType::ResidualStreamChannel);
        assert_eq!(NodePageKind::of_records("nope"), None);
    }
}
