//! Where along a layer something is written or read.

use tdb_model::{Autoencoder, AutoencoderSite, BlockOrder, Point, Site, Slot, Transformer};

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

    /// Where the residual stream, or what a layer adds to it, stands at a site.
    pub fn of_site(site: Site) -> Self {
        match site {
            Site::ResidDeltaAttn => Place::Attn,
            Site::ResidPostAttn => Place::ResidPostAttn,
            Site::ResidDeltaMlp => Place::Mlp,
            Site::ResidPostMlp => Place::ResidPostMlp,
            _ => Place::EndOfPreviousLayer,
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
