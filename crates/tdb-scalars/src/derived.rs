//! What each derived scalar is about: its dimensions, its kind of node, where in a layer it stands.

use tdb_api::{DerivedScalarType as Dst, Dimension, NodeType, PassType};
use tdb_model::{BlockOrder, Point, Site, Slot};

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
        Dst::OnlineAutoencoderWrite | Dst::OnlineMlpAutoencoderWrite | Dst::OnlineAttentionAutoencoderWrite => {
            &[Tokens, Latents, Channels]
        }
        Dst::AutoencoderLatent
        | Dst::MlpAutoencoderLatent
        | Dst::AttentionAutoencoderLatent
        | Dst::AutoencoderWriteNorm
        | Dst::MlpAutoencoderWriteNorm
        | Dst::AttentionAutoencoderWriteNorm
        | Dst::OnlineAutoencoderLatent
        | Dst::OnlineMlpAutoencoderLatent
        | Dst::OnlineAttentionAutoencoderLatent
        | Dst::OnlineAutoencoderActTimesGrad
        | Dst::OnlineMlpAutoencoderActTimesGrad
        | Dst::OnlineAttentionAutoencoderActTimesGrad
        | Dst::OnlineAutoencoderWriteNorm
        | Dst::OnlineMlpAutoencoderWriteNorm
        | Dst::OnlineAttentionAutoencoderWriteNorm
        | Dst::OnlineAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineMlpAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineAttentionAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineAutoencoderWriteToFinalActivationResidualGrad
        | Dst::OnlineMlpAutoencoderWriteToFinalActivationResidualGrad
        | Dst::OnlineAttentionAutoencoderWriteToFinalActivationResidualGrad
        | Dst::FlattenedAttnWriteToLatentSummedOverHeadsBatched
        | Dst::OnlineAutoencoderOutEdgeAttribution
        | Dst::OnlineAutoencoderInEdgeAttribution
        | Dst::OnlineAutoencoderInEdgeActivation => &[Tokens, Latents],
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
        Dst::OnlineAutoencoderActTimesGrad
        | Dst::OnlineMlpAutoencoderActTimesGrad
        | Dst::OnlineAttentionAutoencoderActTimesGrad => sites.extend(Slot::ALL.map(Slot::latent)),
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
        | Dst::OnlineAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineMlpAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineAttentionAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineMlpAutoencoderErrorWriteToFinalResidualGrad
        | Dst::SingleNodeWriteToFinalResidualGrad => {
            sites.extend([Site::ResidPostEmb, Site::ResidPostAttn, Site::ResidPostMlp]);
        }
        _ => {}
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
    match dst {
        Dst::MlpAutoencoderLatent
        | Dst::MlpAutoencoderWriteNorm
        | Dst::OnlineMlpAutoencoderLatent
        | Dst::OnlineMlpAutoencoderWrite
        | Dst::OnlineMlpAutoencoderWriteNorm
        | Dst::OnlineMlpAutoencoderActTimesGrad
        | Dst::OnlineMlpAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineMlpAutoencoderWriteToFinalActivationResidualGrad => return NodeType::MlpAutoencoderLatent,
        Dst::AttentionAutoencoderLatent
        | Dst::AttentionAutoencoderWriteNorm
        | Dst::OnlineAttentionAutoencoderLatent
        | Dst::OnlineAttentionAutoencoderWrite
        | Dst::OnlineAttentionAutoencoderWriteNorm
        | Dst::OnlineAttentionAutoencoderActTimesGrad
        | Dst::OnlineAttentionAutoencoderWriteToFinalResidualGrad
        | Dst::OnlineAttentionAutoencoderWriteToFinalActivationResidualGrad => {
            return NodeType::AttentionAutoencoderLatent;
        }
        _ => {}
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

/// Places along a layer. What is written at one place reaches what reads at a later one of the same layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    EndOfPreviousLayer,
    Attn,
    ResidPostAttn,
    Mlp,
    ResidPostMlp,
}

impl Place {
    /// Where attention or MLP read the residual stream: in parallel blocks both before either has written.
    pub fn read_by(slot: Slot, order: BlockOrder) -> Self {
        match (slot, order) {
            (Slot::Mlp, BlockOrder::Sequential) => Place::ResidPostAttn,
            (Slot::Attention, _) | (Slot::Mlp, BlockOrder::Parallel) => Place::EndOfPreviousLayer,
        }
    }

    /// Where attention or MLP write to the residual stream.
    pub fn written_by(slot: Slot) -> Self {
        match slot {
            Slot::Mlp => Place::Mlp,
            Slot::Attention => Place::Attn,
        }
    }

    /// The residual stream at this place of `layer`, as a point of a pass: `[T, D]`.
    pub fn residual_point(self, layer: usize) -> Point {
        match (self, layer) {
            (Place::EndOfPreviousLayer, 0) => Point { site: Site::ResidPostEmb, layer: None },
            (Place::EndOfPreviousLayer, layer) => Point { site: Site::ResidPostMlp, layer: Some(layer - 1) },
            (Place::ResidPostMlp, layer) => Point { site: Site::ResidPostMlp, layer: Some(layer) },
            (_, layer) => Point { site: Site::ResidPostAttn, layer: Some(layer) },
        }
    }
}
