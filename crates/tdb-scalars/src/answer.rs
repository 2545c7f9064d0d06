//! From requests to answers: plan, run, derive, score.

use std::collections::{BTreeMap, HashMap, HashSet};

use tdb_api::stream::{ProgressPass, TdbEvent, TokenOfInterest};
use tdb_api::{
    BatchedRequest, BatchedResponse, BatchedTdbRequest, DerivedAttentionScalarsRequest,
    DerivedAttentionScalarsResponse, DerivedScalarType as Dst, DerivedScalarsRequest, DerivedScalarsResponse, GroupId,
    IndexMap, InferenceAndTokenData, InferenceRequestSpec, InferenceResponse, InferenceResponseAndResponseDict,
    InferenceSubRequest, MirroredNodeIndex, MultipleTopKDerivedScalarsRequest, MultipleTopKDerivedScalarsRequestSpec,
    MultipleTopKDerivedScalarsResponse, MultipleTopKDerivedScalarsResponseData, NodeType, PassType,
    ProcessingRequestSpec, ProcessingResponseData, TdbRequestSpec, TensorND,
};
use tdb_model::run::first_layer_reached;
use tdb_model::{Array, BackwardOptions, ForwardOptions, Pass, Site};

use crate::context::Context;
use crate::derived;
use crate::edges::EdgeNode;
use crate::engine::Engine;
use crate::error::{Error, Result, bad};
use crate::interventions::wrap;
use crate::side::{Plan, Side, gradient_sites};
use crate::store::Store;
use crate::tdb::to_inference_sub_request;
use crate::top_k::Entry;
use crate::values::unflatten;

/// Sites at which some derived scalar reads a gradient.
const ALL_GRADIENTS: [Site; 22] = [
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
    Site::AttnLatent,
    Site::AttnError,
];

/// Longest prompt, in tokens, of a request that ranks nodes.
pub const RANKED_PROMPT_LIMIT: usize = 500;
/// Most nodes that an answer lists.
const NODE_LIMIT: usize = 1_000_000;

impl Engine {
    /// `POST /batched_tdb`.
    ///
    /// # Errors
    /// [`Error::Bad`] with what is wrong and what would be right; [`Error::Cancelled`] if the observer wants no more.
    pub fn batched_tdb(&self, request: &BatchedTdbRequest, context: &Context<'_>) -> Result<BatchedResponse> {
        let sub_requests = request.sub_requests.iter().map(to_inference_sub_request).collect::<Result<_>>()?;
        let tokens = request.sub_requests.iter().map(|spec| self.tokens_of_interest(spec)).collect();
        self.respond(&BatchedRequest { inference_sub_requests: sub_requests }, tokens, context)
    }

    /// Targets and distractors with their roles; one that is no single token is told about elsewhere.
    fn tokens_of_interest(&self, spec: &TdbRequestSpec) -> Interest {
        let roles = [("target", &spec.target_tokens), ("distractor", &spec.distractor_tokens)];
        let tokens = roles.iter().flat_map(|(role, texts)| texts.iter().map(move |text| (*role, text)));
        tokens.filter_map(|(role, text)| Some((self.tokenizer().single_token(text).ok()?, role))).collect()
    }

    /// `POST /batched`. Nodes ranked in one sub-request are reported in all of them.
    ///
    /// # Errors
    /// As [`Engine::batched_tdb`].
    pub fn batched(&self, request: &BatchedRequest, context: &Context<'_>) -> Result<BatchedResponse> {
        self.respond(request, Vec::new(), context)
    }

    fn respond(
        &self,
        request: &BatchedRequest,
        interest: Vec<Interest>,
        context: &Context<'_>,
    ) -> Result<BatchedResponse> {
        let requests = &request.inference_sub_requests;
        if requests.is_empty() {
            return bad!("the list of sub-requests is empty; give at least one");
        }
        requests.iter().try_for_each(check_specs)?;
        let plans = requests.iter().map(|r| Plan::new(self, &r.inference_request_spec)).collect::<Result<Vec<_>>>()?;
        self.check_prompts(requests, &plans)?;
        let sides = self.run(requests, plans, context)?;
        let answers = self.answer(requests, &sides, &interest, context)?;
        let inference_sub_responses =
            sides.iter().zip(answers).map(|(side, answers)| InferenceResponseAndResponseDict {
                inference_response: InferenceResponse { inference_and_token_data: side.data() },
                processing_response_data_by_name: answers,
            });
        Ok(BatchedResponse { inference_sub_responses: inference_sub_responses.collect() })
    }

    /// `POST /derived_scalars`.
    ///
    /// # Errors
    /// As [`Engine::batched_tdb`].
    pub fn derived_scalars(
        &self,
        request: &DerivedScalarsRequest,
        context: &Context<'_>,
    ) -> Result<DerivedScalarsResponse> {
        let spec = ProcessingRequestSpec::DerivedScalars(request.derived_scalars_request_spec.clone());
        match self.single(&request.inference_request_spec, spec, context)? {
            (inference_and_token_data, ProcessingResponseData::DerivedScalars(derived_scalars_response_data)) => {
                Ok(DerivedScalarsResponse { inference_and_token_data, derived_scalars_response_data })
            }
            _ => Err(Error::Internal("an answer of another kind than the question".to_owned())),
        }
    }

    /// `POST /derived_attention_scalars`.
    ///
    /// # Errors
    /// As [`Engine::batched_tdb`].
    pub fn derived_attention_scalars(
        &self,
        request: &DerivedAttentionScalarsRequest,
        context: &Context<'_>,
    ) -> Result<DerivedAttentionScalarsResponse> {
        let spec =
            ProcessingRequestSpec::DerivedAttentionScalars(request.derived_attention_scalars_request_spec.clone());
        match self.single(&request.inference_request_spec, spec, context)? {
            (inference_and_token_data, ProcessingResponseData::DerivedAttentionScalars(data)) => {
                let derived_attention_scalars_response_data = data;
                Ok(DerivedAttentionScalarsResponse {
                    inference_and_token_data,
                    derived_attention_scalars_response_data,
                })
            }
            _ => Err(Error::Internal("an answer of another kind than the question".to_owned())),
        }
    }

    /// `POST /multiple_top_k_derived_scalars`.
    ///
    /// # Errors
    /// As [`Engine::batched_tdb`].
    pub fn multiple_top_k_derived_scalars(
        &self,
        request: &MultipleTopKDerivedScalarsRequest,
        context: &Context<'_>,
    ) -> Result<MultipleTopKDerivedScalarsResponse> {
        let spec = request.multiple_top_k_derived_scalars_request_spec.clone();
        let spec = ProcessingRequestSpec::MultipleTopKDerivedScalars(spec);
        match self.single(&request.inference_request_spec, spec, context)? {
            (inference_and_token_data, ProcessingResponseData::MultipleTopKDerivedScalars(data)) => {
                let multiple_top_k_derived_scalars_response_data = data;
                Ok(MultipleTopKDerivedScalarsResponse {
                    inference_and_token_data,
                    multiple_top_k_derived_scalars_response_data,
                })
            }
            _ => Err(Error::Internal("an answer of another kind than the question".to_owned())),
        }
    }

    fn single(
        &self,
        inference: &InferenceRequestSpec,
        spec: ProcessingRequestSpec,
        context: &Context<'_>,
    ) -> Result<(InferenceAndTokenData, ProcessingResponseData)> {
        let request = InferenceSubRequest {
            inference_request_spec: inference.clone(),
            processing_request_spec_by_name: IndexMap::from([("only".to_owned(), spec)]),
        };
        let mut response = self.batched(&BatchedRequest { inference_sub_requests: vec![request] }, context)?;
        let answer = response.inference_sub_responses.pop().and_then(|mut r| {
            let (_, data) = r.processing_response_data_by_name.pop()?;
            Some((r.inference_response.inference_and_token_data, data))
        });
        answer.ok_or_else(|| Error::Internal("a request without an answer".to_owned()))
    }

    /// Prompts whose nodes are ranked together must be alike in length, and not too long.
    fn check_prompts(&self, requests: &[InferenceSubRequest], plans: &[Plan]) -> Result<()> {
        let ranks = |request: &InferenceSubRequest| {
            let mut specs = request.processing_request_spec_by_name.values();
            specs.any(|spec| matches!(spec, ProcessingRequestSpec::MultipleTopKDerivedScalars(_)))
        };
        let ranked: Vec<&Plan> = requests.iter().zip(plans).filter(|(r, _)| ranks(r)).map(|(_, plan)| plan).collect();
        if let Some(plan) = ranked.iter().find(|plan| plan.tokens.len() > RANKED_PROMPT_LIMIT) {
            let found = plan.tokens.len();
            return bad!("prompt has {found} tokens; a request that ranks nodes takes at most {RANKED_PROMPT_LIMIT}");
        }
        if ranked.windows(2).any(|pair| pair[0].tokens.len() != pair[1].tokens.len()) {
            let shown = ranked.iter().map(|plan| {
                let tokens: Vec<String> = plan.tokens.iter().map(|t| format!("{:?}", self.token_text(*t))).collect();
                format!("{} tokens [{}]", tokens.len(), tokens.join(", "))
            });
            let shown = shown.collect::<Vec<_>>().join("; ");
            return bad!("prompts whose nodes are compared must have equally many tokens, but they have: {shown}");
        }
        Ok(())
    }

    fn run<'e>(
        &'e self,
        requests: &[InferenceSubRequest],
        plans: Vec<Plan>,
        context: &Context<'e>,
    ) -> Result<Vec<Side<'e>>> {
        let mut sides: Vec<Side<'e>> = Vec::with_capacity(plans.len());
        // The pass that others share layers with should be the one that interventions change the least.
        let mut order: Vec<usize> = (0..plans.len()).collect();
        let n_layers = self.model().config().n_layers;
        order.sort_by_key(|i| std::cmp::Reverse(first_layer_reached(&plans[*i].interventions, n_layers)));
        let mut forwards: Vec<Option<tdb_model::Forward>> = plans.iter().map(|_| None).collect();
        for (i, plan) in plans.iter().enumerate() {
            self.emit_tokens(context, i, plan);
        }
        for &i in &order {
            let plan = &plans[i];
            let clean = order.iter().filter_map(|j| forwards[*j].as_ref().map(|f| (f, &plans[*j])));
            let shared = clean
                .filter(|(f, p)| f.tokens == plan.tokens && p.interventions.iter().all(|i| i.pass == Pass::Backward))
                .map(|(f, _)| f)
                .next();
            let mut after_layer = progress(context, i, ProgressPass::Forward, n_layers);
            let options = ForwardOptions {
                interventions: &plan.interventions,
                hooks: &mut (),
                shared,
                layers: None,
                after_layer: &mut after_layer,
            };
            forwards[i] = Some(tdb_model::forward(self.model(), &plan.tokens, options)?);
        }
        for ((plan, forward), request) in plans.into_iter().zip(forwards).zip(requests) {
            let Some(forward) = forward else {
                return Err(Error::Internal("a sub-request was not run".to_owned()));
            };
            let mut side = Side {
                engine: self,
                plan,
                forward,
                gradients: None,
                loss: None,
                trace_seed: None,
                context: *context,
                edge: None,
            };
            side.measure()?;
            if let Some(trace) = &side.plan.trace {
                side.trace_seed = Some(trace.seed(self.model(), &side.forward, side.plan.loss.as_ref())?);
            }
            if side.loss.is_some_and(|x| !x.is_finite()) {
                side.loss = None;
            }
            side.gradients = self.backward(&side, request, sides.len(), context)?;
            if context.observer.listens() {
                context.observer.event(TdbEvent::Inference { side: sides.len(), data: side.data() });
            }
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
        let options = ForwardOptions {
            interventions: &plan.interventions,
            hooks: &mut (),
            shared: None,
            layers: None,
            after_layer: &mut |_| true,
        };
        let forward = tdb_model::forward(self.model(), &plan.tokens, options)?;
        let context = Context::default();
        let mut side =
            Side { engine: self, plan, forward, gradients: None, loss: None, trace_seed: None, context, edge };
        side.measure()?;
        if let Some(trace) = &side.plan.trace {
            side.trace_seed = Some(trace.seed(self.model(), &side.forward, side.plan.loss.as_ref())?);
        }
        let Some(seed) = side.seed() else { return Ok(side) };
        let options = BackwardOptions {
            interventions: &side.plan.interventions,
            hooks: &mut (),
            keep: &ALL_GRADIENTS,
            after_layer: &mut |_| true,
        };
        side.gradients = Some(tdb_model::backward(self.model(), &side.forward, seed, options)?);
        Ok(side)
    }

    fn backward(
        &self,
        side: &Side<'_>,
        request: &InferenceSubRequest,
        index: usize,
        context: &Context<'_>,
    ) -> Result<Option<tdb_model::Gradients>> {
        let mut keep = vec![Site::ResidPostEmb, Site::ResidPostAttn, Site::ResidPostMlp];
        let mut any = false;
        for (dst, pass) in asked_scalars(request) {
            any |= needs_gradient(dst, pass);
            for site in gradient_sites(dst, pass) {
                if !keep.contains(&site) {
                    keep.push(site);
                }
            }
        }
        let Some(seed) = side.seed() else { return Ok(None) };
        if !any {
            return Ok(Some(tdb_model::Gradients::default()));
        }
        let mut after_layer = progress(context, index, ProgressPass::Backward, self.model().config().n_layers);
        let options = BackwardOptions {
            interventions: &side.plan.interventions,
            hooks: &mut (),
            keep: &keep,
            after_layer: &mut after_layer,
        };
        Ok(Some(tdb_model::backward(self.model(), &side.forward, seed, options)?))
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

    fn answer(
        &self,
        requests: &[InferenceSubRequest],
        sides: &[Side<'_>],
        interest: &[Interest],
        context: &Context<'_>,
    ) -> Result<Vec<IndexMap<String, ProcessingResponseData>>> {
        let mut stores: Vec<Store<'_, '_>> = sides.iter().map(Store::new).collect();
        let mut answers: Vec<BTreeMap<usize, ProcessingResponseData>> = sides.iter().map(|_| BTreeMap::new()).collect();
        let mut nodes_by_name: HashMap<&str, Vec<MirroredNodeIndex>> = HashMap::new();
        // Names of ranked lists, in the order in which they leave: what needs no gradient first.
        let mut names: Vec<&str> = Vec::new();
        for request in requests {
            for (name, spec) in &request.processing_request_spec_by_name {
                if matches!(spec, ProcessingRequestSpec::MultipleTopKDerivedScalars(_))
                    && !names.contains(&name.as_str())
                {
                    names.push(name);
                }
            }
        }
        names.sort_by_key(|name| *name != "topOutputTokenLogits");
        for name in names {
            let mut ranked = Vec::with_capacity(sides.len());
            let mut nodes = Vec::new();
            let mut seen = HashSet::new();
            for (request, store) in requests.iter().zip(&mut stores) {
                let Some(ProcessingRequestSpec::MultipleTopKDerivedScalars(spec)) =
                    request.processing_request_spec_by_name.get(name)
                else {
                    ranked.push(None);
                    continue;
                };
                let ranking = rank(store, spec)?;
                for node in &ranking.nodes {
                    if seen.insert(node_key(node)) {
                        nodes.push(node.clone());
                    }
                }
                ranked.push(Some((spec, ranking)));
            }
            if nodes.len() > NODE_LIMIT {
                return bad!("the answer would list {} nodes; ask for fewer with topAndBottomK", nodes.len());
            }
            for (index, ranking) in ranked.into_iter().enumerate() {
                let Some((spec, ranking)) = ranking else { continue };
                let data = self.ranked(&mut stores[index], spec, ranking, &nodes)?;
                if context.observer.listens() {
                    let (side, name, data) = (index, name.to_owned(), data.clone());
                    context.observer.event(match name == "topOutputTokenLogits" {
                        true => TdbEvent::OutputLogits { side, name, data },
                        false => TdbEvent::NodeGroups { side, name, data },
                    });
                }
                if let Some(interest) = interest.get(index)
                    && context.observer.listens()
                    && name == "topOutputTokenLogits"
                {
                    context.observer.event(self.candidates(index, &sides[index], spec, &nodes, interest)?);
                }
                let place = requests[index].processing_request_spec_by_name.get_index_of(name);
                answers[index]
                    .insert(place.unwrap_or_default(), ProcessingResponseData::MultipleTopKDerivedScalars(data));
            }
            nodes_by_name.insert(name, nodes);
        }
        for (index, (request, store)) in requests.iter().zip(&mut stores).enumerate() {
            for (place, (name, spec)) in request.processing_request_spec_by_name.iter().enumerate() {
                if context.observer.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let data = match spec {
                    ProcessingRequestSpec::MultipleTopKDerivedScalars(_) => continue,
                    ProcessingRequestSpec::DerivedScalars(spec) => {
                        ProcessingResponseData::DerivedScalars(self.component_scalars(store, spec, context)?)
                    }
                    ProcessingRequestSpec::DerivedAttentionScalars(spec) => {
                        ProcessingResponseData::DerivedAttentionScalars(self.attention_scalars(store, spec, context)?)
                    }
                    ProcessingRequestSpec::ScoredTokens(spec) => {
                        let nodes = nodes_by_name.get(spec.depends_on_spec_name.as_str()).cloned().unwrap_or_default();
                        let data = self.scored_tokens(store.side(), spec, nodes)?;
                        if context.observer.listens() {
                            let (name, data) = (name.clone(), data.clone());
                            context.observer.event(TdbEvent::TokenReadings { side: index, name, data });
                        }
                        ProcessingResponseData::ScoredTokens(data)
                    }
                    ProcessingRequestSpec::TokenPairAttribution(spec) => {
                        let nodes = nodes_by_name.get(spec.depends_on_spec_name.as_str()).cloned().unwrap_or_default();
                        let data = self.token_pairs(store.side(), spec, nodes)?;
                        if context.observer.listens() {
                            let (name, data) = (name.clone(), data.clone());
                            context.observer.event(TdbEvent::TokenPairs { side: index, name, data });
                        }
                        ProcessingResponseData::TokenPairAttribution(data)
                    }
                };
                answers[index].insert(place, data);
            }
        }
        let named = requests.iter().zip(answers).map(|(request, answers)| {
            let names = request.processing_request_spec_by_name.keys().cloned();
            names.zip(answers.into_values()).collect()
        });
        Ok(named.collect())
    }

    /// Probabilities of the listed tokens, and where the tokens of interest stand.
    fn candidates(
        &self,
        index: usize,
        side: &Side<'_>,
        spec: &MultipleTopKDerivedScalarsRequestSpec,
        nodes: &[MirroredNodeIndex],
        interest: &Interest,
    ) -> Result<TdbEvent> {
        let token = spec.token_index.and_then(|t| wrap(t, side.tokens())).unwrap_or(side.tokens() - 1);
        let logits = side.forward.logits(self.model(), token);
        let mut probabilities = logits.clone();
        tdb_model::kernels::softmax(&mut probabilities);
        let listed = nodes.iter().map(|node| {
            let id = node.tensor_indices.last().copied().flatten().and_then(|id| usize::try_from(id).ok());
            f64::from(id.and_then(|id| probabilities.get(id)).copied().unwrap_or_default())
        });
        let of_interest = interest.iter().map(|&(id, role)| {
            let logit = logits[id as usize];
            TokenOfInterest {
                token: self.token_text(id),
                token_id: i64::from(id),
                logit: f64::from(logit),
                probability: f64::from(probabilities[id as usize]),
                rank: 1 + logits.iter().filter(|x| **x > logit).count() as i64,
                role: role.to_owned(),
            }
        });
        Ok(TdbEvent::Candidates {
            side: index,
            name: "topOutputTokenLogits".to_owned(),
            probabilities: listed.collect(),
            tokens_of_interest: of_interest.collect(),
        })
    }

    fn ranked(
        &self,
        store: &mut Store<'_, '_>,
        spec: &MultipleTopKDerivedScalarsRequestSpec,
        ranking: Ranking,
        nodes: &[MirroredNodeIndex],
    ) -> Result<MultipleTopKDerivedScalarsResponseData> {
        let mut activations_by_group_id = IndexMap::new();
        for (group, dsts) in &spec.dst_list_by_group_id {
            let mut values = Vec::with_capacity(nodes.len());
            for node in nodes {
                values.push(f64::from(value_of(store, dsts, node)?));
            }
            activations_by_group_id.insert(*group, values);
        }
        let text = |node: &MirroredNodeIndex| match node.node_type {
            NodeType::VocabToken => node.tensor_indices.last().copied().flatten().map(|t| self.token_text(t as u32)),
            _ => None,
        };
        let texts: Vec<Option<String>> = nodes.iter().map(text).collect();
        Ok(MultipleTopKDerivedScalarsResponseData {
            response_data_type: Default::default(),
            activations_by_group_id,
            node_indices: nodes.to_vec(),
            vocab_token_strings_for_indices: texts.iter().any(Option::is_some).then_some(texts),
            intermediate_sum_activations_by_dst_by_group_id: ranking.sums,
        })
    }
}

/// Vocabulary ids that the question is about, each with its role.
type Interest = Vec<(u32, &'static str)>;

/// Each node of a list once, and the sums of each scalar.
struct Ranking {
    nodes: Vec<MirroredNodeIndex>,
    sums: IndexMap<GroupId, IndexMap<Dst, TensorND>>,
}

/// Group by group: the largest of every kind of node, merged in descending order, then the smallest likewise.
fn rank(store: &mut Store<'_, '_>, spec: &MultipleTopKDerivedScalarsRequestSpec) -> Result<Ranking> {
    let mut nodes = Vec::new();
    let mut seen = HashSet::new();
    let mut sums: IndexMap<GroupId, IndexMap<Dst, TensorND>> = IndexMap::new();
    for (group, dsts) in &spec.dst_list_by_group_id {
        let mut sides: [Vec<(f32, MirroredNodeIndex)>; 2] = [Vec::new(), Vec::new()];
        for dst in dsts {
            let dimensions = derived::dimensions(*dst);
            let keep: Vec<bool> =
                dimensions.iter().map(|d| spec.dimensions_to_keep_for_intermediate_sum.contains(d)).collect();
            let k = match spec.top_and_bottom_k {
                Some(k) => k as usize,
                None => NODE_LIMIT,
            };
            let layers = store.side().layers(*dst)?;
            let extremes = store.extremes(*dst, PassType::Forward, k, spec.token_index, &keep)?;
            let dims = store.get(*dst, PassType::Forward, layers[0])?.dims();
            let node = |entry: &Entry| {
                let mut index = vec![0; dims.len()];
                unflatten(entry.at, &dims, &mut index);
                let mut tensor_indices: Vec<Option<i64>> = index.iter().map(|i| Some(*i as i64)).collect();
                if let Some(token) = spec.token_index {
                    tensor_indices[0] = Some(token);
                }
                MirroredNodeIndex {
                    node_type: derived::node_type(*dst),
                    tensor_indices,
                    layer_index: layers[entry.layer].map(|l| l as i64),
                    pass_type: PassType::Forward,
                }
            };
            sides[0].extend(extremes.top.iter().map(|e| (e.value, node(e))));
            sides[1].extend(extremes.bottom.iter().map(|e| (e.value, node(e))));
            sums.entry(*group).or_default().insert(*dst, to_tensor(&extremes.sum)?);
        }
        for mut side in sides {
            side.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(std::cmp::Ordering::Equal));
            for (_, node) in side {
                if seen.insert(node_key(&node)) {
                    nodes.push(node);
                }
            }
        }
    }
    Ok(Ranking { nodes, sums })
}

type NodeKey = (NodeType, Option<i64>, Vec<Option<i64>>);

fn node_key(node: &MirroredNodeIndex) -> NodeKey {
    (node.node_type, node.layer_index, node.tensor_indices.clone())
}

/// The value of a node in one group: of the group's scalar that is about its kind of node.
fn value_of(store: &mut Store<'_, '_>, dsts: &[Dst], node: &MirroredNodeIndex) -> Result<f32> {
    let Some(dst) = dsts.iter().find(|dst| derived::node_type(**dst) == node.node_type) else {
        return bad!("no scalar of this group is about nodes of type \"{}\"", node.node_type);
    };
    let layer = node.layer_index.map(|l| l as usize);
    let values = store.get(*dst, PassType::Forward, layer)?;
    let dims = values.dims();
    let mut index = Vec::with_capacity(dims.len());
    for (i, n) in node.tensor_indices.iter().zip(&dims) {
        match i.and_then(|i| wrap(i, *n)) {
            Some(i) => index.push(i),
            None => return bad!("a node of type \"{}\" has index {i:?}, outside 0..{n}", node.node_type),
        }
    }
    let value = values.at(&index);
    match value.is_finite() {
        true => Ok(value),
        false => bad!("\"{dst}\" is not a finite number at a listed node"),
    }
}

/// As it crosses the wire; what is not finite is told as -999, as clients know it.
fn to_tensor(array: &Array) -> Result<TensorND> {
    let number = |x: &f32| if x.is_finite() { f64::from(*x) } else { -999.0 };
    let numbers: Vec<f64> = array.data().iter().map(number).collect();
    let rows = |numbers: &[f64], n: usize| -> Vec<Vec<f64>> {
        if n == 0 { Vec::new() } else { numbers.chunks(n).map(<[f64]>::to_vec).collect() }
    };
    Ok(match array.dims() {
        [] => TensorND::Tensor0D(f64::from(array.data()[0])),
        [_] => TensorND::Tensor1D(numbers),
        [_, n] => TensorND::Tensor2D(rows(&numbers, *n)),
        [_, m, n] => TensorND::Tensor3D(numbers.chunks(m * n).map(|matrix| rows(matrix, *n)).collect()),
        dims => return bad!("sums can keep at most three dimensions, not {}", dims.len()),
    })
}

/// Whether a scalar is defined through gradients.
fn needs_gradient(dst: Dst, pass: PassType) -> bool {
    let name = dst.as_str();
    pass == PassType::Backward
        || name.ends_with("act_times_grad")
        || name.contains("act_times_grad_per_")
        || name.contains("final_residual_grad")
        || dst == Dst::TokenAttribution
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

/// What can be told wrong about the specs of one sub-request before anything runs.
fn check_specs(request: &InferenceSubRequest) -> Result<()> {
    let mut earlier: HashSet<&str> = HashSet::new();
    for (name, spec) in &request.processing_request_spec_by_name {
        match spec {
            ProcessingRequestSpec::MultipleTopKDerivedScalars(spec) => {
                check_groups(spec)?;
                earlier.insert(name);
            }
            ProcessingRequestSpec::ScoredTokens(spec) => {
                check_dependency(name, &spec.depends_on_spec_name, &earlier)?;
                if spec.num_tokens < 1 {
                    return bad!("numTokens of \"{name}\" is {}; it must be at least 1", spec.num_tokens);
                }
            }
            ProcessingRequestSpec::TokenPairAttribution(spec) => {
                check_dependency(name, &spec.depends_on_spec_name, &earlier)?;
                if spec.num_tokens_attended_to < 1 {
                    return bad!(
                        "numTokensAttendedTo of \"{name}\" is {}; it must be at least 1",
                        spec.num_tokens_attended_to
                    );
                }
            }
            ProcessingRequestSpec::DerivedScalars(_) | ProcessingRequestSpec::DerivedAttentionScalars(_) => {}
        }
    }
    Ok(())
}

fn check_dependency(name: &str, on: &str, earlier: &HashSet<&str>) -> Result<()> {
    match earlier.contains(on) {
        true => Ok(()),
        false => bad!("\"{name}\" depends on \"{on}\", but no ranked list of that name comes before it"),
    }
}

fn check_groups(spec: &MultipleTopKDerivedScalarsRequestSpec) -> Result<()> {
    if let Some(k) = spec.top_and_bottom_k
        && k < 1
    {
        return bad!("topAndBottomK is {k}; it must be at least 1, or null for everything");
    }
    let node_types = |dsts: &[Dst]| dsts.iter().map(|dst| derived::node_type(*dst)).collect::<Vec<_>>();
    let mut groups = spec.dst_list_by_group_id.iter();
    let Some((first_name, first)) = groups.next() else {
        return bad!("dstListByGroupId is empty; give at least one group");
    };
    let expected = node_types(first);
    if expected.is_empty() {
        return bad!("the group \"{first_name}\" is empty; give at least one derived scalar");
    }
    if (1..expected.len()).any(|i| expected[..i].contains(&expected[i])) {
        return bad!("the derived scalars of group \"{first_name}\" must each be about another kind of node");
    }
    match groups.find(|(_, dsts)| node_types(dsts) != expected) {
        None => Ok(()),
        Some((name, _)) => {
            bad!("groups \"{first_name}\" and \"{name}\" must be about the same kinds of node in the same order")
        }
    }
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
