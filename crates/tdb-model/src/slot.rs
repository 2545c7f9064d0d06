//! Where in a block a dictionary stands.

use crate::site::Site;
use crate::weights::AutoencoderSite;

/// The places of a block that can have a dictionary each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// On the MLP layer: its input, its neurons, its output, or from its input to its output.
    Mlp,
    /// On the attention layer: its heads' outputs or its output.
    Attention,
    /// On the residual stream before, in the middle of, or after a layer.
    Residual,
}

impl Slot {
    /// All of them.
    pub const ALL: [Slot; 3] = [Slot::Mlp, Slot::Attention, Slot::Residual];

    /// The slot of a dictionary at this site.
    pub fn of(site: AutoencoderSite) -> Self {
        match site {
            AutoencoderSite::MlpIn
            | AutoencoderSite::MlpPostAct
            | AutoencoderSite::ResidDeltaMlp
            | AutoencoderSite::MlpTranscoder
            | AutoencoderSite::MlpTranscoderOfNormalized => Slot::Mlp,
            AutoencoderSite::AttnVOut | AutoencoderSite::ResidDeltaAttn => Slot::Attention,
            AutoencoderSite::ResidPre | AutoencoderSite::ResidPostAttn | AutoencoderSite::ResidPostMlp => {
                Slot::Residual
            }
        }
    }

    /// Where its latents stand in a pass.
    pub fn latent(self) -> Site {
        match self {
            Slot::Mlp => Site::MlpLatent,
            Slot::Attention => Site::AttnLatent,
            Slot::Residual => Site::ResidLatent,
        }
    }

    /// Where its reconstruction stands in a pass.
    pub fn reconstruction(self) -> Site {
        match self {
            Slot::Mlp => Site::MlpReconstruction,
            Slot::Attention => Site::AttnReconstruction,
            Slot::Residual => Site::ResidReconstruction,
        }
    }

    /// Where its error stands in a pass.
    pub fn error(self) -> Site {
        match self {
            Slot::Mlp => Site::MlpError,
            Slot::Attention => Site::AttnError,
            Slot::Residual => Site::ResidError,
        }
    }

    /// The slot whose latents, reconstruction or error stand at a site.
    pub fn at(site: Site) -> Option<Self> {
        Slot::ALL.into_iter().find(|slot| [slot.latent(), slot.reconstruction(), slot.error()].contains(&site))
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Slot::Mlp => 0,
            Slot::Attention => 1,
            Slot::Residual => 2,
        }
    }
}
