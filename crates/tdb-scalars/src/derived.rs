//! What each derived scalar is about: its dimensions, its kind of node, where in a layer it stands.

use tdb_api::{DerivedScalarType as Dst, Dimension, NodeType, PassType};
use tdb_model::{Autoencoder, AutoencoderSite, BlockOrder, Point, Site, Slot, Transformer};

use crate::dictionary::{self, Quantity};

use Dimension::{
    AttendedToSequenceTokens as Keys, AttnHeads as Heads, AutoencoderLatents as Latents, MlpActs as Neurons,
    QueryAndKeyChannels as QkChannels, ResidualStreamChannels as Channels, SequenceTokens as Tokens, Singleton as One,
    ValueChannels, VocabSize as Vocabulary,
};

/// Dimensions of a derived scalar, per layer. For pairs of tokens in flattened form the first one counts pairs.
pub fn dimensions(dst: Dst) -> &'static [Dimension] {
    match dst {
        Dst::Logits | Dst::VocabTokenWriteToInputDirection => &[Tokens, Vocabulary],
        Dst::ResidPostEmbedding
        | Dst::ResidDeltaMlp
        | Dst::ResidPostMlp
        | Dst::ResidDeltaAttn
        | Dst::ResidPostAttn
        | Dst::ResidDeltaMlpFromMlpPostAct
        | Dst::OnlineResidualMlpAutoencoderError
        | Dst::OnlineResidualAttentionAutoencoderError
        | Dst::OnlineResidualAutoencoderError
        | Dst::PreviousLayerResidPostMlp
        | Dst::AutoencoderLatentGradWrtResidualInput
        | Dst::SingleNodeWrite
        | Dst::GradOfSingleSubnodeAttribution => &[Tokens, Channels],
        Dst::MlpPreAct
        | Dst::MlpPostAct
        | Dst::MlpWriteNorm
        | Dst::MlpActTimesGrad
        | Dst::MlpWriteToFinalResidualGrad
        | Dst::MlpWriteToFinalActivationResidualGrad
        | Dst::OnlineMlpAutoencoderError
        | Dst::OnlineMlpAutoencoderErrorActTimesGrad
        | Dst::OnlineMlpAutoencoderErrorWriteNorm
        | Dst::OnlineMlpAutoencoderErrorWriteToFinalResidualGrad
        | Dst::AutoencoderLatentGradWrtMlpPostActInput
        | Dst::MlpOutEdgeAttribution
        | Dst::MlpInEdgeAttribution
        | Dst::MlpInEdgeActivation => &[Tokens, Neurons],
        Dst::AttnQuery => &[Tokens, Heads, QkChannels],
        Dst::AttnKey => &[Keys, Heads, QkChannels],
        Dst::AttnValue => &[Keys, Heads, ValueChannels],
        Dst::AttnWeightedSumOfValues => &[Tokens, Heads, ValueChannels],
        Dst::AttnQkLogits
        | Dst::AttnQkProbs
        | Dst::UnflattenedAttnActTimesGrad
        | Dst::UnflattenedAttnWriteNorm
        | Dst::UnflattenedAttnWriteToFinalResidualGrad
        | Dst::UnflattenedAttnWriteToFinalActivationResidualGrad
        | Dst::AttnWriteToLatent
        | Dst::AttnOutEdgeAttribution
        | Dst::AttnQueryInEdgeAttribution
        | Dst::AttnKeyInEdgeAttribution
        | Dst::AttnValueInEdgeAttribution
        | Dst::AttnQueryInEdgeActivation
        | Dst::AttnKeyInEdgeActivation => &[Tokens, Keys, Heads],
        Dst::AttnWriteNorm
        | Dst::FlattenedAttnPostSoftmax
        | Dst::AttnActTimesGrad
        | Dst::AttnWriteToFinalResidualGrad
        | Dst::AttnWriteNormPerSequenceToken
        | Dst::AttnWriteToFinalResidualGradPerSequenceToken
        | Dst::AttnActTimesGradPerSequenceToken
        | Dst::AttnWriteToLatentPerSequenceToken => &[Tokens, Heads],
        Dst::ResidFinalLayerNormScale
        | Dst::AttnInputLayerNormScale
        | Dst::MlpInputLayerNormScale
        | Dst::ResidPostEmbeddingNorm
        | Dst::ResidPostMlpNorm
        | Dst::MlpLayerWriteNorm
        | Dst::ResidPostAttnNorm
        | Dst::AttnLayerWriteNorm
        | Dst::ResidPostEmbeddingProjToFinalResidualGrad
        | Dst::ResidPostMlpProjToFinalResidualGrad
        | Dst::MlpLayerWriteToFinalResidualGrad
        | Dst::ResidPostAttnProjToFinalResidualGrad
        | Dst::AttnLayerWriteToFinalResidualGrad
        | Dst::ResidPostEmbeddingProjToFinalActivationResidualGrad
        | Dst::FlattenedAttnWriteToLatentSummedOverHeads
        | Dst::TokenAttribution
        | Dst::TokenOutEdgeAttribution
        | Dst::SingleNodeWriteToFinalResidualGrad
        | Dst::AlwaysOne => &[Tokens, One],
        Dst::AttnWrite => &[Tokens, Keys, Heads, Channels],
        Dst::AttnWeightedValue => &[Tokens, Keys, Heads, ValueChannels],
        Dst::AttnWriteSumHeads => &[Tokens, Keys, Channels],
        Dst::AttnWriteToLatentSummedOverHeads => &[Tokens, Keys, One],
        Dst::AttnWriteToLatentPerSequenceTokenBatched => &[Tokens, Heads, Latents],
        Dst::MlpWrite => &[Tokens, Neurons, Channels],
        Dst::FlattenedAttnWriteToLatentSummedOverHeadsBatched
        | Dst::OnlineAutoencoderOutEdgeAttribution
        | Dst::OnlineAutoencoderInEdgeAttribution
        | Dst::OnlineAutoencoderInEdgeActivation => &[Tokens, Latents],
        // The test of this file goes through all names.
        other => dictionary::describe(other).map_or(&[], dictionary::DictionaryScalar::dimensions),
    }
}

/// Whether there is one such tensor for the whole model rather than one per layer.
pub fn is_whole_model(dst: Dst) -> bool {
    matches!(
        dst,
        Dst::Logits
            | Dst::ResidPostEmbedding
            | Dst::ResidFinalLayerNormScale
            | Dst::ResidPostEmbeddingNorm
            | Dst::ResidPostEmbeddingProjToFinalResidualGrad
            | Dst::ResidPostEmbeddingProjToFinalActivationResidualGrad
            | Dst::TokenAttribution
            | Dst::TokenOutEdgeAttribution
            | Dst::AlwaysOne
            | Dst::VocabTokenWriteToInputDirection
    )
}

/// Scalars about one latent of one layer, which the request names.
pub fn is_within_layer(dst: Dst) -> bool {
    matches!(
        dst,
        Dst::AttnWriteToLatent
            | Dst::AttnWriteToLatentSummedOverHeads
            | Dst::FlattenedAttnWriteToLatentSummedOverHeads
            | Dst::AttnWriteToLatentPerSequenceToken
    )
}

/// Tensors of the pass that are derived scalars as they are.
pub fn raw_site(dst: Dst) -> Option<Site> {
    Some(match dst {
        Dst::Logits => Site::Logits,
        Dst::ResidPostEmbedding => Site::ResidPostEmb,
        Dst::MlpPreAct => Site::MlpPreAct,
        Dst::MlpPostAct => Site::MlpPostAct,
        Dst::ResidDeltaMlp => Site::ResidDeltaMlp,
        Dst::ResidPostMlp => Site::ResidPostMlp,
        Dst::AttnQuery => Site::AttnQ,
        Dst::AttnKey => Site::AttnK,
        Dst::AttnValue => Site::AttnV,
        Dst::AttnQkLogits => Site::AttnQkLogits,
        Dst::AttnQkProbs => Site::AttnQkProbs,
        Dst::AttnWeightedSumOfValues => Site::AttnVOut,
        Dst::ResidDeltaAttn => Site::ResidDeltaAttn,
        Dst::ResidPostAttn => Site::ResidPostAttn,
        Dst::ResidFinalLayerNormScale => Site::FinalLnScale,
        Dst::AttnInputLayerNormScale => Site::AttnLnScale,
        Dst::MlpInputLayerNormScale => Site::MlpLnScale,
        _ => return None,
    })
}

/// Scalars about the one node that an inspection names; they exist in its layer alone.
pub fn is_about_edge_node(dst: Dst) -> bool {
    matches!(dst, Dst::SingleNodeWrite | Dst::SingleNodeWriteToFinalResidualGrad | Dst::GradOfSingleSubnodeAttribution)
}

/// Where an objective may read the residual stream.
const RESIDUAL_STREAM: [Site; 4] =
    [Site::ResidPostEmb, Site::ResidPostAttn, Site::ResidPostMlp, Site::ResidLatentInput];

/// Sites whose gradients a derived scalar reads; none if it needs no backward pass.
pub fn gradient_sites(dst: Dst, pass: PassType) -> Vec<Site> {
    let mut sites: Vec<Site> = raw_site(dst).filter(|_| pass == PassType::Backward).into_iter().collect();
    match dst {
        Dst::MlpActTimesGrad => sites.push(Site::MlpPostAct),
        Dst::AttnActTimesGrad | Dst::UnflattenedAttnActTimesGrad | Dst::AttnActTimesGradPerSequenceToken => {
            sites.push(Site::AttnQkProbs);
        }
        Dst::UnflattenedAttnWriteNorm if pass == PassType::Backward => sites.push(Site::AttnQkProbs),
        Dst::PreviousLayerResidPostMlp if pass == PassType::Backward => {
            sites.extend([Site::ResidPostEmb, Site::ResidPostMlp]);
        }
        Dst::OnlineMlpAutoencoderErrorActTimesGrad => sites.push(Site::MlpError),
        Dst::TokenAttribution => sites.push(Site::ResidPostEmb),
        // Where the objective reads the residual stream depends on the request.
        Dst::MlpWriteToFinalResidualGrad
        | Dst::MlpLayerWriteToFinalResidualGrad
        | Dst::AttnWriteToFinalResidualGrad
        | Dst::AttnWriteToFinalResidualGradPerSequenceToken
        | Dst::UnflattenedAttnWriteToFinalResidualGrad
        | Dst::AttnLayerWriteToFinalResidualGrad
        | Dst::ResidPostEmbeddingProjToFinalResidualGrad
        | Dst::ResidPostMlpProjToFinalResidualGrad
        | Dst::ResidPostAttnProjToFinalResidualGrad
        | Dst::OnlineMlpAutoencoderErrorWriteToFinalResidualGrad
        | Dst::SingleNodeWriteToFinalResidualGrad => sites.extend(RESIDUAL_STREAM),
        _ => {}
    }
    if let Some(found) = dictionary::describe(dst) {
        sites.extend(found.gradient_sites());
        if found.quantity == Quantity::WriteToFinalResidual {
            sites.extend(RESIDUAL_STREAM);
        }
    }
    sites
}

/// Whether the first dimension counts pairs of tokens, row by row of the lower triangle, rather than tokens.
pub fn is_flattened(dst: Dst) -> bool {
    matches!(
        dst,
        Dst::AttnWriteNorm
            | Dst::FlattenedAttnPostSoftmax
            | Dst::AttnActTimesGrad
            | Dst::AttnWriteToFinalResidualGrad
            | Dst::FlattenedAttnWriteToLatentSummedOverHeads
            | Dst::FlattenedAttnWriteToLatentSummedOverHeadsBatched
    )
}

/// The kind of node that the last dimension counts. Latents are told apart by the wire names.
pub fn node_type(dst: Dst) -> NodeType {
    if let Some(found) = dictionary::describe(dst) {
        return found.node_type();
    }
    match dimensions(dst).last() {
        Some(Dimension::MlpActs) => NodeType::MlpNeuron,
        Some(Dimension::AttnHeads) => NodeType::AttentionHead,
        Some(Dimension::QueryAndKeyChannels) => NodeType::QkChannel,
        Some(Dimension::ValueChannels) => NodeType::VChannel,
        Some(Dimension::ResidualStreamChannels) => NodeType::ResidualStreamChannel,
        Some(Dimension::VocabSize) => NodeType::VocabToken,
        Some(Dimension::AutoencoderLatents) => NodeType::AutoencoderLatent,
        _ => NodeType::Layer,
    }
}

/// Places along a layer. What is written at one place reaches what reads at a later one of the same layer. A dictionary
/// on the residual stream reads and writes right before the place where the stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A dictionary before the first layer.
    EmbeddingDictionary,
    EndOfPreviousLayer,
    Attn,
    MiddleDictionary,
    ResidPostAttn,
    Mlp,
    EndDictionary,
    ResidPostMlp,
}

/// A place of a layer.
pub type LayerPlace = (usize, Place);

impl Place {
    /// Where attention or MLP read the residual stream: in parallel blocks both before either has written. A residual
    /// dictionary reads where it stands.
    pub fn read_by(model: &Transformer, slot: Slot, layer: usize) -> LayerPlace {
        match (slot, model.config().block) {
            (Slot::Residual, _) => Self::of_residual_dictionary(model, layer),
            (Slot::Mlp, BlockOrder::Sequential) => (layer, Place::ResidPostAttn),
            (Slot::Attention, _) | (Slot::Mlp, BlockOrder::Parallel) => (layer, Place::EndOfPreviousLayer),
        }
    }

    /// Where attention, MLP or a residual dictionary write to the residual stream.
    pub fn written_by(model: &Transformer, slot: Slot, layer: usize) -> LayerPlace {
        match slot {
            Slot::Mlp => (layer, Place::Mlp),
            Slot::Attention => (layer, Place::Attn),
            Slot::Residual => Self::of_residual_dictionary(model, layer),
        }
    }

    fn of_residual_dictionary(model: &Transformer, layer: usize) -> LayerPlace {
        let site = model.any_autoencoder(Slot::Residual).map(Autoencoder::site);
        match (site, layer) {
            (Some(AutoencoderSite::ResidPre), 0) => (0, Place::EmbeddingDictionary),
            (Some(AutoencoderSite::ResidPre), layer) => (layer - 1, Place::EndDictionary),
            (Some(AutoencoderSite::ResidPostAttn), layer) => (layer, Place::MiddleDictionary),
            (_, layer) => (layer, Place::EndDictionary),
        }
    }

    /// The residual stream that attention, the MLP or a residual dictionary of a layer reads, as a point of a pass:
    /// `[T, D]`.
    pub fn point_read_by(model: &Transformer, slot: Slot, layer: usize) -> Point {
        match slot {
            Slot::Residual => Point { site: Site::ResidLatentInput, layer: Some(layer) },
            _ => {
                let (layer, place) = Self::read_by(model, slot, layer);
                place.residual_point(layer)
            }
        }
    }

    /// The residual stream at this place of `layer`, as a point of a pass: `[T, D]`.
    pub fn residual_point(self, layer: usize) -> Point {
        match (self, layer) {
            (Place::EmbeddingDictionary | Place::EndOfPreviousLayer, 0) => {
                Point { site: Site::ResidPostEmb, layer: None }
            }
            (Place::EmbeddingDictionary | Place::EndOfPreviousLayer, layer) => {
                Point { site: Site::ResidPostMlp, layer: Some(layer - 1) }
            }
            (Place::EndDictionary | Place::ResidPostMlp, layer) => {
                Point { site: Site::ResidPostMlp, layer: Some(layer) }
            }
            (_, layer) => Point { site: Site::ResidPostAttn, layer: Some(layer) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scalar_is_described() {
        for dst in Dst::ALL {
            assert!(!dimensions(*dst).is_empty(), "{dst} has no dimensions");
        }
    }

    /// Every name about a dictionary's parts is in the table; its words say which part and quantity it is.
    #[test]
    fn names_say_what_the_table_says() {
        for dst in Dst::ALL.iter().filter(|dst| dst.as_str().contains("error_node") || dst.as_str().contains("skip")) {
            assert!(dictionary::describe(*dst).is_some(), "{dst}");
        }
        for dst in Dst::ALL {
            let Some(found) = dictionary::describe(*dst) else { continue };
            let name = dst.as_str();
            let slot = match found.slot {
                Some(Slot::Mlp) => "mlp_",
                Some(Slot::Attention) => "attention_",
                Some(Slot::Residual) => "residual_autoencoder",
                None => "autoencoder_",
            };
            assert!(name.trim_start_matches("online_").starts_with(slot), "{name}: {found:?}");
            assert_eq!(name.contains("act_times_grad"), found.quantity == Quantity::ActTimesGrad, "{name}");
            assert_eq!(name.contains("final_residual"), found.quantity == Quantity::WriteToFinalResidual, "{name}");
            assert_eq!(name.contains("error"), found.part == dictionary::Part::Error, "{name}");
        }
    }
}
