//! From requests to answers: plan, run, derive, score.

use std::collections::{HashMap, HashSet};

use tdb_api::stream::{Fold, TdbEvent, TokenOfInterest};
use tdb_api::wire::FieldPath;
use tdb_api::{
    AlignedTokens, Alignment, AnotherAnswer, BatchedRequest, BatchedResponse, BatchedTdbRequest,
    DerivedAttentionScalarsRequest, DerivedAttentionScalarsResponse, DerivedScalarsRequest, DerivedScalarsResponse,
    IndexMap, InferenceSubRequest, MirroredNodeIndex, MultipleTopKDerivedScalarsRequest,
    MultipleTopKDerivedScalarsRequestSpec, MultipleTopKDerivedScalarsResponse, MultipleTopKDerivedScalarsResponseData,
    NodeType, ProcessingRequestSpec, ProcessingResponseData, Single, TdbRequestSpec,
};

use crate::alignment;
use crate::checks::{check_lists, check_specs, field_of_run, field_of_spec};
use crate::collected::collected;
use crate::context::Context;
use crate::contributions::{AsLatents, contributions};
use crate::derived::gradient_sites;
use crate::engine::Engine;
use crate::error::{At, Error, Result, bad};
use crate::ledger;
use crate::rank::{NODE_LIMIT, Ranking, node_key, rank, values_of};
use crate::side::{Plan, Side};
use crate::store::Store;
use crate::tdb::{NODE_TABLE, OUTPUT_LOGITS, field_of_question, to_inference_sub_request};
use crate::values::wrap;

impl Engine {
    /// `POST /batched_tdb`.
    ///
    /// # Errors
    /// [`Error::Bad`] with what is wrong and what would be right; [`Error::Cancelled`] if the observer wants no more.
    pub fn batched_tdb(&self, request: &BatchedTdbRequest, context: &Context<'_>) -> Result<BatchedResponse> {
        let fold = Fold::new(request.sub_requests.len());
        Ok(collected(fold, context, |context| self.send_batched_tdb(request, context))?.response)
    }

    /// The same, part by part to the observer as they are ready, with what a stream tells beside them.
    ///
    /// # Errors
    /// As [`Engine::batched_tdb`].
    pub fn send_batched_tdb(&self, request: &BatchedTdbRequest, context: &Context<'_>) -> Result<()> {
        let spelled_out =
            |(i, spec)| to_inference_sub_request(self.model(), spec).at(|| FieldPath::of("subRequests").index(i));
        let sub_requests = request.sub_requests.iter().enumerate().map(spelled_out).collect::<Result<_>>()?;
        let tokens = request.sub_requests.iter().map(|spec| self.tokens_of_interest(spec)).collect();
        let latents = request.sub_requests.iter().map(AsLatents::of).collect();
        let (alignment, checks) = (request.alignment.as_deref(), request.checks == Some(true));
        let beside = Beside { tokens, latents, alignment, checks };
        let request = BatchedRequest { inference_sub_requests: sub_requests };
        self.send(&request, beside, context).map_err(|error| error.moved(field_of_question))
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
        let requests = &request.inference_sub_requests;
        let send = |context: &Context<'_>| self.send(request, Beside::default(), context);
        let mut response = collected(Fold::new(requests.len()), context, send)?.response;
        for (request, answer) in requests.iter().zip(&mut response.inference_sub_responses) {
            let place = |name: &str| request.processing_request_spec_by_name.get_index_of(name);
            answer.processing_response_data_by_name.sort_by(|a, _, b, _| place(a).cmp(&place(b)));
        }
        Ok(response)
    }

    fn send(&self, request: &BatchedRequest, beside: Beside<'_>, context: &Context<'_>) -> Result<()> {
        let requests = &request.inference_sub_requests;
        if requests.is_empty() {
            return bad!(at "inferenceSubRequests", "is empty; give at least one");
        }
        requests.iter().enumerate().try_for_each(|(i, request)| check_specs(request).at(|| field_of_run(i)))?;
        check_lists(requests)?;
        let plan = |(i, request): (usize, &InferenceSubRequest)| {
            Plan::new(self, &request.inference_request_spec).at(|| field_of_run(i).key("inferenceRequestSpec"))
        };
        let plans = requests.iter().enumerate().map(plan).collect::<Result<Vec<_>>>()?;
        let lens: Vec<usize> = plans.iter().map(|plan| plan.tokens.len()).collect();
        let alignment = alignment::of_nodes(beside.alignment, &lens)?;
        self.check_prompts(requests, &plans, alignment.is_some())?;
        self.check_size(requests, &plans, &context.bounds)?;
        let mut sides = self.forward(plans, context)?;
        let mut nodes = NodesByName { alignment, lists: HashMap::new() };
        let is_early = |name: &str| leaves_early(requests, name);
        self.rank_lists(requests, &mut stores(&sides), &beside.tokens, &mut nodes, is_early, context)?;
        self.backward(&mut sides, requests, context)?;
        tell_contributions(&sides, &beside.latents, context)?;
        let mut stores = stores(&sides);
        self.rank_lists(requests, &mut stores, &beside.tokens, &mut nodes, |name| !is_early(name), context)?;
        self.tell_specs(requests, &mut stores, &nodes, context)?;
        if beside.checks {
            for (index, side) in sides.iter().enumerate() {
                let checks = ledger::of_side(side, nodes.of(NODE_TABLE, index))?;
                context.observer.event(TdbEvent::Checks { side: Some(index), checks });
            }
        }
        Ok(())
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
        self.single(request, context)
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
        self.single(request, context)
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
        self.single(request, context)
    }

    fn single<Q: Single>(&self, request: &Q, context: &Context<'_>) -> Result<Q::Answer> {
        let response = self.batched(&request.clone().into(), context);
        let response = response.map_err(|error| error.moved(Q::field_as_asked))?;
        response.try_into().map_err(|error: AnotherAnswer| Error::Internal(error.to_string()))
    }

    /// The ranked lists under the names that are wanted.
    fn rank_lists<'a>(
        &self,
        requests: &'a [InferenceSubRequest],
        stores: &mut [Store<'_, '_>],
        interest: &[Interest],
        nodes_by_name: &mut NodesByName<'a>,
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
            for (i, (request, store)) in requests.iter().zip(&mut *stores).enumerate() {
                let Some(ProcessingRequestSpec::MultipleTopKDerivedScalars(spec)) =
                    request.processing_request_spec_by_name.get(name)
                else {
                    ranked.push(None);
                    continue;
                };
                let ranking = rank(store, spec).at(|| field_of_spec(i, name))?;
                ranked.push(Some((spec, ranking)));
            }
            let rankings = ranked.iter().map(|of| of.as_ref().map(|(_, ranking)| ranking.nodes.as_slice()));
            nodes_by_name.put(name, rankings.map(Option::unwrap_or_default))?;
            for (index, ranking) in ranked.into_iter().enumerate() {
                let Some((spec, ranking)) = ranking else { continue };
                let nodes = nodes_by_name.of(name, index);
                let data = self.ranked(&mut stores[index], spec, ranking, nodes);
                let data = data.at(|| field_of_spec(index, name))?;
                let data = ProcessingResponseData::MultipleTopKDerivedScalars(data);
                context.observer.part(index, name, data);
                if let Some(interest) = interest.get(index)
                    && context.observer.listens()
                    && name == OUTPUT_LOGITS
                {
                    context.observer.event(self.candidates(index, stores[index].side(), spec, nodes, interest)?);
                }
            }
        }
        Ok(())
    }

    /// What is asked beside ranked lists.
    fn tell_specs(
        &self,
        requests: &[InferenceSubRequest],
        stores: &mut [Store<'_, '_>],
        nodes_by_name: &NodesByName<'_>,
        context: &Context<'_>,
    ) -> Result<()> {
        use ProcessingResponseData as Part;
        for (index, (request, store)) in requests.iter().zip(stores).enumerate() {
            let nodes = |name: &str| nodes_by_name.of(name, index).to_vec();
            for (name, spec) in &request.processing_request_spec_by_name {
                if context.observer.is_cancelled() {
                    return Err(Error::Cancelled);
                }
                let part = match spec {
                    ProcessingRequestSpec::MultipleTopKDerivedScalars(_) => continue,
                    ProcessingRequestSpec::DerivedScalars(spec) => {
                        self.component_scalars(store, spec, context).map(Part::DerivedScalars)
                    }
                    ProcessingRequestSpec::DerivedAttentionScalars(spec) => {
                        self.attention_scalars(store, spec, context).map(Part::DerivedAttentionScalars)
                    }
                    ProcessingRequestSpec::ScoredTokens(spec) => {
                        let nodes = nodes(&spec.depends_on_spec_name);
                        self.scored_tokens(store.side(), spec, nodes).map(Part::ScoredTokens)
                    }
                    ProcessingRequestSpec::TokenPairAttribution(spec) => {
                        let nodes = nodes(&spec.depends_on_spec_name);
                        self.token_pairs(store.side(), spec, nodes).map(Part::TokenPairAttribution)
                    }
                };
                context.observer.part(index, name, part.at(|| field_of_spec(index, name))?);
            }
        }
        Ok(())
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

/// Of each ranked list its nodes, those of all sides together.
struct NodesByName<'a> {
    alignment: Option<Alignment>,
    /// One list for all sides, or one for each where nodes are named by the tokens of their side.
    lists: HashMap<&'a str, Vec<Vec<MirroredNodeIndex>>>,
}

impl<'a> NodesByName<'a> {
    /// The nodes under a name as a side names them.
    fn of(&self, name: &str, side: usize) -> &[MirroredNodeIndex] {
        let lists = self.lists.get(name).map(Vec::as_slice).unwrap_or_default();
        lists.get(side).or(lists.first()).map(Vec::as_slice).unwrap_or_default()
    }

    /// Puts those that were ranked on each side together, each once.
    fn put<'n>(&mut self, name: &'a str, ranked: impl Iterator<Item = &'n [MirroredNodeIndex]>) -> Result<()> {
        let mut lists = vec![Vec::new(); if self.alignment.is_some() { 2 } else { 1 }];
        let mut seen = HashSet::new();
        for (side, nodes) in ranked.enumerate() {
            for node in nodes {
                for (to, list) in lists.iter_mut().enumerate() {
                    let named = match &self.alignment {
                        Some(alignment) if to != side => alignment.node(side, node),
                        _ => Some(node.clone()),
                    };
                    if let Some(node) = named.filter(|node| seen.insert((to, node_key(node)))) {
                        list.push(node);
                    }
                }
            }
        }
        if let Some(list) = lists.iter().find(|list| list.len() > NODE_LIMIT) {
            return bad!("the answer would list {} nodes; ask for fewer with topAndBottomK", list.len());
        }
        self.lists.insert(name, lists);
        Ok(())
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
struct Beside<'a> {
    tokens: Vec<Interest>,
    latents: Vec<AsLatents>,
    /// Which tokens of two prompts stand for each other.
    alignment: Option<&'a [AlignedTokens]>,
    checks: bool,
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
