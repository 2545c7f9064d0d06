//! Activations that are taken from elsewhere: from another run, or all the same number.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::intervention::{Index, fit, ranges, set_entries};
use crate::numbers::Numbers;
use crate::run::Run;
use crate::site::{Pass, Point, Site};
use crate::slot::Slot;
use crate::tap::Hooks;
use crate::transformer::Transformer;

/// "Set these entries of an activation to these numbers, in the forward pass."
///
/// Everything later is computed from them. At a point interventions act before patches; of several patches that set the
/// same entry the last wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// Every site but [`Site::Logits`]; the layer is given exactly if the site has layers.
    pub point: Point,
    /// One entry per dimension of the site.
    pub indices: Vec<Index>,
    /// What they are set to.
    pub values: Values,
}

/// The numbers of a patch.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// The same for all entries.
    Same(f32),
    /// One for each entry meant, in row-major order.
    Each(Arc<[f32]>),
}

impl Values {
    /// What stands at these entries of a run.
    ///
    /// # Errors
    /// If the run has no such entries.
    pub fn of(run: &Run, point: Point, indices: &[Index]) -> Result<Self> {
        let dims = run.model().site_dims(point.site, run.tokens().len());
        if !dims.is_some_and(|dims| fit(indices, &dims)) {
            return Err(Error::input(format!(
                "a run of {} tokens has no {indices:?} of {point:?}",
                run.tokens().len()
            )));
        }
        // A latent is read where it is: all of them together may be very many.
        if let (Some(slot), Some(layer), &[Index::At(token), Index::At(latent)]) =
            (Slot::at(point.site), point.layer, indices)
            && point.site == slot.latent()
            && let Some(state) = run.latents(slot, layer)
        {
            return Ok(Values::Each([state.latents.get(token, latent)].into()));
        }
        let mut tensor = run.get(point.site, point.layer)?;
        for (d, range) in ranges(indices, tensor.dims()).into_iter().enumerate() {
            tensor = tensor.narrow(d, range.start, range.len())?;
        }
        Ok(Values::Each(Numbers::of(&tensor)?.to_row_major().into()))
    }

    pub(crate) fn at(&self, n: usize) -> f32 {
        match self {
            Values::Same(value) => *value,
            Values::Each(values) => values[n],
        }
    }
}

impl Patch {
    /// The same entries as in another run, which may have other tokens, but has as many.
    ///
    /// # Errors
    /// If that run has no such entries.
    pub fn from_run(run: &Run, point: Point, indices: Vec<Index>) -> Result<Self> {
        Ok(Patch { values: Values::of(run, point, &indices)?, point, indices })
    }

    /// # Errors
    /// If the patch does not fit a run of so many tokens.
    pub fn check(&self, model: &Transformer, tokens: usize) -> Result<()> {
        let Point { site, layer } = self.point;
        if site == Site::Logits {
            return Err(Error::input("logits cannot be patched: nothing follows them"));
        }
        let Some(dims) = model.site_dims(site, tokens) else {
            return Err(Error::input(format!("this model has no {site:?} to patch")));
        };
        let n_layers = model.config().n_layers;
        if layer.is_some() != site.has_layers() || layer.is_some_and(|layer| layer >= n_layers) {
            return Err(Error::input(format!(
                "there is no {site:?} of layer {layer:?} in a model of {n_layers} layers"
            )));
        }
        if !fit(&self.indices, &dims) {
            let indices = &self.indices;
            return Err(Error::input(format!(
                "indices {indices:?} of a patch do not fit {site:?}, whose dimensions are {dims:?}"
            )));
        }
        let expected: usize = ranges(&self.indices, &dims).iter().map(|range| range.len()).product();
        match &self.values {
            Values::Each(values) if values.len() != expected => {
                let found = values.len();
                Err(Error::input(format!("a patch of {expected} entries of {site:?} has {found} numbers")))
            }
            _ => Ok(()),
        }
    }

    /// The first token whose activations it changes.
    pub(crate) fn first_token(&self) -> usize {
        match self.indices.first() {
            Some(Index::At(token)) => *token,
            _ => 0,
        }
    }

    /// The first layer that is not computed as without it; the number of layers if that is none.
    pub(crate) fn first_layer(&self, n_layers: usize) -> usize {
        match (self.point.site, self.point.layer) {
            (Site::ResidPostEmb, _) => 0,
            (Site::ResidPostMlp, Some(layer)) => layer + 1,
            // A dictionary before a layer acts at the end of the one before that.
            (site, Some(layer)) if Slot::at(site) == Some(Slot::Residual) || site == Site::ResidLatentInput => {
                layer.saturating_sub(1)
            }
            (_, Some(layer)) => layer,
            (_, None) => n_layers,
        }
    }
}

/// Patches as hooks, for a run of its own.
#[derive(Clone, Copy, Debug)]
pub struct PatchHooks<'a>(pub &'a [Patch]);

impl Hooks for PatchHooks<'_> {
    fn wants(&self, point: Point, pass: Pass) -> bool {
        pass == Pass::Forward && self.0.iter().any(|patch| patch.point == point)
    }

    fn forward(&mut self, point: Point, activation: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let mut data = Numbers::of(activation)?.to_row_major();
        for patch in self.0.iter().filter(|patch| patch.point == point) {
            set_entries(&mut data, activation.dims(), &patch.indices, |n| patch.values.at(n));
        }
        Tensor::from_vec(data, activation.dims(), activation.device()).map(Some)
    }
}
