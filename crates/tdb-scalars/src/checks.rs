//! What can be told wrong about a request before anything runs.

use std::collections::{HashMap, HashSet};

use tdb_api::{
    DerivedScalarType as Dst, InferenceSubRequest, MultipleTopKDerivedScalarsRequestSpec, NodeType,
    ProcessingRequestSpec,
};

use crate::derived;
use crate::engine::Engine;
use crate::error::{Result, bad};
use crate::side::Plan;

/// Longest prompt, in tokens, of a request that ranks nodes.
pub const RANKED_PROMPT_LIMIT: usize = 500;

impl Engine {
    /// Prompts whose nodes are ranked together must be alike in length, and not too long.
    pub(crate) fn check_prompts(&self, requests: &[InferenceSubRequest], plans: &[Plan]) -> Result<()> {
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
}

/// Nodes of one list are told apart by type, layer and indices alone, so that scalars about one type of node must count
/// the same things. Lists of one name in several sub-requests are one list.
pub(crate) fn check_lists(requests: &[InferenceSubRequest]) -> Result<()> {
    let mut first: HashMap<(&str, NodeType), Dst> = HashMap::new();
    for (name, spec) in requests.iter().flat_map(|request| &request.processing_request_spec_by_name) {
        let ProcessingRequestSpec::MultipleTopKDerivedScalars(spec) = spec else { continue };
        for dst in spec.dst_list_by_group_id.values().flatten() {
            let earlier = *first.entry((name, derived::node_type(*dst))).or_insert(*dst);
            let (a, b) = (counted(earlier), counted(*dst));
            if a != b {
                return bad!(
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
