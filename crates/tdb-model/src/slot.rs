//! Where in a block an autoencoder sits.

use crate::site::Site;
use crate::weights::AutoencoderSite;

/// The two places of a block that can have an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// On the MLP layer: its neurons or its output.
    Mlp,
    /// On the output of the attention layer.
    Attention,
}

impl Slot {
    /// Both of them.
    pub const ALL: [Slot; 2] = [Slot::Mlp, Slot::Attention];

    /// The slot of an autoencoder that reads this activation.
    pub fn of(site: AutoencoderSite) -> Self {
        match site {
            AutoencoderSite::MlpPostAct | AutoencoderSite::ResidDeltaMlp => Slot::Mlp,
            AutoencoderSite::ResidDeltaAttn => Slot::Attention,
        }
    }

    /// Where its latents stand in a pass.
    pub fn latent(self) -> Site {
        match self {
            Slot::Mlp => Site::MlpLatent,
            Slot::Attention => Site::AttnLatent,
        }
    }

    /// Where its reconstruction stands in a pass.
    pub fn reconstruction(self) -> Site {
        match self {
            Slot::Mlp => Site::MlpReconstruction,
            Slot::Attention => Site::AttnReconstruction,
        }
    }

    /// Where its error stands in a pass.
    pub fn error(self) -> Site {
        match self {
            Slot::Mlp => Site::MlpError,
            Slot::Attention => Site::AttnError,
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
        }
    }
}
