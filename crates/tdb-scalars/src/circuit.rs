//! Some nodes taken as a circuit: how much of each one's part in the objective goes through each other one, and what the
//! objective becomes when all other nodes are ablated.

use std::collections::BTreeMap;

use candle_core::Tensor;
use tdb_api::wire::FieldPath;
use tdb_api::{
    AblateTo, AttentionTraceType, CircuitEdge, CircuitRequest, CircuitResponse, ComponentTypeForAttention,
    ComponentTypeForMlp, DerivedScalarType, TdbRequestSpec,
};
use tdb_model::numbers::dot;
use tdb_model::{BackwardOptions, ForwardOptions, Hooks, Index, Numbers, Pass, Point, Run, Site, Slot};

use crate::context::Context;
use crate::edges::attribution_gradient;
use crate::effects::{Entries, NODE_SITES};
use crate::engine::Engine;
use crate::error::{At, Error, Result, bad};
use crate::nodes::{Component, EdgeNode, Node};
use crate::outcome::Outcome;
use crate::rank::{cut_layer, follows_cut};
use crate::readings::{read_node, write_vector};
use crate::side::{Plan, Side};
use crate::tdb::{field_as_asked, to_inference_sub_request};
use crate::tensors::row_of;

/// The scalar that edges are counted by, in errors about gradients.
const COUNTED: DerivedScalarType = DerivedScalarType::MlpActTimesGrad;

/// A node of the circuit.
struct Member {
    component: Component,
    entries: Entries,
    /// What it writes to the residual stream, `[D]`.
    write: Vec<f32>,
}

impl Engine {
    /// `POST /circuit`.
    ///
    /// # Errors
    /// [`Error::Bad`] with what is wrong and what would be right; [`Error::Cancelled`] if the observer wants no more.
    pub fn circuit(&self, request: &CircuitRequest, context: &Context<'_>) -> Result<CircuitResponse> {
        if request.ablate_to == AblateTo::CollatedMean {
            return bad!(at "ablateTo", "records tell no mean of heads; use \"zero\" or \"prompt_mean\"");
        }
        let spec = to_inference_sub_request(self.model(), &question(request))?.inference_request_spec;
        let plan = Plan::new(self, &spec).map_err(|error| error.moved(field_as_asked))?;
        // The run, its gradients, and one of those in which nodes are ablated.
        self.check_activations("prompt", &[plan.tokens.len(); 3], context)?;
        let mut goes_on = |_| !context.observer.is_cancelled();
        let interventions = &plan.interventions;
        let options = ForwardOptions { interventions, after_layer: Some(&mut goes_on), ..Default::default() };
        let run = self.model().forward(&plan.tokens, options)?;
        let cut = request.residual_cut_layer.map(|cut| cut_layer(self.model(), cut)).transpose()?;
        let points = self.ablated_points(request, cut);
        let mut side = self.side(plan, run, context, None)?;
        let members = members(&side, request, &points)?;
        let Some(seed) = side.seed()? else { return Err(Error::Internal("a circuit has no objective".to_owned())) };
        // The last residual stream is where the objective reads.
        let keep = [&NODE_SITES[..], &[Site::ResidPostMlp]].concat();
        let options = BackwardOptions {
            interventions: &side.plan.interventions,
            keep: &keep,
            after_layer: Some(&mut goes_on),
            ..Default::default()
        };
        side.gradients = Some(side.run.backward(seed, options)?);

        let outcome = Outcome::new(&side.run, side.plan.loss.as_ref(), None)?;
        let objective = outcome.of(&side.run)?;
        let means = match request.ablate_to {
            AblateTo::Zero => BTreeMap::new(),
            _ => points.iter().map(|point| Ok((*point, mean(&side.run, *point)?))).collect::<Result<_>>()?,
        };
        let entries: Vec<&Entries> = members.iter().map(|member| &member.entries).collect();
        let mut ablated = |members: &[&Entries], ablates_members: bool| {
            let mut hooks = Isolated { members, ablates_members, points: &points, means: &means };
            let options = ForwardOptions {
                interventions: &side.plan.interventions,
                hooks: Some(&mut hooks),
                after_layer: Some(&mut goes_on),
                ..Default::default()
            };
            outcome.of(&self.model().forward(side.run.tokens(), options)?)
        };
        let (kept, removed, empty) = (ablated(&entries, false)?, ablated(&entries, true)?, ablated(&[], false)?);
        let whole = objective - empty;
        let faithfulness = (whole.abs() > f64::from(f32::EPSILON) * objective.abs()).then(|| (kept - empty) / whole);
        let estimates = members.iter().map(|member| member.estimate(&side)).collect::<Result<_>>()?;
        let edges = edges(&side, &members)?;
        Ok(CircuitResponse { objective, kept, removed, empty, faithfulness, estimates, edges })
    }

    /// Where nodes are ablated: all heads and neurons, or the latents and the error that stand in their place; with a cut
    /// the residual latents and their error there, and of the others those that write after it.
    fn ablated_points(&self, request: &CircuitRequest, cut: Option<usize>) -> Vec<Point> {
        let model = self.model();
        let latents = [
            (Slot::Attention, request.component_type_for_attention == ComponentTypeForAttention::AutoencoderLatent),
            (Slot::Mlp, request.component_type_for_mlp == ComponentTypeForMlp::AutoencoderLatent),
        ];
        let sites = |layer: usize, (slot, latents): (Slot, bool)| match slot {
            _ if cut.is_some_and(|at| !follows_cut(model, at, slot, layer)) => Vec::new(),
            _ if latents && model.autoencoder(slot, layer).is_some() => vec![slot.latent(), slot.error()],
            Slot::Mlp if !model.block(layer).has_mlp() => Vec::new(),
            Slot::Mlp => vec![Site::MlpPostAct],
            _ => vec![Site::AttnQkProbs],
        };
        let of_layer = |layer| {
            let at_cut =
                [Slot::Residual.latent(), Slot::Residual.error()].into_iter().filter(move |_| cut == Some(layer));
            let sites = latents.into_iter().flat_map(move |latents| sites(layer, latents));
            at_cut.chain(sites).map(move |site| Point { site, layer: Some(layer) })
        };
        (0..model.config().n_layers).flat_map(of_layer).collect()
    }
}

/// The debugger's question that the circuit is about.
fn question(request: &CircuitRequest) -> TdbRequestSpec {
    TdbRequestSpec {
        spec_type: Default::default(),
        prompt: request.prompt.clone(),
        target_tokens: request.target_tokens.clone(),
        distractor_tokens: request.distractor_tokens.clone(),
        component_type_for_mlp: request.component_type_for_mlp,
        component_type_for_attention: request.component_type_for_attention,
        residual_cut_layer: request.residual_cut_layer,
        list_error_nodes: None,
        top_and_bottom_k_for_node_table: 1,
        hide_early_layers_when_ablating: false,
        node_ablations: request.node_ablations.clone(),
        upstream_node_to_trace: None,
        downstream_node_to_trace: None,
    }
}

fn members(side: &Side<'_>, request: &CircuitRequest, points: &[Point]) -> Result<Vec<Member>> {
    let member = |node| {
        let entries = Entries::of(side.model(), side.tokens(), node)?;
        let component = read_node(side, node)?;
        // Behind a cut its latents stand for the embeddings, too.
        let is_kept = matches!(component, Component::Embedding { .. }) && request.residual_cut_layer.is_none();
        if !points.contains(&entries.point) && !is_kept {
            return bad!(
                "{component} is none of the nodes that are ablated outside the circuit; componentTypeForMlp, \
                 componentTypeForAttention and residualCutLayer say which those are"
            );
        }
        Ok(Member { component, entries, write: write_vector(side, component)? })
    };
    let nodes = request.nodes.iter().enumerate();
    nodes.map(|(i, node)| member(node).at(|| FieldPath::of("nodes").index(i))).collect()
}

impl Member {
    /// Activation times gradient.
    fn estimate(&self, side: &Side<'_>) -> Result<f64> {
        let gradient = self.entries.gradient(&side.run, side.gradients(COUNTED)?)?.unwrap_or_default();
        let values = self.entries.values(&side.run)?;
        Ok(values.iter().zip(&gradient).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum())
    }

    /// What it writes along a gradient `[T, D]`.
    fn along(&self, gradient: &Tensor) -> Result<f64> {
        let token = match self.component {
            Component::Node(node) => node.token(),
            Component::Embedding { token } | Component::Error { token, .. } | Component::Skip { token, .. } => token,
        };
        Ok(f64::from(dot(&self.write, &row_of(gradient, token)?)))
    }

    /// Whether what it writes is there when another node reads.
    fn precedes(&self, side: &Side<'_>, node: Node) -> bool {
        let written_at = match self.component {
            Component::Embedding { .. } => return true,
            Component::Node(node) => node.writes_at(side.model()),
            Component::Error { slot, layer, .. } => crate::place::Place::written_by(side.model(), slot, layer),
            Component::Skip { layer, .. } => crate::place::Place::written_by(side.model(), Slot::Mlp, layer),
        };
        written_at < node.reads_at(side.model())
    }
}

/// From each node to the output, and to each node that can read it.
fn edges(side: &Side<'_>, members: &[Member]) -> Result<Vec<CircuitEdge>> {
    let mut edges = Vec::new();
    let mut put = |from: usize, to: Option<usize>, through, weight: f64| {
        if weight != 0.0 {
            edges.push(CircuitEdge { from: from as i64, to: to.map(|to| to as i64), through, weight });
        }
    };
    if let Some(gradient) = side.final_residual_gradient(COUNTED)? {
        for (from, member) in members.iter().enumerate() {
            put(from, None, None, member.along(&gradient)?);
        }
    }
    for (to, reader) in members.iter().enumerate() {
        // What a dictionary leaves over, and what has no node, reads nothing that could be told apart.
        let Component::Node(node) = reader.component else { continue };
        if side.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let ways = match node {
            Node::Head { .. } => {
                [AttentionTraceType::Q, AttentionTraceType::K, AttentionTraceType::V].map(Some).to_vec()
            }
            _ => vec![None],
        };
        for through in ways {
            let gradient = attribution_gradient(side, COUNTED, &EdgeNode { node, through, frozen_scale: false })?;
            for (from, member) in members.iter().enumerate().filter(|(_, member)| member.precedes(side, node)) {
                put(from, Some(to), through, member.along(&gradient)?);
            }
        }
    }
    Ok(edges)
}

/// The mean of each unit over the tokens of the run; of heads over the pairs that they see.
fn mean(run: &Run, point: Point) -> Result<Vec<f32>> {
    let values = run.get(point.site, point.layer)?;
    let (tokens, width) = (values.dims()[0], values.dims()[values.rank() - 1]);
    let mut sums = vec![0.0f64; width];
    let values = Numbers::of(&values)?.to_row_major();
    values.iter().enumerate().for_each(|(at, x)| sums[at % width] += f64::from(*x));
    // Attention to later tokens is zero.
    let count = if point.site == Site::AttnQkProbs { tokens * (tokens + 1) / 2 } else { tokens };
    Ok(sums.into_iter().map(|sum| (sum / count as f64) as f32).collect())
}

/// Sets nodes to zero or their mean while a run computes all else anew.
struct Isolated<'a> {
    members: &'a [&'a Entries],
    /// Whether the members are ablated, in place of all others.
    ablates_members: bool,
    points: &'a [Point],
    /// One number for each unit; of a point without them zero.
    means: &'a BTreeMap<Point, Vec<f32>>,
}

impl Hooks for Isolated<'_> {
    fn wants(&self, point: Point, pass: Pass) -> bool {
        pass == Pass::Forward && self.points.contains(&point)
    }

    fn forward(&mut self, point: Point, activation: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let dims = activation.dims();
        let mut data = Numbers::of(activation)?.to_row_major();
        let mut is_member = vec![false; data.len()];
        for entries in self.members.iter().filter(|entries| entries.point == point) {
            mark(&mut is_member, dims, &entries.indices);
        }
        let means = self.means.get(&point);
        let (tokens, width) = (dims[0], dims[dims.len() - 1]);
        for (at, x) in data.iter_mut().enumerate().filter(|(at, _)| is_member[*at] == self.ablates_members) {
            let row = at / width;
            let is_seen = point.site != Site::AttnQkProbs || row % tokens <= row / tokens;
            *x = means.filter(|_| is_seen).map_or(0.0, |means| means[at % width]);
        }
        Tensor::from_vec(data, dims, activation.device()).map(Some)
    }
}

/// Marks the entries that indices mean in an array of these dimensions, row-major.
fn mark(marks: &mut [bool], dims: &[usize], indices: &[Index]) {
    let (Some((index, indices)), Some((n, dims))) = (indices.split_first(), dims.split_first()) else {
        return marks.fill(true);
    };
    let size = marks.len() / n;
    for (_, marks) in marks.chunks_exact_mut(size).enumerate().filter(|(i, _)| match index {
        Index::All => true,
        Index::At(at) => at == i,
    }) {
        mark(marks, dims, indices);
    }
}
