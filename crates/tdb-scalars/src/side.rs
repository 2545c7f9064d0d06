//! One run of the model, with all that its derived scalars need.

use candle_core::Tensor;
use tdb_api::wire::FieldPath;
use tdb_api::{
    ActivationLocationType as Location, AllOrOneIndex, DerivedScalarType as Dst, InferenceRequestSpec,
    MirroredActivationIndex,
};
use tdb_model::{Gradients, Intervention, MlpKind, Point, Run, Site, Slot, Transformer};

use crate::compute;
use crate::context::Context;
use crate::derived::{Layers, Subject, describe};
use crate::engine::Engine;
use crate::error::{At, Result, bad};
use crate::interventions;
use crate::nodes::EdgeNode;
use crate::objective::Loss;
use crate::place::{LayerPlace, Place};
use crate::slots;
use crate::tensors::row_of;
use crate::trace::{Trace, TraceSeed};
use crate::values::wrap;

/// What a run was asked to be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub tokens: Vec<u32>,
    pub interventions: Vec<Intervention>,
    pub loss: Option<Loss>,
    pub trace: Option<Trace>,
    pub within_layer: Option<WithinLayer>,
}

/// The activation that derived scalars "within a layer" refer to, such as the write of heads to a latent.
#[derive(Clone, Copy, Debug)]
pub struct WithinLayer {
    pub location: Location,
    pub layer: usize,
    pub index: Option<usize>,
    /// Where the residual stream before that activation stands.
    pub read_at: LayerPlace,
    /// The same as a point of a pass.
    pub point: Point,
}

impl Plan {
    /// # Errors
    /// If the prompt is empty or too long, or any index does not exist in this model and prompt.
    pub fn new(engine: &Engine, spec: &InferenceRequestSpec) -> Result<Self> {
        let model = engine.model();
        let tokens = engine.tokens_of("prompt", &spec.prompt)?;
        let limit = model.config().ctx_window;
        if tokens.len() > limit {
            return bad!(at "prompt", "has {} tokens, but the model sees at most {limit}", tokens.len());
        }
        let n = tokens.len();
        let specs = spec.ablation_specs.as_deref().unwrap_or_default();
        let intervention =
            |(i, spec)| interventions::intervention(model, n, spec).at(|| FieldPath::of("ablationSpecs").index(i));
        let interventions = specs.iter().enumerate().map(intervention).collect::<Result<_>>()?;
        let trace = spec.trace_config.as_ref().map(|config| Trace::new(model, n, config));
        let trace = trace.transpose().at(|| "traceConfig".into())?;
        let loss = spec.loss_fn_config.as_ref().map(|config| Loss::new(engine, config));
        let loss = loss.transpose().at(|| "lossFnConfig".into())?;
        if let Some(trace) = &trace
            && trace.needs_loss()
            && loss.is_none()
        {
            return bad!(at "traceConfig", "a trace through \"V\" without a downstream node needs lossFnConfig");
        }
        let within_layer = spec.activation_index_for_within_layer_grad.as_ref();
        let within_layer = within_layer.map(|index| WithinLayer::new(model, n, index)).transpose();
        let within_layer = within_layer.at(|| "activationIndexForWithinLayerGrad".into())?;
        Ok(Plan { tokens, interventions, loss, trace, within_layer })
    }
}

impl WithinLayer {
    fn new(model: &Transformer, tokens: usize, index: &MirroredActivationIndex) -> Result<Self> {
        let location = index.activation_location_type;
        let n_layers = model.config().n_layers;
        let layer = index.layer_index.and_then(|l| usize::try_from(l).ok()).filter(|l| *l < n_layers);
        let Some(layer) = layer else {
            return bad!("it needs a layerIndex in 0..{n_layers}");
        };
        let slot = match location {
            Location::MlpPreAct | Location::MlpPostAct | Location::OnlineMlpAutoencoderLatent => Slot::Mlp,
            Location::AttnQkLogits | Location::AttnQkProbs | Location::OnlineAttentionAutoencoderLatent => {
                Slot::Attention
            }
            // With both loaded, the generic name means the attention one, as clients use it.
            Location::OnlineAutoencoderLatent => slots::only(model, location.as_str()).unwrap_or(Slot::Attention),
            Location::OnlineResidualAutoencoderLatent => Slot::Residual,
            _ => return bad!("it cannot refer to \"{location}\""),
        };
        // Without the autoencoder that it names, only scalars that do not need it can be answered.
        let site = match location {
            Location::OnlineAutoencoderLatent if model.has(Slot::Attention) => Some(Site::AttnLatent),
            _ => interventions::site_of(model, location).ok(),
        };
        let dims = site.and_then(|site| model.site_dims(site, tokens)).unwrap_or_default();
        let index = match (index.tensor_indices.last(), dims.last()) {
            (Some(AllOrOneIndex::One(i)), Some(n)) => match wrap(*i, *n) {
                Some(i) => Some(i),
                None => return bad!("it names unit {i}, but \"{location}\" has {n}"),
            },
            _ => None,
        };
        let (read_at, point) = (Place::read_by(model, slot, layer), Place::point_read_by(model, slot, layer));
        Ok(WithinLayer { location, layer, index, read_at, point })
    }
}

/// A finished run.
pub struct Side<'e> {
    pub engine: &'e Engine,
    pub plan: Plan,
    pub run: Run,
    pub gradients: Option<Gradients>,
    pub loss: Option<f32>,
    pub trace_seed: Option<TraceSeed>,
    pub context: Context<'e>,
    /// Only in inspections.
    pub edge: Option<EdgeNode>,
}

impl Side<'_> {
    pub fn model(&self) -> &Transformer {
        self.engine.model()
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.plan.tokens.len()
    }

    /// # Errors
    /// If there is no backward pass in this run.
    pub fn gradients(&self, dst: Dst) -> Result<&Gradients> {
        match &self.gradients {
            Some(gradients) => Ok(gradients),
            None => bad!("\"{dst}\" needs a backward pass; give a lossFnConfig or a traceConfig"),
        }
    }

    /// The gradient at a site; `None` where none flowed (it is zero).
    ///
    /// # Errors
    /// If there is no backward pass in this run.
    pub fn gradient(&self, dst: Dst, site: Site, layer: impl Into<Option<usize>>) -> Result<Option<Tensor>> {
        Ok(self.gradients(dst)?.get(site, layer)?)
    }

    /// An activation of the run.
    ///
    /// # Errors
    /// If the model has no such site or layer.
    pub fn get(&self, site: Site, layer: impl Into<Option<usize>>) -> Result<Tensor> {
        Ok(self.run.get(site, layer)?)
    }

    /// The residual stream that a layer's attention or MLP reads, `[T, D]`.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn read_by(&self, slot: Slot, layer: usize) -> Result<Tensor> {
        let point = Place::point_read_by(self.model(), slot, layer);
        self.get(point.site, point.layer)
    }

    /// A gradient at what a layer adds to the residual stream, `[T, D]`, for writes that the norm after the layer, where
    /// the family has one, has yet to divide by its scale. That scale counts as constant.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn before_division(&self, slot: Slot, layer: usize, gradient: &Tensor) -> Result<Tensor> {
        match self.run.write_scale(slot, layer)? {
            Some(scale) => Ok(gradient.broadcast_div(&scale)?),
            None => Ok(gradient.clone()),
        }
    }

    /// What writes of a layer into one token are multiplied by on their way to the residual stream; 1 without a norm
    /// after the layer.
    ///
    /// # Errors
    /// If an operation fails.
    pub fn write_factor(&self, slot: Slot, layer: usize, token: usize) -> Result<f32> {
        match self.run.write_scale(slot, layer)? {
            Some(scale) => Ok(row_of(&scale, token)?[0].recip()),
            None => Ok(1.0),
        }
    }

    /// # Errors
    /// If the model has no MLP layers.
    pub fn require_mlp(&self) -> Result<()> {
        match self.model().config().mlp {
            MlpKind::None => bad!("this model has no MLP layers"),
            _ => Ok(()),
        }
    }

    /// Where in the model the objective reads the residual stream.
    pub fn final_residual(&self) -> (LayerPlace, Point) {
        let (model, last) = (self.model(), self.model().config().n_layers - 1);
        match (&self.plan.within_layer, &self.plan.trace) {
            (Some(within), _) => (within.read_at, within.point),
            (None, Some(trace)) => (trace.node.reads_at(model), trace.node.point_read(model)),
            (None, None) => ((last, Place::ResidPostMlp), Place::ResidPostMlp.residual_point(last)),
        }
    }

    /// Gradient there, `[T, D]`; `None` where it is zero.
    ///
    /// # Errors
    /// If there is no backward pass in this run.
    pub fn final_residual_gradient(&self, dst: Dst) -> Result<Option<Tensor>> {
        let (_, point) = self.final_residual();
        self.gradient(dst, point.site, point.layer)
    }

    /// The gradient of the traced value at the residual stream before its node, `[T, D]`.
    ///
    /// # Errors
    /// If nothing is traced.
    pub fn traced_gradient(&self, dst: Dst) -> Result<&Tensor> {
        match &self.trace_seed {
            Some(seed) => Ok(&seed.gradient),
            None => bad!("\"{dst}\" needs a traceConfig: it is the write along the gradient of the traced node"),
        }
    }

    /// Whether something written at `place` of `layer` (`None`: the embedding) comes before the place where
    /// the objective reads.
    pub fn precedes_final_residual(&self, layer: Option<usize>, place: Place) -> bool {
        layer.is_none_or(|layer| (layer, place) < self.final_residual().0)
    }

    /// The layers in which a derived scalar exists in this run.
    ///
    /// # Errors
    /// If it refers to a layer that the request does not name.
    pub fn layers(&self, dst: Dst) -> Result<Vec<Option<usize>>> {
        let scalar = describe(dst);
        match (scalar.layers(), &self.edge) {
            (Layers::WholeModel, _) => return Ok(vec![None]),
            (Layers::OfNamedLatent, _) => {
                return match &self.plan.within_layer {
                    Some(within) => Ok(vec![Some(within.layer)]),
                    None => bad!("\"{dst}\" needs activationIndexForWithinLayerGrad, which says which latent is meant"),
                };
            }
            (Layers::OfNamedNode, Some(edge)) => return Ok(vec![Some(edge.node.layer())]),
            (Layers::OfNamedNode, None) | (Layers::Each, _) => {}
        }
        let n_layers = self.model().config().n_layers;
        // Latents exist where there is a dictionary.
        let slot = compute::slot_of(self, dst)?;
        let is_skip = scalar.subject == Subject::Skip;
        let has = |layer: &usize| {
            slot.is_none_or(|slot| {
                let found = self.model().autoencoder(slot, *layer);
                found.is_some_and(|found| !is_skip || found.weights().skip.is_some())
            })
        };
        Ok((0..n_layers).filter(has).map(Some).collect())
    }
}
