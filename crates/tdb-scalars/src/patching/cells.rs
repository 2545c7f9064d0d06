//! The patched runs that a request asks for.

use tdb_api::wire::FieldPath;
use tdb_api::{
    ActivationLocationType as Location, AllOrOneIndex, AttentionTraceType, MirroredActivationIndex, PassType,
    PatchCell, PatchGrid, PatchGroup, PatchPath, PatchRequest, PatchUnits, PatchedCell, Price,
};
use tdb_model::{BackwardOptions, Hooks, Index, Numbers, Patch, PatchHooks, Point, Seed, Site, Transformer, Values};

use crate::context::Context;
use crate::engine::Engine;
use crate::error::{At, Result, bad};
use crate::interventions::site_of;
use crate::patching::Bench;
use crate::price::price;
use crate::values::wrap;

/// One patched run.
pub(crate) struct Cell {
    /// Its place; the figures are filled in when it was run.
    pub told: PatchedCell,
    pub patches: Vec<Patch>,
}

/// Entries of an activation.
struct Target {
    site: Site,
    layer: Option<usize>,
    indices: Vec<Index>,
}

fn cell(group: PatchGroup, index: usize, place: [Option<usize>; 3], patches: Vec<Patch>) -> Cell {
    let [layer_index, token_index, unit] = place.map(|at| at.map(|at| at as i64));
    let told = PatchedCell { group, index: index as i64, layer_index, token_index, unit, metric: 0.0, effect: None };
    Cell { told, patches }
}

/// The heat maps that are asked for: all, where nothing is asked for in particular.
fn grids(request: &PatchRequest) -> &[PatchGrid] {
    let asks = request.cells.is_some() || request.units.is_some() || request.paths.is_some();
    match &request.grids {
        Some(grids) => grids,
        None if !asks => PatchGrid::ALL,
        None => &[],
    }
}

impl Engine {
    /// Everything that is asked for, in the order of the answer.
    pub(super) fn cells(&self, bench: &Bench, request: &PatchRequest) -> Result<Vec<Cell>> {
        let mut cells = Vec::new();
        for grid in grids(request) {
            cells.extend(self.grid(bench, *grid)?);
        }
        for (i, asked) in request.cells.iter().flatten().enumerate() {
            cells.push(self.asked_cell(bench, i, asked)?);
        }
        for (i, units) in request.units.iter().flatten().enumerate() {
            cells.extend(self.units(bench, i, units)?);
        }
        for (i, path) in request.paths.iter().flatten().enumerate() {
            cells.push(self.path(bench, i, path)?);
        }
        Ok(cells)
    }

    /// Before anything is computed: heat maps of a prompt of `tokens` that are too large, and what would fit.
    pub(super) fn check_grids(&self, request: &PatchRequest, tokens: usize, context: &Context<'_>) -> Result<()> {
        let (config, grids) = (self.model().config(), grids(request));
        let len = |grid: &PatchGrid| match grid {
            PatchGrid::Heads => config.n_layers * config.n_heads,
            _ => config.n_layers * tokens,
        };
        let (found, limit) = (grids.iter().map(len).sum::<usize>() as u64, context.bounds.varied_runs);
        if found <= limit {
            return Ok(());
        }
        let fit: Vec<&str> = PatchGrid::ALL.iter().filter(|g| len(g) as u64 <= limit).map(|g| g.as_str()).collect();
        let would = match fit.is_empty() {
            true => "single cells would fit".to_owned(),
            false => format!("one of {} alone would fit", fit.join(", ")),
        };
        bad!(at "grids", "they have {found} cells; this server computes at most {limit} for one request; {would}")
    }

    pub(super) fn price_of_patches(&self, bench: &Bench, cells: &[Cell], context: &Context<'_>) -> Result<Price> {
        let limit = context.bounds.varied_runs;
        if cells.len() as u64 > limit {
            return bad!(
                "{} cells are asked for; this server computes at most {limit} for one request; ask for the first {limit}",
                cells.len()
            );
        }
        let (n_layers, tokens) = (self.model().config().n_layers, bench.base.tokens().len());
        let rows = |cell: &Cell| {
            let token = cell.told.token_index.and_then(|t| usize::try_from(t).ok()).unwrap_or(0);
            let layer = cell.told.layer_index.and_then(|l| usize::try_from(l).ok()).unwrap_or(0);
            ((n_layers - layer.min(n_layers)) * (tokens - token.min(tokens))) as f64
        };
        let all = cells.iter().map(rows).sum::<f64>() + 6.0 * (n_layers * tokens) as f64;
        Ok(price(self.model(), cells.len(), tokens, all, context))
    }

    fn grid(&self, bench: &Bench, grid: PatchGrid) -> Result<Vec<Cell>> {
        let (config, tokens) = (self.model().config(), bench.base.tokens().len());
        let mut cells = Vec::new();
        for layer in 0..config.n_layers {
            let (group, site, at) = match grid {
                PatchGrid::Residual if layer == 0 => (PatchGroup::Residual, Site::ResidPostEmb, None),
                PatchGrid::Residual => (PatchGroup::Residual, Site::ResidPostMlp, Some(layer - 1)),
                PatchGrid::Attention => (PatchGroup::Attention, Site::ResidDeltaAttn, Some(layer)),
                PatchGrid::Mlp => {
                    self.require(Site::ResidDeltaMlp, "this model has no MLP layers to patch")?;
                    (PatchGroup::Mlp, Site::ResidDeltaMlp, Some(layer))
                }
                PatchGrid::Heads => {
                    for head in 0..config.n_heads {
                        let indices = vec![Index::All, Index::At(head), Index::All];
                        let target = Target { site: Site::AttnVOut, layer: Some(layer), indices };
                        let place = [Some(layer), None, Some(head)];
                        cells.push(cell(PatchGroup::Heads, cells.len(), place, taken(bench, &target)?));
                    }
                    continue;
                }
            };
            for token in (0..tokens).filter(|token| bench.other_token(*token).is_some()) {
                let target = Target { site, layer: at, indices: vec![Index::At(token), Index::All] };
                cells.push(cell(group, cells.len(), [Some(layer), Some(token), None], taken(bench, &target)?));
            }
        }
        Ok(cells)
    }

    fn require(&self, site: Site, message: &str) -> Result<()> {
        match self.model().site_dims(site, 1) {
            Some(_) => Ok(()),
            None => bad!(at "grids", "{message}"),
        }
    }

    fn asked_cell(&self, bench: &Bench, i: usize, asked: &PatchCell) -> Result<Cell> {
        let field = || FieldPath::of("cells").index(i);
        if asked.sites.is_empty() {
            return bad!(at field().key("sites"), "is empty; name at least one activation");
        }
        let mut patches = Vec::new();
        let mut place = [None; 3];
        for (at, site) in asked.sites.iter().enumerate() {
            let site_field = || field().key("sites").index(at);
            let target = target(self.model(), bench.base.tokens().len(), site).at(site_field)?;
            place = [target.layer, one(&target.indices, 0), one(&target.indices, 1)];
            patches.extend(taken(bench, &target).at(site_field)?);
        }
        Ok(cell(PatchGroup::Cells, i, if asked.sites.len() == 1 { place } else { [None; 3] }, patches))
    }

    fn units(&self, bench: &Bench, i: usize, units: &PatchUnits) -> Result<Vec<Cell>> {
        let field = || FieldPath::of("units").index(i);
        let whole = MirroredActivationIndex {
            activation_location_type: units.activation_location_type,
            tensor_indices: vec![AllOrOneIndex::One(units.token_index)],
            layer_index: Some(units.layer_index),
            pass_type: PassType::Forward,
        };
        let all = target(self.model(), bench.base.tokens().len(), &whole).at(field)?;
        let (Some(layer), Some(token)) = (all.layer, one(&all.indices, 0)) else {
            return bad!(at field(), "\"{}\" has no layers", units.activation_location_type);
        };
        let dims = self.model().site_dims(all.site, bench.base.tokens().len()).unwrap_or_default();
        let chosen = match all.site {
            Site::AttnVOut | Site::AttnQ | Site::AttnK | Site::AttnV => (0..dims[1]).collect(),
            Site::MlpPostAct | Site::MlpPreAct | Site::MlpLatent | Site::AttnLatent => {
                let most = usize::try_from(units.most).unwrap_or(0);
                self.most_different(bench, &all, token, most)?
            }
            _ => {
                return bad!(
                    at field(),
                    "\"{}\" has no units; neurons, latents, and heads' outputs, queries, keys and values have",
                    units.activation_location_type
                );
            }
        };
        let one = |unit: usize| {
            let mut indices = all.indices.clone();
            indices[1] = Index::At(unit);
            let target = Target { site: all.site, layer: all.layer, indices };
            Ok(cell(PatchGroup::Units, i, [Some(layer), Some(token), Some(unit)], taken(bench, &target)?))
        };
        chosen.into_iter().map(one).collect()
    }

    /// The units whose difference between the two runs, times gradient, is largest.
    fn most_different(&self, bench: &Bench, all: &Target, token: usize, most: usize) -> Result<Vec<usize>> {
        let last = bench.base.tokens().len() - 1;
        let at_logits = bench.outcome.metric.gradient(&bench.base.logits(last)?);
        let keep = [all.site];
        let options = BackwardOptions { keep: &keep, ..Default::default() };
        let gradients = bench.base.backward(Seed::Logits([(last, at_logits)].into()), options)?;
        let gradient = gradients.get(all.site, all.layer)?;
        let row = |x: &tdb_model::Tensor, token: usize| {
            Ok::<_, tdb_model::Error>(Numbers::of(&x.narrow(0, token, 1)?)?.to_row_major())
        };
        let Some(from) = bench.other_token(token) else { return Ok(Vec::new()) };
        let mine = row(&bench.base.get(all.site, all.layer)?, token)?;
        let others = row(&bench.other.get(all.site, all.layer)?, from)?;
        let gradient = match gradient {
            Some(gradient) => row(&gradient, token)?,
            None => vec![0.0; mine.len()],
        };
        let size = |i: usize| ((others[i] - mine[i]) * gradient[i]).abs();
        let mut order: Vec<usize> = (0..mine.len()).filter(|i| others[*i] != mine[*i]).collect();
        order.sort_by(|a, b| size(*b).total_cmp(&size(*a)).then(a.cmp(b)));
        order.truncate(most);
        Ok(order)
    }

    /// The sender's write, changed to the other run's, added to what the receiver's layer reads; everything between the two is
    /// as in the patched run.
    fn path(&self, bench: &Bench, i: usize, path: &PatchPath) -> Result<Cell> {
        let (model, field) = (self.model(), || FieldPath::of("paths").index(i));
        let config = model.config();
        if config.post_norms {
            return bad!(at field(), "in a model that normalises what its layers write, no write is a node's own");
        }
        let in_range = |value: i64, len: usize| usize::try_from(value).ok().filter(|i| *i < len);
        let Some(layer) = in_range(path.to_layer, config.n_layers) else {
            return bad!(at field().key("toLayer"), "is {}, but the model has layers 0..{}", path.to_layer, config.n_layers);
        };
        let Some(head) = in_range(path.to_head, config.n_heads) else {
            return bad!(at field().key("toHead"), "is {}, but a layer has heads 0..{}", path.to_head, config.n_heads);
        };
        let from = target(model, bench.base.tokens().len(), &path.from).at(|| field().key("from"))?;
        if from.layer.is_some_and(|from| from >= layer) {
            return bad!(
                at field(),
                "what is written in layer {:?} is not read in layer {layer}",
                from.layer.unwrap_or(0)
            );
        }
        let change = write_change(bench, &from).at(|| field().key("from"))?;
        let block = model.block(layer);
        let read = (bench.base.residual_before(layer) + change)?;
        let state = block.attn.apply(&block.attn_norm.apply(&read)?)?;
        let (site, x, unit) = match path.through {
            AttentionTraceType::Q => (Site::AttnQ, state.q, head),
            AttentionTraceType::K => (Site::AttnK, state.k, block.attn.kv_head(head)),
            AttentionTraceType::V => (Site::AttnV, state.v, block.attn.kv_head(head)),
            AttentionTraceType::QK => {
                return bad!(at field().key("through"), "is \"QK\"; ask for \"Q\" and \"K\" in two paths");
            }
        };
        let values = Numbers::of(&x.narrow(1, unit, 1)?)?.to_row_major();
        let patch = Patch {
            point: Point { site, layer: Some(layer) },
            indices: vec![Index::All, Index::At(unit), Index::All],
            values: Values::Each(values.into()),
        };
        Ok(cell(PatchGroup::Paths, i, [Some(layer), None, Some(head)], vec![patch]))
    }
}

/// The only index of a dimension.
fn one(indices: &[Index], at: usize) -> Option<usize> {
    match indices.get(at) {
        Some(Index::At(i)) => Some(*i),
        _ => None,
    }
}

/// What an index on the wire means; indices that are left out are all.
fn target(model: &Transformer, tokens: usize, index: &MirroredActivationIndex) -> Result<Target> {
    let location = index.activation_location_type;
    if index.pass_type != PassType::Forward {
        return bad!("activations of the forward pass are patched; passType is \"{}\"", index.pass_type);
    }
    if location == Location::Logits {
        return bad!("logits cannot be patched, because nothing follows them");
    }
    let site = site_of(model, location)?;
    let Some(dims) = model.site_dims(site, tokens) else {
        return bad!("\"{location}\" does not exist in this model");
    };
    let n_layers = model.config().n_layers;
    let layer = match (site.has_layers(), index.layer_index) {
        (false, None) => None,
        (false, Some(layer)) => return bad!("\"{location}\" has no layers, but layerIndex is {layer}"),
        (true, found) => match found.and_then(|l| usize::try_from(l).ok()).filter(|l| *l < n_layers) {
            Some(layer) => Some(layer),
            None => {
                let found = found.map_or("null".to_owned(), |l| l.to_string());
                return bad!("layerIndex is {found}, but the model has layers 0..{n_layers}");
            }
        },
    };
    if index.tensor_indices.len() > dims.len() {
        let (found, most) = (index.tensor_indices.len(), dims.len());
        return bad!("\"{location}\" has {most} dimensions, but {found} indices are given");
    }
    let mut indices = vec![Index::All; dims.len()];
    for (position, (found, n)) in index.tensor_indices.iter().zip(&dims).enumerate() {
        if let AllOrOneIndex::One(found) = found {
            match wrap(*found, *n) {
                Some(i) => indices[position] = Index::At(i),
                None => return bad!("tensorIndices[{position}] is {found}, outside 0..{n}"),
            }
        }
    }
    Ok(Target { site, layer, indices })
}

/// The patches that take these entries from the other run, token by token where both prompts have one.
fn taken(bench: &Bench, target: &Target) -> Result<Vec<Patch>> {
    let is_pair = matches!(target.site, Site::AttnQkLogits | Site::AttnQkProbs);
    if is_pair && !bench.alignment.is_identity {
        return bad!(
            "attention between tokens can only be patched where every token stands for the one at its own position"
        );
    }
    let n = bench.base.tokens().len();
    // Up to the first token in which the prompts differ both runs are the same.
    let first = match bench.alignment.is_identity {
        true => bench.base.tokens().iter().zip(bench.other.tokens()).position(|(a, b)| a != b).unwrap_or(n),
        false => 0,
    };
    let tokens = match target.indices[0] {
        Index::At(token) => token.max(first)..token + 1,
        Index::All => first..n,
    };
    let point = Point { site: target.site, layer: target.layer };
    let mut patches = Vec::new();
    for token in tokens {
        let Some(from) = bench.other_token(token) else { continue };
        let at = |token: usize| [&[Index::At(token)], &target.indices[1..]].concat();
        let values = Values::of(&bench.other, point, &at(from))?;
        patches.push(Patch { point, indices: at(token), values });
    }
    Ok(patches)
}

/// What the sender writes in the other run minus what it writes in the patched one, `[T, D]`.
fn write_change(bench: &Bench, from: &Target) -> Result<tdb_model::Tensor> {
    let model = bench.base.model();
    let (tokens, config) = (bench.base.tokens().len(), model.config());
    // The activation with the entries meant taken from the other run, minus itself.
    let own = bench.base.get(from.site, from.layer)?;
    let dims = own.dims().to_vec();
    let other = patched_entries(bench, from, &own)?;
    let change = (other - &own)?;
    Ok(match from.site {
        Site::ResidPostEmb | Site::ResidDeltaAttn | Site::ResidDeltaMlp => change,
        Site::AttnVOut => {
            let mut sum = model.tensor(&[tokens, config.d_model], vec![0.0; tokens * config.d_model])?;
            for head in 0..dims[1] {
                let write = block_of(model, from).attn.write(head, &change.narrow(1, head, 1)?.squeeze(1)?)?;
                sum = (sum + write)?;
            }
            sum
        }
        Site::MlpPostAct => block_of(model, from).mlp().write(&change)?,
        _ => {
            return bad!(
                "a path starts at what is written: the embedding, an attention or MLP layer's output, heads \
                 (\"attn.v_out\") or neurons (\"mlp.post_act\")"
            );
        }
    })
}

fn block_of<'a>(model: &'a Transformer, from: &Target) -> &'a tdb_model::Block {
    model.block(from.layer.unwrap_or(0))
}

fn patched_entries(bench: &Bench, from: &Target, own: &tdb_model::Tensor) -> Result<tdb_model::Tensor> {
    let patches = taken(bench, from)?;
    let point = Point { site: from.site, layer: from.layer };
    let replaced = PatchHooks(&patches).forward(point, own)?;
    Ok(replaced.unwrap_or_else(|| own.clone()))
}
