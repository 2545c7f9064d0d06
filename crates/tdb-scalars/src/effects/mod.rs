//! Exact effects of nodes: what becomes of the objective when each is removed.

mod estimates;
mod nodes;
mod sample;

use tdb_api::stream::{EffectsFold, TdbEvent};
use tdb_api::wire::FieldPath;
use tdb_api::{
    AblateTo, EffectsRequest, EffectsResponse, InferenceRequestSpec, LossFnConfig, LossFnName, MirroredNodeIndex,
    NodeEffect, Price, SampledBound, TokenRef,
};
use tdb_model::{ForwardOptions, Gradients, Intervention, Patch, Run, Site, Slot, Values};

pub(crate) use nodes::Entries;
pub(crate) use sample::Random;

use crate::collected::collected;
use crate::context::Context;
use crate::engine::Engine;
use crate::error::{At, Result, bad};
use crate::ledger::{self, Checked, Extent};
use crate::metric::Metric;
use crate::outcome::{Asked, Found, Outcome, Scale};
use crate::price::price;
use crate::side::Plan;
use crate::tdb::{ablation_specs, field_as_asked, traced_node};
use crate::trace::Trace;
pub(crate) use estimates::NODE_SITES;
use estimates::Removal;

/// Exact effect and estimate part where they differ by more than this share of the exact effect ...
const APART: f64 = 0.2;
/// ... and this share of the objective.
const NOTICEABLE: f64 = 0.02;

/// The run that nodes are removed from.
pub(crate) struct Base {
    run: Run,
    interventions: Vec<Intervention>,
    outcome: Outcome,
    /// The outcome's value.
    objective: f64,
}

impl Engine {
    /// `POST /effects`. The same request gives the same answer.
    ///
    /// # Errors
    /// [`crate::Error::Bad`] with what is wrong and what would be right; [`crate::Error::Cancelled`] if the observer wants no
    /// more.
    pub fn effects(&self, request: &EffectsRequest, context: &Context<'_>) -> Result<EffectsResponse> {
        collected(EffectsFold::default(), context, |context| self.send_effects(request, context))
    }

    /// The same, part by part to the observer as they are ready.
    ///
    /// # Errors
    /// As [`Engine::effects`].
    pub fn send_effects(&self, request: &EffectsRequest, context: &Context<'_>) -> Result<()> {
        self.send_checked_effects(request, Extent::Sample, context)
    }

    fn send_checked_effects(&self, request: &EffectsRequest, extent: Extent, context: &Context<'_>) -> Result<()> {
        let send = |event| context.observer.event(event);
        let plan = self.plan_of_effects(request)?;
        let entries =
            |(i, node)| Entries::of(self.model(), plan.tokens.len(), node).at(|| FieldPath::of("nodes").index(i));
        let listed = request.nodes.iter().enumerate().map(entries).collect::<Result<Vec<_>>>()?;
        check_means(request, &listed)?;
        let random = usize::try_from(request.random_nodes).unwrap_or(0);
        let price = self.price_of_effects(&plan, &listed, random, request, context)?;
        // The run, and its gradients in one or two readings of the norms.
        let held = if request.better_estimates { 3 } else { 2 };
        self.check_activations("prompt", &vec![plan.tokens.len(); held], context)?;
        send(TdbEvent::Price { price });
        if request.only_price {
            return Ok(());
        }
        let base = self.base(plan, context)?;
        send(TdbEvent::Objective { objective: base.objective });
        let removals = self.removals(&base, &request.nodes, &listed, request, context)?;
        let is_cancelled = || context.observer.is_cancelled();
        let held = base.gradients(Scale::Held, &[], &is_cancelled)?;
        let free = request.better_estimates.then(|| base.gradients(Scale::Free, &[], &is_cancelled)).transpose()?;
        let checked = base.checked(extent);
        let computed;
        let gradients = match (base.outcome.checked_scale(), &free) {
            (Scale::Held, _) => &held,
            (Scale::Free, Some(free)) => free,
            (Scale::Free, None) => {
                computed = base.gradients(Scale::Free, &[], &is_cancelled)?;
                &computed
            }
        };
        let seed = request.seed.cast_unsigned();
        let entries = match listed.is_empty() {
            true => self.some_entries(&base.run, base.outcome.trace(), seed)?,
            false => listed,
        };
        let (probes, differences) = (checked.probes(seed)?, checked.differences(&entries, gradients, seed)?);
        let beside = Asked { values: &differences.runs, logits: &probes.runs };
        let found = self.listed(&base, &removals, (&held, free.as_ref()), beside, context)?;
        if let Some(bound) = self.sampled(&base, random, request, context)? {
            send(TdbEvent::SampledBound { bound });
        }
        let (without, ends) = found.values.split_at(removals.len());
        let mut checks = checked.of_run(&probes, &found.logits, seed)?;
        checks.push(checked.gradient(&differences, ends)?);
        let patches: Vec<Vec<Patch>> = removals.iter().map(Removal::patches).collect();
        checks.extend(checked.sharing(&patches, without)?);
        checks.extend(ledger::dictionaries(&checked)?);
        send(TdbEvent::Checks { side: None, checks });
        Ok(())
    }

    /// The checks of an answer about `prompt`, in which the likeliest next token is the target and the second the
    /// distractor; also those of patching it with its own tokens in another order.
    ///
    /// # Errors
    /// If the prompt is empty or too long, or an operation fails.
    pub fn verify(&self, prompt: &str) -> Result<Vec<tdb_api::Check>> {
        let tokens = self.tokenizer().encode(prompt);
        let run = self.model().forward(&tokens, ForwardOptions::default())?;
        let logits = run.logits(tokens.len() - 1)?;
        let mut order: Vec<u32> = (0..logits.len() as u32).filter(|t| self.has_token(*t as usize)).collect();
        order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
        let token = |at: usize| order.get(at).map(|id| TokenRef::Id { id: i64::from(*id), text: None });
        let request = EffectsRequest {
            prompt: prompt.to_owned(),
            target_tokens: token(0).into_iter().collect(),
            distractor_tokens: token(1).into_iter().collect(),
            node_ablations: None,
            upstream_node_to_trace: None,
            downstream_node_to_trace: None,
            nodes: self.some_nodes(&run, None, 24, 0)?,
            ablate_to: AblateTo::Zero,
            datasets: None,
            better_estimates: false,
            random_nodes: 0,
            seed: 0,
            only_price: false,
        };
        let send = |context: &Context<'_>| self.send_checked_effects(&request, Extent::Whole, context);
        let mut checks = collected(EffectsFold::default(), &Context::default(), send)?.checks;
        let mut others = tokens.clone();
        others.reverse();
        let other = self.model().forward(&others, ForwardOptions::default())?;
        let metric = Metric::logit_difference(self, &request.target_tokens, &request.distractor_tokens)?;
        checks.push(
            Checked { extent: Extent::Whole, run: &run, interventions: &[], outcome: &metric.into() }.whole(&other)?,
        );
        Ok(checks)
    }

    fn plan_of_effects(&self, request: &EffectsRequest) -> Result<Plan> {
        let ablations = ablation_specs(self.model(), request.node_ablations.as_deref().unwrap_or_default())?;
        let (upstream, downstream) = (&request.upstream_node_to_trace, &request.downstream_node_to_trace);
        let loss = LossFnConfig {
            name: LossFnName::LogitDiff,
            target_tokens: Some(request.target_tokens.clone()),
            distractor_tokens: Some(request.distractor_tokens.clone()),
        };
        let is_asked = upstream.is_none() || !request.target_tokens.is_empty();
        Plan::new(
            self,
            &InferenceRequestSpec {
                prompt: request.prompt.clone(),
                ablation_specs: Some(ablations),
                loss_fn_config: is_asked.then_some(loss),
                trace_config: traced_node(upstream.as_ref(), downstream.as_ref())?,
                activation_index_for_within_layer_grad: None,
            },
        )
        .map_err(|error| error.moved(field_as_asked))
    }

    fn price_of_effects(
        &self,
        plan: &Plan,
        listed: &[Entries],
        random: usize,
        request: &EffectsRequest,
        context: &Context<'_>,
    ) -> Result<Price> {
        let (config, tokens) = (self.model().config(), plan.tokens.len());
        let rows = |entries: &Entries| {
            let layers = config.n_layers - entries.point.layer.unwrap_or(0);
            (layers * (tokens - entries.token())) as f64
        };
        // A node chosen at random stands in the middle of the model and the prompt, on average.
        let anywhere = (config.n_layers * tokens) as f64 / 4.0;
        let mut all = listed.iter().map(rows).sum::<f64>() + random as f64 * anywhere;
        // The run itself, its gradients, and the checks.
        all += 8.0 * (config.n_layers * tokens) as f64;
        if request.better_estimates {
            all += 2.0 * (config.n_layers * config.n_layers * tokens) as f64;
        }
        let runs = listed.len() + random;
        if runs as u64 > context.bounds.varied_runs {
            let limit = context.bounds.varied_runs;
            return bad!(
                at "nodes",
                "{} nodes and {random} random ones are {runs} runs; this server computes at most {limit} for one request",
                listed.len()
            );
        }
        Ok(price(self.model(), runs, tokens, all, context))
    }

    fn base(&self, plan: Plan, context: &Context<'_>) -> Result<Base> {
        let mut after_layer = |_| !context.observer.is_cancelled();
        let options = ForwardOptions {
            interventions: &plan.interventions,
            after_layer: Some(&mut after_layer),
            ..Default::default()
        };
        let run = self.model().forward(&plan.tokens, options)?;
        let outcome = Outcome::new(&run, plan.loss.as_ref(), plan.trace.as_ref())?;
        let objective = outcome.of(&run)?;
        Ok(Base { run, interventions: plan.interventions, outcome, objective })
    }

    fn removals(
        &self,
        base: &Base,
        nodes: &[MirroredNodeIndex],
        entries: &[Entries],
        request: &EffectsRequest,
        context: &Context<'_>,
    ) -> Result<Vec<Removal>> {
        let removal = |(node, entries): (&MirroredNodeIndex, &Entries)| {
            let (to, ablated_to) = nodes::removed(&base.run, entries, request, context)?;
            let values = entries.values(&base.run)?;
            Ok(Removal { node: node.clone(), entries: entries.clone(), values, to, ablated_to })
        };
        nodes.iter().zip(entries).map(removal).collect()
    }

    /// A bound on the exact effects of what was not listed, from so many nodes chosen at random.
    fn sampled(
        &self,
        base: &Base,
        random: usize,
        request: &EffectsRequest,
        context: &Context<'_>,
    ) -> Result<Option<SampledBound>> {
        if random == 0 {
            return Ok(None);
        }
        let seed = request.seed.cast_unsigned();
        let (others, population) = sample::others(&base.run, &request.nodes, base.outcome.trace(), random, seed)?;
        let entries = |node| Entries::of(self.model(), base.run.tokens().len(), node);
        let entries = others.iter().map(entries).collect::<Result<Vec<_>>>()?;
        let removals = self.removals(base, &others, &entries, request, context)?;
        let mut exact = vec![0.0; removals.len()];
        base.exact(&removals, Asked::default(), context, &mut |i, effect| exact[i] = effect)?;
        Ok(sample::bound(&others, &exact, population))
    }

    /// Sends the effects of nodes; what became of the runs without them and of those that are computed `beside`.
    fn listed(
        &self,
        base: &Base,
        removals: &[Removal],
        (held, free): (&Gradients, Option<&Gradients>),
        beside: Asked<'_>,
        context: &Context<'_>,
    ) -> Result<Found> {
        let is_cancelled = || context.observer.is_cancelled();
        let mut effects = Vec::with_capacity(removals.len());
        for removal in removals {
            effects.push(NodeEffect {
                node_index: removal.node.clone(),
                ablated_to: removal.ablated_to,
                exact: 0.0,
                estimate: removal.first_order(&base.run, held)?,
                corrected_estimate: None,
                dropped_estimate: None,
                parts: false,
            });
        }
        if let Some(free) = free {
            let corrected = estimates::corrected(base, removals, free, &is_cancelled)?;
            let dropped = estimates::dropped(base, removals, &is_cancelled)?;
            for (i, effect) in effects.iter_mut().enumerate() {
                effect.corrected_estimate = Some(corrected[i]);
                effect.dropped_estimate = dropped.as_ref().map(|all| all[i]);
            }
        }
        base.exact(removals, beside, context, &mut |index, exact| {
            let apart = (exact - effects[index].estimate).abs();
            let parts = apart > APART * exact.abs() && apart > NOTICEABLE * base.objective.abs();
            let effect = NodeEffect { exact, parts, ..effects[index].clone() };
            context.observer.event(TdbEvent::NodeEffect { index, effect });
        })
    }

    /// Entries of some neurons and heads, for checks of an answer that lists no node.
    pub(crate) fn some_entries(&self, run: &Run, trace: Option<&Trace>, seed: u64) -> Result<Vec<Entries>> {
        let nodes = self.some_nodes(run, trace, 8, seed)?;
        nodes.iter().map(|node| Entries::of(self.model(), run.tokens().len(), node)).collect()
    }

    /// Neurons, heads and active latents, chosen at random.
    fn some_nodes(&self, run: &Run, trace: Option<&Trace>, n: usize, seed: u64) -> Result<Vec<MirroredNodeIndex>> {
        let types = [tdb_api::NodeType::AttentionHead, tdb_api::NodeType::MlpNeuron];
        let node = |node_type, indices: &[i64]| MirroredNodeIndex {
            node_type,
            tensor_indices: indices.iter().copied().map(Some).collect(),
            layer_index: Some(0),
            pass_type: tdb_api::PassType::Forward,
        };
        let mut listed = vec![node(types[0], &[0, 0, 0])];
        if self.model().site_dims(Site::MlpPostAct, 1).is_some() {
            listed.push(node(types[1], &[0, 0]));
        }
        for (slot, node_type) in [
            (Slot::Mlp, tdb_api::NodeType::MlpAutoencoderLatent),
            (Slot::Attention, tdb_api::NodeType::AttentionAutoencoderLatent),
        ] {
            if self.model().autoencoder(slot, 0).is_some() {
                listed.push(node(node_type, &[0, 0]));
            }
        }
        Ok(sample::others(run, &listed, trace, n, seed)?.0)
    }
}

impl Removal {
    fn patches(&self) -> Vec<Patch> {
        vec![self.entries.set_to(Values::Each(self.to.as_slice().into()))]
    }
}

impl Base {
    fn checked(&self, extent: Extent) -> Checked<'_> {
        Checked { extent, run: &self.run, interventions: &self.interventions, outcome: &self.outcome }
    }

    /// Gradients at nodes, with more interventions than the run has.
    fn gradients(&self, scale: Scale, more: &[Intervention], is_cancelled: &dyn Fn() -> bool) -> Result<Gradients> {
        let interventions = [&self.interventions, more].concat();
        self.outcome.gradients(&self.run, scale, &NODE_SITES, &interventions, is_cancelled)
    }

    /// The values without each node, then those of the runs that are computed `beside`; `each` is told the effect of a node,
    /// the objective minus the value without it, as soon as it is known.
    fn exact(
        &self,
        removals: &[Removal],
        beside: Asked<'_>,
        context: &Context<'_>,
        each: &mut dyn FnMut(usize, f64),
    ) -> Result<Found> {
        let mut values: Vec<Vec<Patch>> = removals.iter().map(Removal::patches).collect();
        values.extend_from_slice(beside.values);
        let asked = Asked { values: &values, logits: beside.logits };
        let is_cancelled = || context.observer.is_cancelled();
        self.outcome.vary(&self.run, asked, &self.interventions, &is_cancelled, &mut |i, value| {
            if i < removals.len() {
                each(i, self.objective - value);
            }
        })
    }
}

/// Refuses the collated mean where no node has one.
fn check_means(request: &EffectsRequest, listed: &[Entries]) -> Result<()> {
    let is_none = listed.iter().all(|entries| entries.recorded_scalar().is_none());
    if request.ablate_to == AblateTo::CollatedMean && is_none && !listed.is_empty() {
        return bad!(
            at "ablateTo",
            "records tell the collated mean of neurons and latents, and none of these nodes is one; use \"prompt_mean\""
        );
    }
    Ok(())
}
