//! What can be told wrong about a request before anything runs.

use std::collections::{HashMap, HashSet};

use tdb_api::wire::FieldPath;
use tdb_api::{
    DerivedScalarType as Dst, InferenceSubRequest, MultipleTopKDerivedScalarsRequestSpec, NodeType,
    ProcessingRequestSpec,
};

use crate::derived;
use crate::engine::Engine;
use crate::error::{At, Result, bad};
use crate::side::Plan;

/// Longest prompt, in tokens, of a request that ranks nodes.
pub const RANKED_PROMPT_LIMIT: usize = 500;

impl Engine {
    /// Prompts whose nodes are ranked together must not be too long, and alike in length unless it is said which of their
    /// tokens stand for each other.
    pub(crate) fn check_prompts(
        &self,
        requests: &[InferenceSubRequest],
        plans: &[Plan],
        are_aligned: bool,
    ) -> Result<()> {
        let ranks = |request: &InferenceSubRequest| {
            let mut specs = request.processing_request_spec_by_name.values();
            specs.any(|spec| matches!(spec, ProcessingRequestSpec::MultipleTopKDerivedScalars(_)))
        };
        let ranked = requests.iter().zip(plans).enumerate().filter(|(_, (r, _))| ranks(r));
        let ranked: Vec<(usize, &Plan)> = ranked.map(|(i, (_, plan))| (i, plan)).collect();
        let prompt = |i: usize| field_of_run(i).key("inferenceRequestSpec").key("prompt");
        if let Some((i, plan)) = ranked.iter().find(|(_, plan)| plan.tokens.len() > RANKED_PROMPT_LIMIT) {
            let found = plan.tokens.len();
            return bad!(
                at prompt(*i),
                "has {found} tokens; a request that ranks nodes takes at most {RANKED_PROMPT_LIMIT}"
            );
        }
        let len = |of: &(usize, &Plan)| of.1.tokens.len();
        if let Some(pair) = ranked.windows(2).find(|pair| len(&pair[0]) != len(&pair[1])).filter(|_| !are_aligned) {
            let found = ranked.iter().map(|of| len(of).to_string()).collect::<Vec<_>>().join(" and ");
            return bad!(
                at prompt(pair[1].0),
                "the prompts have {found} tokens; make them equally long, or say in alignment which tokens stand for each \
                 other, so that nodes can be compared"
            );
        }
        Ok(())
    }
}

/// Nodes of one list are told apart by type, layer and indices alone, so that scalars about one type of node must count
/// the same things. Lists of one name in several sub-requests are one list.
pub(crate) fn check_lists(requests: &[InferenceSubRequest]) -> Result<()> {
    let mut first: HashMap<(&str, NodeType), Dst> = HashMap::new();
    let all = requests.iter().enumerate();
    for (i, (name, spec)) in all.flat_map(|(i, r)| r.processing_request_spec_by_name.iter().map(move |x| (i, x))) {
        let ProcessingRequestSpec::MultipleTopKDerivedScalars(spec) = spec else { continue };
        for dst in spec.dst_list_by_group_id.values().flatten() {
            let earlier = *first.entry((name, derived::node_type(*dst))).or_insert(*dst);
            let (a, b) = (counted(earlier), counted(*dst));
            if a != b {
                return bad!(
                    at field_of_spec(i, name),
                    "\"{name}\" lists \"{earlier}\", which is counted by {a}, together with \"{dst}\", which is counted by {b}; ask for them in lists of different names"
                );
            }
        }
    }
    Ok(())
}

/// What an index of a scalar's node is made of.
fn counted(dst: Dst) -> String {
    let layer = if derived::is_whole_model(dst) { "" } else { "layer, " };
    match (derived::is_flattened(dst), derived::dimensions(dst).len()) {
        (true, _) => format!("{layer}pair of tokens and unit"),
        (false, 2) => format!("{layer}token and unit"),
        (false, n) => format!("{layer}token and {} other indices", n - 1),
    }
}

/// What can be told wrong about the specs of one sub-request before anything runs.
pub(crate) fn check_specs(request: &InferenceSubRequest) -> Result<()> {
    let mut earlier: HashSet<&str> = HashSet::new();
    for (name, spec) in &request.processing_request_spec_by_name {
        check_spec(spec, &earlier).at(|| FieldPath::of("processingRequestSpecByName").key(name))?;
        if matches!(spec, ProcessingRequestSpec::MultipleTopKDerivedScalars(_)) {
            earlier.insert(name);
        }
    }
    Ok(())
}

fn check_spec(spec: &ProcessingRequestSpec, earlier: &HashSet<&str>) -> Result<()> {
    match spec {
        ProcessingRequestSpec::MultipleTopKDerivedScalars(spec) => check_groups(spec),
        ProcessingRequestSpec::ScoredTokens(spec) => {
            check_dependency(&spec.depends_on_spec_name, earlier)?;
            match spec.num_tokens {
                n if n < 1 => bad!(at "numTokens", "is {n}; it must be at least 1"),
                _ => Ok(()),
            }
        }
        ProcessingRequestSpec::TokenPairAttribution(spec) => {
            check_dependency(&spec.depends_on_spec_name, earlier)?;
            match spec.num_tokens_attended_to {
                n if n < 1 => bad!(at "numTokensAttendedTo", "is {n}; it must be at least 1"),
                _ => Ok(()),
            }
        }
        ProcessingRequestSpec::DerivedScalars(_) | ProcessingRequestSpec::DerivedAttentionScalars(_) => Ok(()),
    }
}

/// The place of a sub-request of `/batched`.
pub(crate) fn field_of_run(index: usize) -> FieldPath {
    FieldPath::of("inferenceSubRequests").index(index)
}

/// The place of what is asked of it under a name.
pub(crate) fn field_of_spec(index: usize, name: &str) -> FieldPath {
    field_of_run(index).key("processingRequestSpecByName").key(name)
}

fn check_dependency(on: &str, earlier: &HashSet<&str>) -> Result<()> {
    match earlier.contains(on) {
        true => Ok(()),
        false => bad!(at "dependsOnSpecName", "is \"{on}\", but no ranked list of that name comes before"),
    }
}

fn check_groups(spec: &MultipleTopKDerivedScalarsRequestSpec) -> Result<()> {
    if let Some(k) = spec.top_and_bottom_k
        && k < 1
    {
        return bad!(at "topAndBottomK", "is {k}; it must be at least 1, or null for everything");
    }
    let node_types = |dsts: &[Dst]| dsts.iter().map(|dst| derived::node_type(*dst)).collect::<Vec<_>>();
    let mut groups = spec.dst_list_by_group_id.iter();
    let Some((first_name, first)) = groups.next() else {
        return bad!(at "dstListByGroupId", "is empty; give at least one group");
    };
    let expected = node_types(first);
    if expected.is_empty() {
        return bad!(at FieldPath::of("dstListByGroupId").key(first_name.as_str()), "is empty; give at least one derived scalar");
    }
    if (1..expected.len()).any(|i| expected[..i].contains(&expected[i])) {
        return bad!(at "dstListByGroupId", "the derived scalars of group \"{first_name}\" must each be about another kind of node");
    }
    match groups.find(|(_, dsts)| node_types(dsts) != expected) {
        None => Ok(()),
        Some((name, _)) => {
            bad!(at "dstListByGroupId", "groups \"{first_name}\" and \"{name}\" must be about the same kinds of node in the same order")
        }
    }
}
