//! The table of derived scalars: what each is about, which quantity of it, in which shape, and what it is in the backward
//! pass. Dimensions, kinds of node, layers, needed gradients and the function that computes it follow from that.

use tdb_api::{DerivedScalarType as Dst, Dimension, NodeType, PassType};
use tdb_model::{Site, Slot};

use crate::dictionary::{error_type, latent_type};

/// What a scalar is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A tensor of the pass, as it is.
    Tensor(Site),
    /// The residual stream where the layer before ended, as it is.
    EndOfPreviousLayer,
    /// The residual stream, or what a layer adds to it: at each token one row as a whole.
    Stream(Site),
    /// The MLP's neurons.
    Neurons,
    /// The attention heads.
    Heads,
    /// Latents of a slot's dictionary; `None`: of the one dictionary that is loaded.
    Latents(Option<Slot>),
    /// What a slot's dictionary leaves over, at each token one node.
    Error(Slot),
    /// What a dictionary on the neurons leaves over of each neuron.
    NeuronErrors,
    /// What a transcoder's skip connection gives, at each token one node.
    Skip,
    /// The latent that `activationIndexForWithinLayerGrad` names.
    NamedLatent,
    /// The node that an inspection names.
    NamedNode,
    /// The tokens of the vocabulary.
    Vocabulary,
    /// The number one.
    Constant,
}

/// What is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// The value in the pass; of what is no single number its length, where it stands.
    Activation,
    /// A latent's value computed after the fact, from the activations of the pass.
    Offline,
    /// Length of the write of [`Quantity::Offline`].
    OfflineWriteNorm,
    /// What is written to the residual stream.
    Write,
    /// Its length.
    WriteNorm,
    /// Activation times gradient.
    ActTimesGrad,
    /// The write along the gradient where the objective reads the residual stream.
    WriteToFinalResidual,
    /// The write along the gradient of the traced node.
    WriteToFinalActivationResidual,
    /// A head's value, times the attention to it.
    WeightedValue,
    /// The write along the gradient of the latent that the request names.
    WriteToNamedLatent,
    /// The same for each latent of the attention layer.
    WriteToAllLatents,
    /// What is written along what the traced node reads.
    WriteToInputDirection,
    /// The gradient at the residual stream that the subject reads.
    GradientAtResidual,
    /// The gradient at the neurons.
    GradientAtNeurons,
    /// The part in the attribution of the node that an inspection names ([`crate::edges`]).
    OutEdge,
    /// How much of the attribution the named node's write brings about.
    InEdge(Through),
    /// How much of the activation it brings about.
    InEdgeActivation(Through),
}

/// What of a node a write comes in through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// All that the node reads.
    Layer,
    /// A head's query.
    Query,
    /// A head's key.
    Key,
    /// A head's value.
    Value,
}

/// Over which tokens there are values, and whether those of the units are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// For each token; of heads, over all tokens attended to.
    Tokens,
    /// For each token and each one attended to.
    Pairs,
    /// The same, of attended-to tokens up to the token itself, in one dimension.
    FlatPairs,
    /// [`Shape::Tokens`], summed over units.
    SumByToken,
    /// [`Shape::Pairs`], summed over units.
    SumByPair,
    /// [`Shape::FlatPairs`], summed over units.
    SumByFlatPair,
}

/// What `passType: "backward"` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backward {
    /// Nothing: it is refused.
    Undefined,
    /// The gradient of the scalar.
    Gradient,
    /// The value of the forward pass, as clients of the interface know it.
    AsForward,
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// What it is about.
    pub subject: Subject,
    /// What is told of it.
    pub quantity: Quantity,
    /// Over which tokens.
    pub shape: Shape,
    /// What it is in the backward pass.
    pub backward: Backward,
}

/// In which layers a scalar exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// Once for the whole model.
    WholeModel,
    /// In each layer; about a dictionary, in each that has one.
    Each,
    /// In the layer of the latent that the request names.
    OfNamedLatent,
    /// In the layer of the node that an inspection names.
    OfNamedNode,
}

const fn new(subject: Subject, quantity: Quantity, shape: Shape) -> Scalar {
    Scalar { subject, quantity, shape, backward: Backward::Undefined }
}

const fn tensor(site: Site) -> Scalar {
    new(Subject::Tensor(site), Quantity::Activation, Shape::Tokens).with(Backward::Gradient)
}

const fn stream(site: Site, quantity: Quantity) -> Scalar {
    new(Subject::Stream(site), quantity, Shape::Tokens)
}

const fn by_token(subject: Subject, quantity: Quantity) -> Scalar {
    new(subject, quantity, Shape::Tokens)
}

/// The table.
pub const fn describe(dst: Dst) -> Scalar {
    use Backward::{AsForward, Gradient};
    use Quantity::{
        ActTimesGrad, Activation, GradientAtNeurons, GradientAtResidual, InEdge, InEdgeActivation, Offline,
        OfflineWriteNorm, OutEdge, WeightedValue, Write, WriteNorm, WriteToAllLatents, WriteToFinalActivationResidual,
        WriteToFinalResidual, WriteToInputDirection, WriteToNamedLatent,
    };
    use Shape::{FlatPairs, Pairs, SumByFlatPair, SumByPair, SumByToken, Tokens};
    use Subject::{
        Constant, EndOfPreviousLayer, Error, Heads, Latents, NamedLatent, NamedNode, NeuronErrors, Neurons, Skip,
        Vocabulary,
    };
    use Through::{Key, Layer, Query, Value};
    const MLP: Slot = Slot::Mlp;
    const ATTENTION: Slot = Slot::Attention;
    const RESIDUAL: Slot = Slot::Residual;
    match dst {
        Dst::Logits => tensor(Site::Logits),
        Dst::ResidPostEmbedding => tensor(Site::ResidPostEmb),
        Dst::MlpPreAct => tensor(Site::MlpPreAct),
        Dst::MlpPostAct => tensor(Site::MlpPostAct),
        Dst::ResidDeltaMlp => tensor(Site::ResidDeltaMlp),
        Dst::ResidPostMlp => tensor(Site::ResidPostMlp),
        Dst::AttnQuery => tensor(Site::AttnQ),
        Dst::AttnKey => tensor(Site::AttnK),
        Dst::AttnValue => tensor(Site::AttnV),
        Dst::AttnQkLogits => tensor(Site::AttnQkLogits),
        Dst::AttnQkProbs => tensor(Site::AttnQkProbs),
        Dst::AttnWeightedSumOfValues => tensor(Site::AttnVOut),
        Dst::ResidDeltaAttn => tensor(Site::ResidDeltaAttn),
        Dst::ResidPostAttn => tensor(Site::ResidPostAttn),
        Dst::ResidFinalLayerNormScale => tensor(Site::FinalLnScale),
        Dst::AttnInputLayerNormScale => tensor(Site::AttnLnScale),
        Dst::MlpInputLayerNormScale => tensor(Site::MlpLnScale),
        Dst::PreviousLayerResidPostMlp => by_token(EndOfPreviousLayer, Activation).with(Gradient),
        Dst::AlwaysOne => by_token(Constant, Activation).with(Gradient),
        Dst::VocabTokenWriteToInputDirection => by_token(Vocabulary, WriteToInputDirection),
        Dst::ResidPostEmbeddingNorm => stream(Site::ResidPostEmb, WriteNorm),
        Dst::ResidPostMlpNorm => stream(Site::ResidPostMlp, WriteNorm),
        Dst::MlpLayerWriteNorm => stream(Site::ResidDeltaMlp, WriteNorm),
        Dst::ResidPostAttnNorm => stream(Site::ResidPostAttn, WriteNorm),
        Dst::AttnLayerWriteNorm => stream(Site::ResidDeltaAttn, WriteNorm),
        Dst::ResidPostEmbeddingProjToFinalResidualGrad => stream(Site::ResidPostEmb, WriteToFinalResidual),
        Dst::ResidPostMlpProjToFinalResidualGrad => stream(Site::ResidPostMlp, WriteToFinalResidual),
        Dst::MlpLayerWriteToFinalResidualGrad => stream(Site::ResidDeltaMlp, WriteToFinalResidual),
        Dst::ResidPostAttnProjToFinalResidualGrad => stream(Site::ResidPostAttn, WriteToFinalResidual),
        Dst::AttnLayerWriteToFinalResidualGrad => stream(Site::ResidDeltaAttn, WriteToFinalResidual),
        Dst::ResidPostEmbeddingProjToFinalActivationResidualGrad => {
            stream(Site::ResidPostEmb, WriteToFinalActivationResidual)
        }
        Dst::TokenAttribution => stream(Site::ResidPostEmb, ActTimesGrad),
        Dst::TokenOutEdgeAttribution => stream(Site::ResidPostEmb, OutEdge),
        Dst::ResidDeltaMlpFromMlpPostAct => new(Neurons, Write, SumByToken),
        Dst::MlpWriteNorm => by_token(Neurons, WriteNorm),
        Dst::MlpActTimesGrad => by_token(Neurons, ActTimesGrad),
        Dst::MlpWriteToFinalResidualGrad => by_token(Neurons, WriteToFinalResidual),
        Dst::MlpWrite => by_token(Neurons, Write),
        Dst::MlpWriteToFinalActivationResidualGrad => by_token(Neurons, WriteToFinalActivationResidual),
        Dst::MlpOutEdgeAttribution => by_token(Neurons, OutEdge),
        Dst::MlpInEdgeAttribution => by_token(Neurons, InEdge(Layer)),
        Dst::MlpInEdgeActivation => by_token(Neurons, InEdgeActivation(Layer)),
        Dst::AttnWriteNorm => new(Heads, WriteNorm, FlatPairs).with(AsForward),
        Dst::FlattenedAttnPostSoftmax => new(Heads, Activation, FlatPairs).with(AsForward),
        Dst::AttnActTimesGrad => new(Heads, ActTimesGrad, FlatPairs),
        Dst::AttnWriteNormPerSequenceToken => new(Heads, WriteNorm, Tokens),
        Dst::AttnWriteToFinalResidualGradPerSequenceToken => new(Heads, WriteToFinalResidual, Tokens),
        Dst::AttnActTimesGradPerSequenceToken => new(Heads, ActTimesGrad, Tokens),
        Dst::UnflattenedAttnActTimesGrad => new(Heads, ActTimesGrad, Pairs),
        Dst::UnflattenedAttnWriteNorm => new(Heads, WriteNorm, Pairs).with(Gradient),
        Dst::UnflattenedAttnWriteToFinalResidualGrad => new(Heads, WriteToFinalResidual, Pairs),
        Dst::AttnWriteToFinalResidualGrad => new(Heads, WriteToFinalResidual, FlatPairs).with(AsForward),
        Dst::AttnWrite => new(Heads, Write, Pairs),
        Dst::AttnWriteSumHeads => new(Heads, Write, SumByPair),
        Dst::AttnWeightedValue => new(Heads, WeightedValue, Pairs),
        Dst::UnflattenedAttnWriteToFinalActivationResidualGrad => new(Heads, WriteToFinalActivationResidual, Pairs),
        Dst::AttnWriteToLatent => new(Heads, WriteToNamedLatent, Pairs),
        Dst::AttnWriteToLatentSummedOverHeads => new(Heads, WriteToNamedLatent, SumByPair),
        Dst::FlattenedAttnWriteToLatentSummedOverHeads => new(Heads, WriteToNamedLatent, SumByFlatPair),
        Dst::FlattenedAttnWriteToLatentSummedOverHeadsBatched => new(Heads, WriteToAllLatents, SumByFlatPair),
        Dst::AttnWriteToLatentPerSequenceToken => new(Heads, WriteToNamedLatent, Tokens),
        Dst::AttnWriteToLatentPerSequenceTokenBatched => new(Heads, WriteToAllLatents, Tokens),
        Dst::AttnOutEdgeAttribution => new(Heads, OutEdge, Pairs),
        Dst::AttnQueryInEdgeAttribution => new(Heads, InEdge(Query), Pairs),
        Dst::AttnKeyInEdgeAttribution => new(Heads, InEdge(Key), Pairs),
        Dst::AttnValueInEdgeAttribution => new(Heads, InEdge(Value), Pairs),
        Dst::AttnQueryInEdgeActivation => new(Heads, InEdgeActivation(Query), Pairs),
        Dst::AttnKeyInEdgeActivation => new(Heads, InEdgeActivation(Key), Pairs),
        Dst::OnlineMlpAutoencoderError => by_token(NeuronErrors, Activation),
        Dst::OnlineMlpAutoencoderErrorActTimesGrad => by_token(NeuronErrors, ActTimesGrad).with(AsForward),
        Dst::OnlineMlpAutoencoderErrorWriteNorm => by_token(NeuronErrors, WriteNorm),
        Dst::OnlineMlpAutoencoderErrorWriteToFinalResidualGrad => by_token(NeuronErrors, WriteToFinalResidual),
        Dst::OnlineAutoencoderLatent => by_token(Latents(None), Activation),
        Dst::AutoencoderLatent => by_token(Latents(None), Offline),
        Dst::AutoencoderWriteNorm => by_token(Latents(None), OfflineWriteNorm),
        Dst::OnlineAutoencoderActTimesGrad => by_token(Latents(None), ActTimesGrad).with(AsForward),
        Dst::OnlineAutoencoderWriteNorm => by_token(Latents(None), WriteNorm),
        Dst::OnlineAutoencoderWriteToFinalResidualGrad => by_token(Latents(None), WriteToFinalResidual),
        Dst::OnlineAutoencoderWrite => by_token(Latents(None), Write),
        Dst::OnlineAutoencoderWriteToFinalActivationResidualGrad => {
            by_token(Latents(None), WriteToFinalActivationResidual)
        }
        Dst::OnlineAutoencoderOutEdgeAttribution => by_token(Latents(None), OutEdge),
        Dst::OnlineAutoencoderInEdgeAttribution => by_token(Latents(None), InEdge(Layer)),
        Dst::OnlineAutoencoderInEdgeActivation => by_token(Latents(None), InEdgeActivation(Layer)),
        Dst::MlpAutoencoderLatent => by_token(Latents(Some(MLP)), Offline),
        Dst::MlpAutoencoderWriteNorm => by_token(Latents(Some(MLP)), OfflineWriteNorm),
        Dst::OnlineMlpAutoencoderLatent => by_token(Latents(Some(MLP)), Activation),
        Dst::OnlineMlpAutoencoderWrite => by_token(Latents(Some(MLP)), Write),
        Dst::OnlineMlpAutoencoderWriteNorm => by_token(Latents(Some(MLP)), WriteNorm),
        Dst::OnlineMlpAutoencoderActTimesGrad => by_token(Latents(Some(MLP)), ActTimesGrad).with(AsForward),
        Dst::OnlineMlpAutoencoderWriteToFinalResidualGrad => by_token(Latents(Some(MLP)), WriteToFinalResidual),
        Dst::OnlineMlpAutoencoderWriteToFinalActivationResidualGrad => {
            by_token(Latents(Some(MLP)), WriteToFinalActivationResidual)
        }
        Dst::AttentionAutoencoderLatent => by_token(Latents(Some(ATTENTION)), Offline),
        Dst::AttentionAutoencoderWriteNorm => by_token(Latents(Some(ATTENTION)), OfflineWriteNorm),
        Dst::OnlineAttentionAutoencoderLatent => by_token(Latents(Some(ATTENTION)), Activation),
        Dst::OnlineAttentionAutoencoderWrite => by_token(Latents(Some(ATTENTION)), Write),
        Dst::OnlineAttentionAutoencoderWriteNorm => by_token(Latents(Some(ATTENTION)), WriteNorm),
        Dst::OnlineAttentionAutoencoderActTimesGrad => by_token(Latents(Some(ATTENTION)), ActTimesGrad).with(AsForward),
        Dst::OnlineAttentionAutoencoderWriteToFinalResidualGrad => {
            by_token(Latents(Some(ATTENTION)), WriteToFinalResidual)
        }
        Dst::OnlineAttentionAutoencoderWriteToFinalActivationResidualGrad => {
            by_token(Latents(Some(ATTENTION)), WriteToFinalActivationResidual)
        }
        Dst::ResidualAutoencoderLatent => by_token(Latents(Some(RESIDUAL)), Offline),
        Dst::ResidualAutoencoderWriteNorm => by_token(Latents(Some(RESIDUAL)), OfflineWriteNorm),
        Dst::OnlineResidualAutoencoderLatent => by_token(Latents(Some(RESIDUAL)), Activation),
        Dst::OnlineResidualAutoencoderWrite => by_token(Latents(Some(RESIDUAL)), Write),
        Dst::OnlineResidualAutoencoderWriteNorm => by_token(Latents(Some(RESIDUAL)), WriteNorm),
        Dst::OnlineResidualAutoencoderActTimesGrad => by_token(Latents(Some(RESIDUAL)), ActTimesGrad).with(AsForward),
        Dst::OnlineResidualAutoencoderWriteToFinalResidualGrad => {
            by_token(Latents(Some(RESIDUAL)), WriteToFinalResidual)
        }
        Dst::OnlineResidualAutoencoderWriteToFinalActivationResidualGrad => {
            by_token(Latents(Some(RESIDUAL)), WriteToFinalActivationResidual)
        }
        Dst::OnlineResidualMlpAutoencoderError => by_token(Error(MLP), Write),
        Dst::MlpAutoencoderErrorNodeNorm => by_token(Error(MLP), Activation),
        Dst::MlpAutoencoderErrorNodeWriteNorm => by_token(Error(MLP), WriteNorm),
        Dst::MlpAutoencoderErrorNodeActTimesGrad => by_token(Error(MLP), ActTimesGrad).with(AsForward),
        Dst::MlpAutoencoderErrorNodeWriteToFinalResidualGrad => by_token(Error(MLP), WriteToFinalResidual),
        Dst::OnlineResidualAttentionAutoencoderError => by_token(Error(ATTENTION), Write),
        Dst::AttentionAutoencoderErrorNodeNorm => by_token(Error(ATTENTION), Activation),
        Dst::AttentionAutoencoderErrorNodeWriteNorm => by_token(Error(ATTENTION), WriteNorm),
        Dst::AttentionAutoencoderErrorNodeActTimesGrad => by_token(Error(ATTENTION), ActTimesGrad).with(AsForward),
        Dst::AttentionAutoencoderErrorNodeWriteToFinalResidualGrad => by_token(Error(ATTENTION), WriteToFinalResidual),
        Dst::OnlineResidualAutoencoderError => by_token(Error(RESIDUAL), Write),
        Dst::ResidualAutoencoderErrorNodeNorm => by_token(Error(RESIDUAL), Activation),
        Dst::ResidualAutoencoderErrorNodeWriteNorm => by_token(Error(RESIDUAL), WriteNorm),
        Dst::ResidualAutoencoderErrorNodeActTimesGrad => by_token(Error(RESIDUAL), ActTimesGrad).with(AsForward),
        Dst::ResidualAutoencoderErrorNodeWriteToFinalResidualGrad => by_token(Error(RESIDUAL), WriteToFinalResidual),
        Dst::MlpTranscoderSkipNorm => by_token(Skip, Activation),
        Dst::MlpTranscoderSkipWriteNorm => by_token(Skip, WriteNorm),
        Dst::MlpTranscoderSkipActTimesGrad => by_token(Skip, ActTimesGrad).with(AsForward),
        Dst::MlpTranscoderSkipWriteToFinalResidualGrad => by_token(Skip, WriteToFinalResidual),
        Dst::AutoencoderLatentGradWrtResidualInput => by_token(NamedLatent, GradientAtResidual),
        Dst::AutoencoderLatentGradWrtMlpPostActInput => by_token(NamedLatent, GradientAtNeurons),
        Dst::SingleNodeWrite => by_token(NamedNode, Write),
        Dst::GradOfSingleSubnodeAttribution => by_token(NamedNode, GradientAtResidual),
        Dst::SingleNodeWriteToFinalResidualGrad => by_token(NamedNode, WriteToFinalResidual),
    }
}

/// The scalar by token that tells this quantity of this subject.
pub fn find(subject: Subject, quantity: Quantity) -> Option<Dst> {
    let is = |found: Scalar| (found.subject, found.quantity, found.shape) == (subject, quantity, Shape::Tokens);
    Dst::ALL.iter().copied().find(|dst| is(describe(*dst)))
}

impl Scalar {
    const fn with(self, backward: Backward) -> Self {
        Scalar { backward, ..self }
    }

    /// In which layers it exists.
    pub fn layers(self) -> Layers {
        match (self.subject, self.quantity) {
            (Subject::Tensor(site) | Subject::Stream(site), _) if !site.has_layers() => Layers::WholeModel,
            (Subject::Vocabulary | Subject::Constant, _) => Layers::WholeModel,
            (Subject::NamedNode, _) => Layers::OfNamedNode,
            (_, Quantity::WriteToNamedLatent) => Layers::OfNamedLatent,
            _ => Layers::Each,
        }
    }

    /// Dimensions, per layer. For pairs of tokens in flattened form the first one counts pairs.
    pub fn dimensions(self) -> Vec<Dimension> {
        if let Subject::Tensor(site) = self.subject {
            return dimensions_at(site);
        }
        let mut out = vec![Dimension::SequenceTokens];
        let (is_by_pair, is_sum) = match self.shape {
            Shape::Tokens | Shape::FlatPairs => (false, false),
            Shape::Pairs => (true, false),
            Shape::SumByToken | Shape::SumByFlatPair => (false, true),
            Shape::SumByPair => (true, true),
        };
        out.extend(is_by_pair.then_some(Dimension::AttendedToSequenceTokens));
        out.extend(self.subject.units().filter(|_| !is_sum));
        out.extend(match self.quantity {
            Quantity::Write | Quantity::GradientAtResidual => Some(Dimension::ResidualStreamChannels),
            Quantity::GradientAtNeurons => Some(Dimension::MlpActs),
            Quantity::WeightedValue => Some(Dimension::ValueChannels),
            Quantity::WriteToAllLatents => Some(Dimension::AutoencoderLatents),
            _ => None,
        });
        if out.len() == 1 + usize::from(is_by_pair) {
            out.push(Dimension::Singleton);
        }
        out
    }

    /// The kind of node that its last index counts.
    pub fn node_type(self) -> NodeType {
        match self.subject {
            Subject::Latents(Some(slot)) => return latent_type(slot),
            Subject::Error(slot) if self.quantity != Quantity::Write => return error_type(slot),
            Subject::Skip => return NodeType::MlpTranscoderSkip,
            _ => {}
        }
        match self.dimensions().last() {
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

    /// Sites whose gradients it reads; none if it needs no backward pass. What is about an edge is only computed in
    /// inspections, which keep all gradients.
    pub fn gradient_sites(self, pass: PassType) -> Vec<Site> {
        let of_itself = pass == PassType::Backward && self.backward == Backward::Gradient;
        match self.quantity {
            // Where the objective reads the residual stream depends on the request.
            Quantity::WriteToFinalResidual => {
                vec![Site::ResidPostEmb, Site::ResidPostAttn, Site::ResidPostMlp, Site::ResidLatentInput]
            }
            _ if of_itself || self.quantity == Quantity::ActTimesGrad => self.subject.sites(),
            _ => Vec::new(),
        }
    }
}

impl Subject {
    /// What its nodes at one token, or at one pair of tokens, are counted by.
    fn units(self) -> Option<Dimension> {
        match self {
            Subject::Neurons | Subject::NeuronErrors => Some(Dimension::MlpActs),
            Subject::Heads => Some(Dimension::AttnHeads),
            Subject::Latents(_) => Some(Dimension::AutoencoderLatents),
            Subject::Vocabulary => Some(Dimension::VocabSize),
            Subject::EndOfPreviousLayer => Some(Dimension::ResidualStreamChannels),
            Subject::Tensor(_)
            | Subject::Stream(_)
            | Subject::Error(_)
            | Subject::Skip
            | Subject::NamedLatent
            | Subject::NamedNode
            | Subject::Constant => None,
        }
    }

    /// Where it stands in a pass, so far as it has a gradient there.
    fn sites(self) -> Vec<Site> {
        match self {
            Subject::Tensor(site) | Subject::Stream(site) => vec![site],
            Subject::EndOfPreviousLayer => vec![Site::ResidPostEmb, Site::ResidPostMlp],
            Subject::Neurons => vec![Site::MlpPostAct],
            Subject::Heads => vec![Site::AttnQkProbs],
            Subject::Latents(Some(slot)) => vec![slot.latent()],
            Subject::Latents(None) => Slot::ALL.map(Slot::latent).to_vec(),
            Subject::Error(slot) => vec![slot.error()],
            Subject::NeuronErrors => vec![Slot::Mlp.error()],
            Subject::Skip => vec![Slot::Mlp.reconstruction()],
            Subject::NamedLatent | Subject::NamedNode | Subject::Vocabulary | Subject::Constant => Vec::new(),
        }
    }
}

fn dimensions_at(site: Site) -> Vec<Dimension> {
    use Dimension::{
        AttendedToSequenceTokens as Keys, AttnHeads as Heads, MlpActs, QueryAndKeyChannels as QkChannels,
        ResidualStreamChannels as Channels, SequenceTokens as Tokens, Singleton, ValueChannels, VocabSize,
    };
    match site {
        Site::Logits => vec![Tokens, VocabSize],
        Site::MlpPreAct | Site::MlpPostAct => vec![Tokens, MlpActs],
        Site::AttnQ => vec![Tokens, Heads, QkChannels],
        Site::AttnK => vec![Keys, Heads, QkChannels],
        Site::AttnV => vec![Keys, Heads, ValueChannels],
        Site::AttnVOut => vec![Tokens, Heads, ValueChannels],
        Site::AttnQkLogits | Site::AttnQkProbs => vec![Tokens, Keys, Heads],
        Site::FinalLnScale | Site::AttnLnScale | Site::MlpLnScale => vec![Tokens, Singleton],
        _ => vec![Tokens, Channels],
    }
}

/// See [`Scalar::dimensions`].
pub fn dimensions(dst: Dst) -> Vec<Dimension> {
    describe(dst).dimensions()
}

/// Whether there is one such tensor for the whole model rather than one per layer.
pub fn is_whole_model(dst: Dst) -> bool {
    describe(dst).layers() == Layers::WholeModel
}

/// Whether it is about the one latent of one layer that the request names.
pub fn is_within_layer(dst: Dst) -> bool {
    describe(dst).layers() == Layers::OfNamedLatent
}

/// Whether the first dimension counts pairs of tokens, row by row of the lower triangle, rather than tokens.
pub fn is_flattened(dst: Dst) -> bool {
    matches!(describe(dst).shape, Shape::FlatPairs | Shape::SumByFlatPair)
}

/// See [`Scalar::node_type`].
pub fn node_type(dst: Dst) -> NodeType {
    describe(dst).node_type()
}

/// See [`Scalar::gradient_sites`].
pub fn gradient_sites(dst: Dst, pass: PassType) -> Vec<Site> {
    describe(dst).gradient_sites(pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two scalars of one description would be one scalar of two names.
    #[test]
    fn no_two_scalars_are_the_same() {
        for (i, dst) in Dst::ALL.iter().enumerate() {
            let earlier = Dst::ALL[..i].iter().find(|other| describe(**other) == describe(*dst));
            assert_eq!(earlier, None, "{dst}");
        }
    }

    #[test]
    fn names_say_what_the_table_says() {
        for dst in Dst::ALL {
            let (name, found) = (dst.as_str(), describe(*dst));
            let slot = match found.subject {
                Subject::Latents(slot) => slot,
                Subject::Error(slot) if found.quantity != Quantity::Write => Some(slot),
                Subject::Skip => Some(Slot::Mlp),
                _ => {
                    assert!(!name.contains("error_node") && !name.contains("skip"), "{name}: {found:?}");
                    continue;
                }
            };
            let slot = match slot {
                Some(Slot::Mlp) => "mlp_",
                Some(Slot::Attention) => "attention_",
                Some(Slot::Residual) => "residual_autoencoder",
                None => "autoencoder_",
            };
            assert!(name.trim_start_matches("online_").starts_with(slot), "{name}: {found:?}");
            assert_eq!(name.contains("act_times_grad"), found.quantity == Quantity::ActTimesGrad, "{name}");
            assert_eq!(name.contains("final_residual"), found.quantity == Quantity::WriteToFinalResidual, "{name}");
            assert_eq!(name.contains("error"), matches!(found.subject, Subject::Error(_)), "{name}");
        }
    }
}
