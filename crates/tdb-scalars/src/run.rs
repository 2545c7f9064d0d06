//! Runs: the forward and backward passes of a request's sides.

use tdb_api::stream::{ProgressPass, TdbEvent};
use tdb_api::{DerivedScalarType as Dst, InferenceRequestSpec, InferenceSubRequest, PassType, ProcessingRequestSpec};
use tdb_model::intervention::first_layer_reached;
use tdb_model::{BackwardOptions, ForwardOptions, Gradients, Pass, Run, Seed, Site};

use crate::context::Context;
use crate::derived::gradient_sites;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::nodes::EdgeNode;
use crate::side::{Plan, Side};

/// Sites at which some derived scalar reads a gradient.
const ALL_GRADIENTS: [Site; 26] = [
    Site::ResidPostEmb,
    Site::AttnLnScale,
    Site::AttnQ,
    Site::AttnK,
    Site::AttnV,
    Site::AttnQkLogits,
    Site::AttnQkProbs,
    Site::AttnVOut,
    Site::ResidDeltaAttn,
    Site::ResidPostAttn,
    Site::MlpLnScale,
    Site::MlpPreAct,
    Site::MlpPostAct,
    Site::ResidDeltaMlp,
    Site::ResidPostMlp,
    Site::FinalLnScale,
    Site::PostFinalLn,
    Site::Logits,
    Site::MlpLatent,
    Site::MlpError,
    Site::MlpReconstruction,
    Site::AttnLatent,
    Site::AttnError,
    Site::ResidLatentInput,
    Site::ResidLatent,
    Site::ResidError,
];

impl Engine {
    /// The forward passes of all sides; layers that they have in common are computed once.
    pub(crate) fn forward<'e>(&'e self, plans: Vec<Plan>, context: &Context<'e>) -> Result<Vec<Side<'e>>> {
        let mut sides: Vec<Side<'e>> = Vec::with_capacity(plans.len());
        // The pass that others share layers with should be the one that interventions change the least.
        let mut order: Vec<usize> = (0..plans.len()).collect();
        let n_layers = self.model().config().n_layers;
        order.sort_by_key(|i| std::cmp::Reverse(first_layer_reached(&plans[*i].interventions, n_layers)));
        let mut runs: Vec<Option<Run>> = plans.iter().map(|_| None).collect();
        for (i, plan) in plans.iter().enumerate() {
            self.emit_tokens(context, i, plan);
        }
        for &i in &order {
            let plan = &plans[i];
            let done = order.iter().filter_map(|j| runs[*j].as_ref().map(|run| (run, &plans[*j])));
            let clean = |plan: &Plan| plan.interventions.iter().all(|i| i.pass == Pass::Backward);
            let shared = done.filter(|(run, p)| run.tokens() == plan.tokens && clean(p)).map(|(run, _)| run).next();
            let mut after_layer = progress(context, i, ProgressPass::Forward, n_layers);
            let options = ForwardOptions {
                interventions: &plan.interventions,
                shared,
                after_layer: Some(&mut after_layer),
                ..Default::default()
            };
            runs[i] = Some(self.model().forward(&plan.tokens, options)?);
        }
        for (plan, run) in plans.into_iter().zip(runs) {
            let Some(run) = run else {
                return Err(Error::Internal("a sub-request was not run".to_owned()));
            };
            let mut side = self.side(plan, run, context, None)?;
            if side.loss.is_some_and(|x| !x.is_finite()) {
                side.loss = None;
            }
            context.observer.event(TdbEvent::Inference { side: sides.len(), data: side.data() });
            sides.push(side);
        }
        Ok(sides)
    }

    /// A run of which every derived scalar can be had ([`crate::compute::values`]), also those about the edges of a
    /// node. All gradients are kept.
    ///
    /// # Errors
    /// As [`Engine::batched_tdb`].
    pub fn inspect(&self, spec: &InferenceRequestSpec, edge: Option<EdgeNode>) -> Result<Side<'_>> {
        let plan = Plan::new(self, spec)?;
        let options = ForwardOptions { interventions: &plan.interventions, ..Default::default() };
        let run = self.model().forward(&plan.tokens, options)?;
        let mut side = self.side(plan, run, &Context::default(), edge)?;
        let Some(seed) = side.seed()? else { return Ok(side) };
        let options =
            BackwardOptions { interventions: &side.plan.interventions, keep: &ALL_GRADIENTS, ..Default::default() };
        side.gradients = Some(side.run.backward(seed, options)?);
        Ok(side)
    }

    /// A run after its forward pass: what it reached, and where its backward pass starts.
    pub(crate) fn side<'e>(
        &'e self,
        plan: Plan,
        run: Run,
        context: &Context<'e>,
        edge: Option<EdgeNode>,
    ) -> Result<Side<'e>> {
        let context = *context;
        let loss = plan.loss.as_ref().map(|loss| Ok(loss.value(&run.logits(plan.tokens.len() - 1)?)));
        let loss: Option<f32> = loss.transpose().map_err(|error: tdb_model::Error| Error::from(error))?;
        let trace_seed = plan.trace.as_ref().map(|trace| trace.seed(&run, plan.loss.as_ref())).transpose()?;
        Ok(Side { engine: self, plan, run, gradients: None, loss, trace_seed, context, edge })
    }

    /// The backward passes of all sides, as far as what is asked of them reads gradients.
    pub(crate) fn backward(
        &self,
        sides: &mut [Side<'_>],
        requests: &[InferenceSubRequest],
        context: &Context<'_>,
    ) -> Result<()> {
        for (index, (side, request)) in sides.iter_mut().zip(requests).enumerate() {
            side.gradients = self.gradients(side, request, index, context)?;
        }
        Ok(())
    }

    fn gradients(
        &self,
        side: &Side<'_>,
        request: &InferenceSubRequest,
        index: usize,
        context: &Context<'_>,
    ) -> Result<Option<Gradients>> {
        let Some(seed) = side.seed()? else { return Ok(None) };
        let mut keep = Vec::new();
        for site in asked_scalars(request).into_iter().flat_map(|(dst, pass)| gradient_sites(dst, pass)) {
            if !keep.contains(&site) {
                keep.push(site);
            }
        }
        if keep.is_empty() {
            return Ok(Some(Gradients::default()));
        }
        let mut after_layer = progress(context, index, ProgressPass::Backward, self.model().config().n_layers);
        let options = BackwardOptions {
            interventions: &side.plan.interventions,
            keep: &keep,
            after_layer: Some(&mut after_layer),
            ..Default::default()
        };
        Ok(Some(side.run.backward(seed, options)?))
    }

    fn emit_tokens(&self, context: &Context<'_>, side: usize, plan: &Plan) {
        if context.observer.listens() {
            context.observer.event(TdbEvent::Tokens {
                side,
                tokens_as_ints: plan.tokens.iter().map(|t| i64::from(*t)).collect(),
                tokens_as_strings: plan.tokens.iter().map(|t| self.token_text(*t)).collect(),
            });
        }
    }
}

impl Side<'_> {
    /// Where the backward pass starts; `None` if the run has no objective.
    pub(crate) fn seed(&self) -> Result<Option<Seed>> {
        Ok(match (&self.trace_seed, &self.plan.loss) {
            (Some(seed), _) => Some(Seed::Residual { point: seed.point, gradient: seed.gradient.clone() }),
            (None, Some(loss)) => Some(Seed::Logits(loss.seed(self.tokens(), &self.run.logits(self.tokens() - 1)?))),
            (None, None) => None,
        })
    }
}

/// Every scalar that a request reads, whichever way it asks.
fn asked_scalars(request: &InferenceSubRequest) -> Vec<(Dst, PassType)> {
    let mut asked = Vec::new();
    for spec in request.processing_request_spec_by_name.values() {
        match spec {
            ProcessingRequestSpec::MultipleTopKDerivedScalars(spec) => {
                asked.extend(spec.dst_list_by_group_id.values().flatten().map(|dst| (*dst, spec.pass_type)));
            }
            ProcessingRequestSpec::DerivedScalars(spec) => asked.push((spec.dst, spec.pass_type)),
            ProcessingRequestSpec::DerivedAttentionScalars(spec) => asked.push((spec.dst, PassType::Forward)),
            ProcessingRequestSpec::ScoredTokens(_) | ProcessingRequestSpec::TokenPairAttribution(_) => {}
        }
    }
    asked
}

fn progress<'c>(
    context: &'c Context<'_>,
    side: usize,
    pass: ProgressPass,
    n_layers: usize,
) -> impl FnMut(usize) -> bool + 'c {
    move |layer| {
        if context.observer.listens() {
            context.observer.event(TdbEvent::Progress { side, pass, layer, n_layers });
        }
        !context.observer.is_cancelled()
    }
}
