//! From requests to answers: plan, run, derive, score.

use std::collections::{BTreeMap, HashMap, HashSet};

use tdb_api::stream::{TdbEvent, TokenOfInterest};
use tdb_api::{
    BatchedRequest, BatchedResponse, BatchedTdbRequest, Check, DerivedAttentionScalarsRequest,
    DerivedAttentionScalarsResponse, DerivedScalarsRequest, DerivedScalarsResponse, IndexMap, InferenceAndTokenData,
    InferenceRequestSpec, InferenceResponse, InferenceResponseAndResponseDict, InferenceSubRequest, MirroredNodeIndex,
    MultipleTopKDerivedScalarsRequest, MultipleTopKDerivedScalarsRequestSpec, MultipleTopKDerivedScalarsResponse,
    MultipleTopKDerivedScalarsResponseData, NodeType, ProcessingRequestSpec, ProcessingResponseData, TdbRequestSpec,
};

use crate::checks::{check_lists, check_specs};
use crate::context::Context;
use crate::contributions::{AsLatents, contributions};
use crate::derived::gradient_sites;
use crate::engine::Engine;
use crate::error::{Error, Result, bad};
use crate::ledger;
use crate::rank::{NODE_LIMIT, Ranking, node_key, rank, values_of};
use crate::side::{Plan, Side};
use crate::store::Store;
use crate::tdb::{NODE_TABLE, OUTPUT_LOGITS, to_inference_sub_request};
use crate::values::wrap;

impl Engine {
    /// `POST /batched_tdb`.
    ///
    /// # Errors
    /// [`Error::Bad`] with what is wrong and what would be right; [`Error::Cancelled`] if the observer wants no more.
    pub fn batched_tdb(&self, request: &BatchedTdbRequest, context: &Context<'_>) -> Result<BatchedResponse> {
        let sub_requests = request
            .sub_requests
            .iter()
            .map(|spec| to_inference_sub_request(self.model(), spec))
            .collect::<Result<_>>()?;
        let tokens = request.sub_requests.iter().map(|spec| self.tokens_of_interest(spec)).collect();
        let latents = request.sub_requests.iter().map(AsLatents::of).collect();
        let beside = Beside { tokens, latents, checks: request.checks == Some(true) };
        self.respond(&BatchedRequest { inference_sub_requests: sub_requests }, beside, context)
    }

    /// Targets and distractors with their roles; one that is no single token is told about elsewhere.
    fn tokens_of_interest(&self, spec: &TdbRequestSpec) -> Interest {
        let roles = [("target", &spec.target_tokens), ("distractor", &spec.distractor_tokens)];
        let tokens = roles.iter().flat_map(|(role, tokens)| tokens.iter().map(move |token| (*role, token)));
        tokens.filter_map(|(role, token)| Some((self.token(token).ok()?, role))).collect()
    }

    /// `POST /batched`. Nodes ranked in one sub-request are reported in all of them.
    ///
    /// # Errors
    /// As [`Engine::batched_tdb`].
    pub fn batched(&self, request: &BatchedRequest, context: &Context<'_>) -> Result<BatchedResponse> {
        self.respond(request, Beside::default(), context)
    }

    fn respond(&self, request: &BatchedRequest, beside: Beside, context: &Context<'_>) -> Result<BatchedResponse> {
        let requests = &request.inference_sub_requests;
        if requests.is_empty() {
            return bad!("the list of sub-requests is empty; give at least one");
        }
        requests.iter().try_for_each(check_specs)?;
        check_lists(requests)?;
        let plans = requests.iter().map(|r| Plan::new(self, &r.inference_request_spec)).collect::<Result<Vec<_>>>()?;
        self.check_prompts(requests, &plans)?;
        self.check_size(requests, &plans, &context.bounds)?;
        let mut sides = self.forward(plans, context)?;
        let mut lists = Lists::new(requests);
        let is_early = |name: &str| leaves_early(requests, name);
        self.rank_lists(requests, &mut stores(&sides), &beside.tokens, &mut lists, is_early, context)?;
        self.backward(&mut sides, requests, context)?;
        tell_contributions(&sides, &beside.latents, context)?;
        let mut stores = stores(&sides);
        self.rank_lists(requests, &mut stores, &beside.tokens, &mut lists, |name| !is_early(name), context)?;
        let answers = self.answer(requests, &mut stores, lists, context)?;
        let mut inference_sub_responses = Vec::with_capacity(sides.len());
        for (index, (side, answers)) in sides.iter().zip(answers).enumerate() {
            let checks = beside.checks.then(|| checks_of(index, side, &answers, context)).transpose()?;
            inference_sub_responses.push(InferenceResponseAndResponseDict {
                inference_response: InferenceResponse { inference_and_token_data: side.data() },
                processing_response_data_by_name: answers,
                checks,
            });
        }
        Ok(BatchedResponse { inference_sub_responses })
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
        let (inference_and_token_data, data) = self.single(&request.inference_request_spec, spec, context)?;
        let ProcessingResponseData::DerivedScalars(derived_scalars_response_data) = data else {
            return Err(another_answer());
        };
        Ok(DerivedScalarsResponse { inference_and_token_data, derived_scalars_response_data })
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
        let (inference_and_token_data, data) = self.single(&request.inference_request_spec, spec, context)?;
        let ProcessingResponseData::DerivedAttentionScalars(derived_attention_scalars_response_data) = data else {
            return Err(another_answer());
        };
        Ok(DerivedAttentionScalarsResponse { inference_and_token_data, derived_attention_scalars_response_data })
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
        let (inference_and_token_data, data) = self.single(&request.inference_request_spec, spec, context)?;
        let ProcessingResponseData::MultipleTopKDerivedScalars(multiple_top_k_derived_scalars_response_data) = data
        else {
            return Err(another_answer());
        };
        Ok(MultipleTopKDerivedScalarsResponse {
            inference_and_token_data,
            multiple_top_k_derived_scalars_response_data,
        })
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

    /// The ranked lists under the names that are wanted.
    fn rank_lists<'a>(
        &self,
        requests: &'a [InferenceSubRequest],
        stores: &mut [Store<'_, '_>],
        interest: &[Interest],
        lists: &mut Lists<'a>,
        wants: impl Fn(&str) -> bool,
        context: &Context<'_>,
    ) -> Result<()> {
        let mut names: Vec<&str> = Vec::new();
        for request in requests {
            for (name, spec) in &request.processing_request_spec_by_name {
                if matches!(spec, ProcessingRequestSpec::MultipleTopKDerivedScalars(_))
                    && !names.contains(&name.as_str())
                    && wants(name)
                {
                    names.push(name);
                }
            }
        }
        for name in names {
            let mut ranked = Vec::with_capacity(stores.len());
            let mut nodes = Vec::new();
            let mut seen = HashSet::new();
            for (request, store) in requests.iter().zip(&mut *stores) {
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
                    context.observer.event(match name == OUTPUT_LOGITS {
                        true => TdbEvent::OutputLogits { side, name, data },
                        false => TdbEvent::NodeGroups { side, name, data },
                    });
                }
                if let Some(interest) = interest.get(index)
                    && context.observer.listens()
                    && name == OUTPUT_LOGITS
                {
                    context.observer.event(self.candidates(index, stores[index].side(), spec, &nodes, interest)?);
                }
                let place = requests[index].processing_request_spec_by_name.get_index_of(name);
                lists.answers[index]
                    .insert(place.unwrap_or_default(), ProcessingResponseData::MultipleTopKDerivedScalars(data));
            }
            lists.nodes_by_name.insert(name, nodes);
        }
        Ok(())
    }

    /// What is asked beside ranked lists, and all of it by its names.
    fn answer(
        &self,
        requests: &[InferenceSubRequest],
        stores: &mut [Store<'_, '_>],
        lists: Lists<'_>,
        context: &Context<'_>,
    ) -> Result<Vec<IndexMap<String, ProcessingResponseData>>> {
        let Lists { mut answers, nodes_by_name } = lists;
        for (index, (request, store)) in requests.iter().zip(stores).enumerate() {
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
        let logits = side.run.logits(token)?;
        let mut probabilities = logits.clone();
        tdb_model::numbers::softmax(&mut probabilities);
        let listed = nodes.iter().map(|node| {
            let id = node.tensor_indices.last().copied().flatten().and_then(|id| usize::try_from(id).ok());
            f64::from(id.and_then(|id| probabilities.get(id)).copied().unwrap_or_default())
        });
        let above = |logit: f32| {
            let larger = logits.iter().enumerate().filter(|(token, x)| **x > logit && self.has_token(*token));
            larger.count() as i64
        };
        let of_interest = interest.iter().map(|&(id, role)| {
            let logit = logits[id as usize];
            TokenOfInterest {
                token: self.token_text(id),
                token_id: i64::from(id),
                logit: f64::from(logit),
                probability: f64::from(probabilities[id as usize]),
                rank: 1 + above(logit),
                role: role.to_owned(),
            }
        });
        Ok(TdbEvent::Candidates {
            side: index,
            name: OUTPUT_LOGITS.to_owned(),
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
            let values = values_of(store, dsts, nodes)?;
            activations_by_group_id.insert(*group, values.into_iter().map(f64::from).collect());
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

/// The ranked lists of an answer as far as they are there.
struct Lists<'a> {
    /// Of each side, by their place in its request.
    answers: Vec<BTreeMap<usize, ProcessingResponseData>>,
    nodes_by_name: HashMap<&'a str, Vec<MirroredNodeIndex>>,
}

impl Lists<'_> {
    fn new(requests: &[InferenceSubRequest]) -> Self {
        Lists { answers: requests.iter().map(|_| BTreeMap::new()).collect(), nodes_by_name: HashMap::new() }
    }
}

/// Whether a list leaves before gradients are computed: the candidates for the next token, which need none.
fn leaves_early(requests: &[InferenceSubRequest], name: &str) -> bool {
    let needs_none = |request: &InferenceSubRequest| match request.processing_request_spec_by_name.get(name) {
        Some(ProcessingRequestSpec::MultipleTopKDerivedScalars(spec)) => {
            let dsts = spec.dst_list_by_group_id.values().flatten();
            dsts.map(|dst| gradient_sites(*dst, spec.pass_type)).all(|sites| sites.is_empty())
        }
        _ => true,
    };
    name == OUTPUT_LOGITS && requests.iter().all(needs_none)
}

fn stores<'s, 'e>(sides: &'s [Side<'e>]) -> Vec<Store<'s, 'e>> {
    sides.iter().map(Store::new).collect()
}

/// What is told beside the answer: by a stream, for each side, and in any case if the request asks for checks.
#[derive(Default)]
struct Beside {
    tokens: Vec<Interest>,
    latents: Vec<AsLatents>,
    checks: bool,
}

fn checks_of(
    index: usize,
    side: &Side<'_>,
    answers: &IndexMap<String, ProcessingResponseData>,
    context: &Context<'_>,
) -> Result<Vec<Check>> {
    let nodes = match answers.get(NODE_TABLE) {
        Some(ProcessingResponseData::MultipleTopKDerivedScalars(table)) => table.node_indices.as_slice(),
        _ => &[],
    };
    let checks = ledger::of_side(side, nodes)?;
    context.tell(|| TdbEvent::Checks { side: Some(index), checks: checks.clone() });
    Ok(checks)
}

fn tell_contributions(sides: &[Side<'_>], latents: &[AsLatents], context: &Context<'_>) -> Result<()> {
    if !context.observer.listens() {
        return Ok(());
    }
    for (index, (side, latents)) in sides.iter().zip(latents).enumerate() {
        if let Some(data) = contributions(side, *latents)? {
            context.observer.event(TdbEvent::Contributions { side: index, data });
        }
    }
    Ok(())
}

/// Vocabulary ids that the question is about, each with its role.
type Interest = Vec<(u32, &'static str)>;

fn another_answer() -> Error {
    Error::Internal("an answer of another kind than the question".to_owned())
}
