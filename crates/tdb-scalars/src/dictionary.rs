//! What each scalar about a dictionary (an autoencoder or a transcoder) says: of which part, and which quantity.
//!
//! A new kind of dictionary adds lines to [`describe`]; dimensions, node types, gradients and computation follow from
//! these.

use tdb_api::{DerivedScalarType as Dst, Dimension, NodeType};
use tdb_model::{Site, Slot};

use Dimension::{
    AutoencoderLatents as Latents, ResidualStreamChannels as Channels, SequenceTokens as Tokens, Singleton,
};

/// What a dictionary makes of an activation, each at every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Each latent.
    Latents,
    /// What the latents leave over, as one node.
    Error,
    /// What a transcoder's skip connection gives, as one node.
    Skip,
}

/// What is told of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A latent's value in the pass; the length of an error or of what is skipped, where the dictionary stands.
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
}

/// One scalar about a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DictionaryScalar {
    /// `None`: of the one dictionary that is loaded.
    pub slot: Option<Slot>,
    pub part: Part,
    pub quantity: Quantity,
}

/// `None` if `dst` is not about a dictionary's latents, its error or its skip connection as nodes.
pub fn describe(dst: Dst) -> Option<DictionaryScalar> {
    use Quantity::{
        ActTimesGrad, Activation, Offline, OfflineWriteNorm, Write, WriteNorm, WriteToFinalActivationResidual,
        WriteToFinalResidual,
    };
    const MLP: Option<Slot> = Some(Slot::Mlp);
    const ATTENTION: Option<Slot> = Some(Slot::Attention);
    const RESIDUAL: Option<Slot> = Some(Slot::Residual);
    let (slot, part, quantity) = match dst {
        Dst::AutoencoderLatent => (None, Part::Latents, Offline),
        Dst::AutoencoderWriteNorm => (None, Part::Latents, OfflineWriteNorm),
        Dst::OnlineAutoencoderLatent => (None, Part::Latents, Activation),
        Dst::OnlineAutoencoderWrite => (None, Part::Latents, Write),
        Dst::OnlineAutoencoderWriteNorm => (None, Part::Latents, WriteNorm),
        Dst::OnlineAutoencoderActTimesGrad => (None, Part::Latents, ActTimesGrad),
        Dst::OnlineAutoencoderWriteToFinalResidualGrad => (None, Part::Latents, WriteToFinalResidual),
        Dst::OnlineAutoencoderWriteToFinalActivationResidualGrad => {
            (None, Part::Latents, WriteToFinalActivationResidual)
        }
        Dst::MlpAutoencoderLatent => (MLP, Part::Latents, Offline),
        Dst::MlpAutoencoderWriteNorm => (MLP, Part::Latents, OfflineWriteNorm),
        Dst::OnlineMlpAutoencoderLatent => (MLP, Part::Latents, Activation),
        Dst::OnlineMlpAutoencoderWrite => (MLP, Part::Latents, Write),
        Dst::OnlineMlpAutoencoderWriteNorm => (MLP, Part::Latents, WriteNorm),
        Dst::OnlineMlpAutoencoderActTimesGrad => (MLP, Part::Latents, ActTimesGrad),
        Dst::OnlineMlpAutoencoderWriteToFinalResidualGrad => (MLP, Part::Latents, WriteToFinalResidual),
        Dst::OnlineMlpAutoencoderWriteToFinalActivationResidualGrad => {
            (MLP, Part::Latents, WriteToFinalActivationResidual)
        }
        Dst::AttentionAutoencoderLatent => (ATTENTION, Part::Latents, Offline),
        Dst::AttentionAutoencoderWriteNorm => (ATTENTION, Part::Latents, OfflineWriteNorm),
        Dst::OnlineAttentionAutoencoderLatent => (ATTENTION, Part::Latents, Activation),
        Dst::OnlineAttentionAutoencoderWrite => (ATTENTION, Part::Latents, Write),
        Dst::OnlineAttentionAutoencoderWriteNorm => (ATTENTION, Part::Latents, WriteNorm),
        Dst::OnlineAttentionAutoencoderActTimesGrad => (ATTENTION, Part::Latents, ActTimesGrad),
        Dst::OnlineAttentionAutoencoderWriteToFinalResidualGrad => (ATTENTION, Part::Latents, WriteToFinalResidual),
        Dst::OnlineAttentionAutoencoderWriteToFinalActivationResidualGrad => {
            (ATTENTION, Part::Latents, WriteToFinalActivationResidual)
        }
        Dst::ResidualAutoencoderLatent => (RESIDUAL, Part::Latents, Offline),
        Dst::ResidualAutoencoderWriteNorm => (RESIDUAL, Part::Latents, OfflineWriteNorm),
        Dst::OnlineResidualAutoencoderLatent => (RESIDUAL, Part::Latents, Activation),
        Dst::OnlineResidualAutoencoderWrite => (RESIDUAL, Part::Latents, Write),
        Dst::OnlineResidualAutoencoderWriteNorm => (RESIDUAL, Part::Latents, WriteNorm),
        Dst::OnlineResidualAutoencoderActTimesGrad => (RESIDUAL, Part::Latents, ActTimesGrad),
        Dst::OnlineResidualAutoencoderWriteToFinalResidualGrad => (RESIDUAL, Part::Latents, WriteToFinalResidual),
        Dst::OnlineResidualAutoencoderWriteToFinalActivationResidualGrad => {
            (RESIDUAL, Part::Latents, WriteToFinalActivationResidual)
        }
        Dst::MlpAutoencoderErrorNodeNorm => (MLP, Part::Error, Activation),
        Dst::MlpAutoencoderErrorNodeWriteNorm => (MLP, Part::Error, WriteNorm),
        Dst::MlpAutoencoderErrorNodeActTimesGrad => (MLP, Part::Error, ActTimesGrad),
        Dst::MlpAutoencoderErrorNodeWriteToFinalResidualGrad => (MLP, Part::Error, WriteToFinalResidual),
        Dst::AttentionAutoencoderErrorNodeNorm => (ATTENTION, Part::Error, Activation),
        Dst::AttentionAutoencoderErrorNodeWriteNorm => (ATTENTION, Part::Error, WriteNorm),
        Dst::AttentionAutoencoderErrorNodeActTimesGrad => (ATTENTION, Part::Error, ActTimesGrad),
        Dst::AttentionAutoencoderErrorNodeWriteToFinalResidualGrad => (ATTENTION, Part::Error, WriteToFinalResidual),
        Dst::ResidualAutoencoderErrorNodeNorm => (RESIDUAL, Part::Error, Activation),
        Dst::ResidualAutoencoderErrorNodeWriteNorm => (RESIDUAL, Part::Error, WriteNorm),
        Dst::ResidualAutoencoderErrorNodeActTimesGrad => (RESIDUAL, Part::Error, ActTimesGrad),
        Dst::ResidualAutoencoderErrorNodeWriteToFinalResidualGrad => (RESIDUAL, Part::Error, WriteToFinalResidual),
        Dst::MlpTranscoderSkipNorm => (MLP, Part::Skip, Activation),
        Dst::MlpTranscoderSkipWriteNorm => (MLP, Part::Skip, WriteNorm),
        Dst::MlpTranscoderSkipActTimesGrad => (MLP, Part::Skip, ActTimesGrad),
        Dst::MlpTranscoderSkipWriteToFinalResidualGrad => (MLP, Part::Skip, WriteToFinalResidual),
        _ => return None,
    };
    Some(DictionaryScalar { slot, part, quantity })
}

impl DictionaryScalar {
    /// Per layer.
    pub fn dimensions(self) -> &'static [Dimension] {
        match (self.part, self.quantity) {
            (Part::Latents, Quantity::Write) => &[Tokens, Latents, Channels],
            (Part::Latents, _) => &[Tokens, Latents],
            (Part::Error | Part::Skip, _) => &[Tokens, Singleton],
        }
    }

    /// The kind of node that it is about.
    pub fn node_type(self) -> NodeType {
        match (self.part, self.slot) {
            (Part::Latents, None) if self.quantity == Quantity::Write => NodeType::ResidualStreamChannel,
            (Part::Latents, None) => NodeType::AutoencoderLatent,
            (Part::Latents, Some(slot)) => latent_type(slot),
            (Part::Error, slot) => error_type(slot.unwrap_or(Slot::Mlp)),
            (Part::Skip, _) => NodeType::MlpTranscoderSkip,
        }
    }

    /// The sites whose gradients it reads, but for those of the final residual stream.
    pub fn gradient_sites(self) -> Vec<Site> {
        let of = |slot: Slot| match self.part {
            Part::Latents => slot.latent(),
            Part::Error => slot.error(),
            Part::Skip => slot.reconstruction(),
        };
        match (self.quantity, self.slot) {
            (Quantity::ActTimesGrad, Some(slot)) => vec![of(slot)],
            (Quantity::ActTimesGrad, None) => Slot::ALL.map(of).to_vec(),
            _ => Vec::new(),
        }
    }
}

/// The type of a slot's latents as nodes.
pub fn latent_type(slot: Slot) -> NodeType {
    match slot {
        Slot::Mlp => NodeType::MlpAutoencoderLatent,
        Slot::Attention => NodeType::AttentionAutoencoderLatent,
        Slot::Residual => NodeType::ResidualAutoencoderLatent,
    }
}

/// The type of what a slot's dictionary leaves over, as a node.
pub fn error_type(slot: Slot) -> NodeType {
    match slot {
        Slot::Mlp => NodeType::MlpAutoencoderError,
        Slot::Attention => NodeType::AttentionAutoencoderError,
        Slot::Residual => NodeType::ResidualAutoencoderError,
    }
}

/// The slot whose error nodes of this type are.
pub fn slot_of_error(node_type: NodeType) -> Option<Slot> {
    Slot::ALL.into_iter().find(|slot| error_type(*slot) == node_type)
}
