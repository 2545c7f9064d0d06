//! How the node table is looked at: order, filters, groups. Part of the URL, so that a link shows the same.

use std::collections::HashSet;

use tdb_api::NodeType;
use tdb_api::numbers::sum;
use tdb_api::wire::from_json;

use crate::answer::{Answer, Compared, Metric, Row, Values};
use crate::dom;
use crate::dom::lowercase;
use crate::json::Json;
use crate::names;
use crate::session::Layers;
use crate::sorting::sort;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    Name,
    To,
    From,
    Value(Metric, Compared),
    /// By magnitude: what opposes stands among what helps.
    Size(Metric, Compared),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub by: SortBy,
    pub descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Above,
    Below,
    SizeAbove,
}

impl Op {
    pub const ALL: [(Self, &'static str, &'static str); 3] =
        [(Self::Above, "gt", "above"), (Self::Below, "lt", "below"), (Self::SizeAbove, "abs", "size above")];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(op, ..)| *op == self).map_or("", |(_, word, _)| word)
    }
}

/// Keeps rows whose left value passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberFilter {
    pub metric: Metric,
    pub op: Op,
    pub bound: f64,
}

/// What the table's rows are summed up by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Grouping {
    #[default]
    None,
    Component,
    /// The attention or the MLP part of a layer.
    Layer,
}

impl Grouping {
    pub const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::None, "", "each node"),
        (Self::Component, "component", "sums by component"),
        (Self::Layer, "layer", "sums by layer"),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(g, ..)| *g == self).map_or("", |(_, word, _)| word)
    }

    pub fn of(word: &str) -> Self {
        Self::ALL.iter().find(|(_, w, _)| *w == word).map_or(Self::None, |(g, ..)| *g)
    }

    fn name(self, row: &Row) -> String {
        match (self, row.node.layer_index) {
            (Self::Layer, Some(layer)) => names::layer_name(row.node.node_type, layer),
            _ => row.name.clone(),
        }
    }
}

/// Parts of the page that can be hidden.
pub const PANELS: [(&str, &str); 7] = [
    ("logits", "Next token candidates"),
    ("sum", "Logit difference as a sum"),
    ("tokens", "Token effects"),
    ("table", "Node table"),
    ("node", "Selected node"),
    ("map", "Layer × token map"),
    ("circuit", "Circuit and runs"),
];

/// Columns of the node table that can be left out, by their words in the address; those that a narrow window shows too.
pub const COLUMNS: [(&str, &str, bool); 7] = [
    ("to", "Attended to", true),
    ("from", "Attended from", true),
    ("activation", "Activation", false),
    ("write_norm", "Write magnitude", false),
    ("direction_write", "Direct effect", true),
    ("act_times_grad", "Estimated total effect", true),
    ("explanation", "Explanation", false),
];

#[derive(Clone, Debug, PartialEq)]
pub struct ViewState {
    pub sort: Sort,
    pub text: String,
    pub kinds: Vec<NodeType>,
    pub layers: Vec<i64>,
    pub tokens: Vec<usize>,
    pub number: Option<NumberFilter>,
    pub grouped: Grouping,
    /// Columns shown when there are two sides.
    pub sides: Vec<Compared>,
    pub hidden: Vec<String>,
    /// Columns of the table as chosen; without a choice all, or those that fit a narrow window.
    pub columns: Option<Vec<String>>,
    /// Earlier steps of the present trace, as JSON of a list of nodes to trace.
    pub trail: String,
    /// Nodes pinned to the circuit, as JSON of a list.
    pub circuit: String,
    /// Where values that nodes are held at come from: node, value, words.
    pub sources: Vec<(String, f64, String)>,
    /// The step of the tour, from 1.
    pub tour: Option<usize>,
}

impl Default for ViewState {
    fn default() -> Self {
        Self {
            sort: Sort { by: SortBy::Size(Metric::DirectEffect, Compared::Left), descending: true },
            text: String::new(),
            kinds: Vec::new(),
            layers: Vec::new(),
            tokens: Vec::new(),
            number: None,
            grouped: Grouping::None,
            sides: vec![Compared::Left, Compared::Diff, Compared::Right],
            hidden: Vec::new(),
            columns: None,
            trail: String::new(),
            circuit: String::new(),
            sources: Vec::new(),
            tour: None,
        }
    }
}

const VIEWS: [(Compared, &str); 3] = [(Compared::Left, "left"), (Compared::Diff, "diff"), (Compared::Right, "right")];

fn view_word(view: Compared) -> &'static str {
    VIEWS.iter().find(|(v, _)| *v == view).map_or("", |(_, w)| w)
}

fn view_of(word: &str) -> Option<Compared> {
    VIEWS.iter().find(|(_, w)| *w == word).map(|(v, _)| *v)
}

fn metric_of(word: &str) -> Option<Metric> {
    Metric::ALL.into_iter().find(|m| m.wire() == word)
}

fn list<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    text.split(',').filter_map(|part| read(part.trim())).collect()
}

fn joined<T>(items: &[T], word: impl Fn(&T) -> String) -> String {
    items.iter().map(word).collect::<Vec<_>>().join(",")
}

impl ViewState {
    /// Takes our parameters out of `other` (those of the URL that the question does not know); the rest stays there.
    pub fn take_from(other: &mut Vec<(String, String)>) -> Self {
        let mut view = Self::default();
        other.retain(|(name, value)| !view.read(name, value));
        view
    }

    fn read(&mut self, name: &str, value: &str) -> bool {
        match name {
            "sort" => {
                let mut words = value.split('.');
                let first = words.next().unwrap_or_default();
                let by = match first {
                    "name" => Some(SortBy::Name),
                    "to" => Some(SortBy::To),
                    "from" => Some(SortBy::From),
                    metric => metric_of(metric).zip(words.next().and_then(view_of)).map(|(m, v)| SortBy::Value(m, v)),
                };
                self.sort = match (by, words.next()) {
                    (Some(SortBy::Value(metric, side)), Some("size")) => {
                        Sort { by: SortBy::Size(metric, side), descending: true }
                    }
                    (Some(by), direction) => Sort { by, descending: direction != Some("asc") },
                    (None, _) => self.sort,
                };
            }
            "filter" => self.text = value.to_owned(),
            "types" => self.kinds = list(value, |w| w.parse().ok()),
            "layers" => self.layers = list(value, |w| w.parse().ok()),
            "at" => self.tokens = list(value, |w| w.parse().ok()),
            "where" => {
                let mut words = value.splitn(3, '.');
                let metric = words.next().and_then(metric_of);
                let op = words.next().and_then(|w| Op::ALL.iter().find(|(_, word, _)| *word == w)).map(|(op, ..)| *op);
                let bound = words.next().and_then(dom::number);
                self.number = metric.zip(op).zip(bound).map(|((metric, op), bound)| NumberFilter { metric, op, bound });
            }
            "group" => self.grouped = Grouping::of(value),
            "sides" => {
                let sides = list(value, view_of);
                if !sides.is_empty() {
                    self.sides = sides;
                }
            }
            "hide" => self.hidden = list(value, |w| Some(w.to_owned())),
            "columns" => self.columns = Some(list(value, |w| Some(w.to_owned()))),
            "trail" => self.trail = value.to_owned(),
            "circuit" => self.circuit = value.to_owned(),
            "sources" => self.sources = from_json(value).unwrap_or_default(),
            "tour" => self.tour = value.parse().ok(),
            _ => return false,
        }
        true
    }

    /// Our parameters, those that differ from their defaults.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let default = Self::default();
        let mut out = Vec::new();
        let mut put = |name: &str, value: String| out.push((name.to_owned(), value));
        if self.sort != default.sort {
            let by = match self.sort.by {
                SortBy::Name => "name.".into(),
                SortBy::To => "to.".into(),
                SortBy::From => "from.".into(),
                SortBy::Value(metric, view) | SortBy::Size(metric, view) => {
                    format!("{}.{}", metric.wire(), view_word(view))
                }
            };
            let by = by.trim_end_matches('.');
            let direction = match (self.sort.by, self.sort.descending) {
                (SortBy::Size(..), _) => "size",
                (_, true) => "desc",
                (_, false) => "asc",
            };
            put("sort", format!("{by}.{direction}"));
        }
        if !self.text.is_empty() {
            put("filter", self.text.clone());
        }
        if !self.kinds.is_empty() {
            put("types", joined(&self.kinds, |k| k.to_string()));
        }
        if !self.layers.is_empty() {
            put("layers", joined(&self.layers, i64::to_string));
        }
        if !self.tokens.is_empty() {
            put("at", joined(&self.tokens, usize::to_string));
        }
        if let Some(f) = self.number {
            put("where", format!("{}.{}.{}", f.metric.wire(), f.op.word(), f.bound));
        }
        if self.grouped != Grouping::None {
            put("group", self.grouped.word().into());
        }
        if self.sides != default.sides {
            put("sides", joined(&self.sides, |v| view_word(*v).into()));
        }
        if !self.hidden.is_empty() {
            put("hide", self.hidden.join(","));
        }
        if let Some(columns) = &self.columns {
            put("columns", columns.join(","));
        }
        if !self.trail.is_empty() {
            put("trail", self.trail.clone());
        }
        if !self.circuit.is_empty() {
            put("circuit", self.circuit.clone());
        }
        if !self.sources.is_empty() {
            put("sources", Json::of(&self.sources).text());
        }
        if let Some(step) = self.tour {
            put("tour", step.to_string());
        }
        out
    }

    pub fn shows(&self, panel: &str) -> bool {
        !self.hidden.iter().any(|h| h == panel)
    }

    pub fn shows_column(&self, column: &str, narrow: bool) -> bool {
        match &self.columns {
            Some(chosen) => chosen.iter().any(|c| c == column),
            None => !narrow || COLUMNS.iter().any(|(word, _, fits)| *word == column && *fits),
        }
    }

    pub fn toggle_column(&mut self, column: &str, narrow: bool) {
        let shown = |c: &str| self.shows_column(c, narrow) != (c == column);
        self.columns = Some(COLUMNS.iter().filter(|(c, ..)| shown(c)).map(|(c, ..)| (*c).to_owned()).collect());
        if COLUMNS.iter().all(|(c, ..)| self.shows_column(c, narrow)) && !narrow {
            self.columns = None;
        }
    }

    /// Whether any row may be left out.
    pub fn is_filtered(&self) -> bool {
        !self.text.is_empty()
            || !self.kinds.is_empty()
            || !self.layers.is_empty()
            || !self.tokens.is_empty()
            || self.number.is_some()
    }

    pub fn clear_filters(&mut self) {
        (self.text, self.kinds, self.layers, self.tokens, self.number) = Default::default();
    }
}

/// One line of the table as drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// All nodes of a component: the sums of their values, and the rows they are.
    Group {
        name: String,
        values: Values,
        rows: Vec<usize>,
    },
    Node {
        row: usize,
        in_group: bool,
    },
}

impl Line {
    /// Stays the same while the answer does, whatever the order.
    pub fn key(&self) -> String {
        match self {
            Self::Group { name, .. } => name.clone(),
            Self::Node { row, .. } => row.to_string(),
        }
    }

    /// The node, or the first of the group.
    pub fn first_row(&self) -> usize {
        match self {
            Self::Group { rows, .. } => rows[0],
            Self::Node { row, .. } => *row,
        }
    }

    /// How many nodes it stands for; members of a group are counted with it.
    pub fn nodes(&self) -> usize {
        match self {
            Self::Group { rows, .. } => rows.len(),
            Self::Node { in_group, .. } => usize::from(!in_group),
        }
    }

    pub fn value(&self, answer: &Answer, view: Compared, metric: Metric) -> Option<f64> {
        match self {
            Self::Node { row, .. } => answer.rows[*row].value(view, metric),
            Self::Group { values, .. } => view.of(values, metric),
        }
    }
}

/// The lines to draw, in order, of nodes in these layers.
pub fn arrange(answer: &Answer, view: &ViewState, open: &HashSet<String>, layers: Layers) -> Vec<Line> {
    let needle = lowercase(&view.text);
    let mut rows: Vec<usize> =
        (0..answer.rows.len()).filter(|&i| passes(answer, &answer.rows[i], view, &needle, layers)).collect();
    sort(&mut rows, |&a, &b| order(&answer.rows[a], &answer.rows[b], view.sort));
    if view.grouped == Grouping::None {
        return rows.into_iter().map(|row| Line::Node { row, in_group: false }).collect();
    }
    let mut named: Vec<(String, usize)> =
        rows.into_iter().map(|row| (view.grouped.name(&answer.rows[row]), row)).collect();
    sort(&mut named, |a, b| a.0.cmp(&b.0));
    let groups = named.chunk_by(|a, b| a.0 == b.0);
    let groups = groups.map(|group| (group[0].0.clone(), group.iter().map(|(_, row)| *row).collect::<Vec<_>>()));
    let mut groups: Vec<Line> = groups
        .map(|(name, rows)| {
            let values = std::array::from_fn(|side| {
                let values: Vec<[f64; 4]> = rows.iter().filter_map(|&r| answer.rows[r].values[side]).collect();
                (!values.is_empty()).then(|| std::array::from_fn(|m| sum(values.iter().map(|of| of[m]))))
            });
            Line::Group { name, values, rows }
        })
        .collect();
    sort(&mut groups, |a, b| {
        let value = |line: &Line, v, metric| line.value(answer, v, metric);
        match view.sort.by {
            SortBy::Value(metric, v) => by_value([value(a, v, metric), value(b, v, metric)], view.sort.descending),
            SortBy::Size(metric, v) => {
                by_value([a, b].map(|line| value(line, v, metric).map(f64::abs)), view.sort.descending)
            }
            _ => order(&answer.rows[a.first_row()], &answer.rows[b.first_row()], view.sort),
        }
    });
    let mut lines = Vec::new();
    for group in groups {
        let Line::Group { name, rows, .. } = &group else { continue };
        let members = open.contains(name).then(|| rows.clone());
        lines.push(group);
        lines.extend(members.into_iter().flatten().map(|row| Line::Node { row, in_group: true }));
    }
    lines
}

fn order(a: &Row, b: &Row, sort: Sort) -> std::cmp::Ordering {
    let ordering = match sort.by {
        SortBy::Name => {
            let key = |r: &Row| (r.node.layer_index.unwrap_or(-1), r.node.node_type, names::unit(&r.node));
            key(a).cmp(&key(b))
        }
        SortBy::To => a.to[0].cmp(&b.to[0]),
        SortBy::From => a.from.cmp(&b.from),
        SortBy::Value(metric, view) => {
            return by_value([a.value(view, metric), b.value(view, metric)], sort.descending);
        }
        SortBy::Size(metric, view) => {
            return by_value([a, b].map(|row| row.value(view, metric).map(f64::abs)), sort.descending);
        }
    };
    if sort.descending { ordering.reverse() } else { ordering }
}

/// What has no value stands at the end, whatever the direction.
fn by_value([a, b]: [Option<f64>; 2], descending: bool) -> std::cmp::Ordering {
    match (a, b) {
        (Some(a), Some(b)) if descending => b.total_cmp(&a),
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.is_none().cmp(&b.is_none()),
    }
}

fn passes(answer: &Answer, row: &Row, view: &ViewState, needle: &str, layers: Layers) -> bool {
    let layer = row.node.layer_index;
    if !layers.show(layer) {
        return false;
    }
    if !view.kinds.is_empty() && !view.kinds.contains(&row.node.node_type) {
        return false;
    }
    if !view.layers.is_empty() && !layer.is_some_and(|l| view.layers.contains(&l)) {
        return false;
    }
    // Tokens are named as the left prompt's.
    let at_left = |token: &usize| answer.partner(1, *token);
    let places = [row.from[0], row.to[0], row.from[1].as_ref().and_then(at_left), row.to[1].as_ref().and_then(at_left)];
    if !view.tokens.is_empty() && !places.iter().flatten().any(|t| view.tokens.contains(t)) {
        return false;
    }
    if let Some(f) = view.number {
        let passes = |value: f64| match f.op {
            Op::Above => value > f.bound,
            Op::Below => value < f.bound,
            Op::SizeAbove => value.abs() > f.bound,
        };
        if !row.value(Compared::Left, f.metric).is_some_and(passes) {
            return false;
        }
    }
    if needle.is_empty() {
        return true;
    }
    let in_tokens = || {
        answer.sides.iter().take(2).enumerate().any(|(side, of)| {
            let places = [row.from[side], row.to[side]];
            places.into_iter().flatten().any(|t| of.tokens.get(t).is_some_and(|t| lowercase(t).contains(needle)))
        })
    };
    lowercase(&row.name).contains(needle)
        || lowercase(names::type_label(row.node.node_type)).contains(needle)
        || in_tokens()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Side;
    use tdb_api::{NodeIndex, PassType};

    fn row(node_type: NodeType, layer: i64, indices: &[i64], direct: f64) -> Row {
        let node = NodeIndex {
            node_type,
            tensor_indices: indices.iter().copied().map(Some).collect(),
            layer_index: Some(layer),
            pass_type: PassType::Forward,
        };
        Row {
            name: names::node_name(&node),
            from: [names::token_from(&node); 2],
            to: [names::token_to(&node); 2],
            values: [Some([1.0, 1.0, direct, 0.0]); 2],
            nodes: [Some(node.clone()), Some(node.clone())],
            at: [0; 2],
            node,
        }
    }

    fn answer() -> Answer {
        let tokens = ["When", " Mary", " left"].map(str::to_owned).to_vec();
        Answer {
            sides: vec![Side { tokens, ..Default::default() }],
            rows: vec![
                row(NodeType::AttentionHead, 0, &[2, 1, 5], 0.5),
                row(NodeType::MlpNeuron, 1, &[2, 17], -2.0),
                row(NodeType::AttentionHead, 0, &[1, 0, 5], 1.0),
            ],
            ..Default::default()
        }
    }

    fn rows(view: &ViewState) -> Vec<usize> {
        arrange(&answer(), view, &HashSet::new(), Layers::default())
            .iter()
            .flat_map(|l| match l {
                Line::Node { row, .. } => vec![*row],
                Line::Group { rows, .. } => rows.clone(),
            })
            .collect()
    }

    #[test]
    fn the_first_look_is_by_size_of_the_direct_effect() {
        assert_eq!(rows(&ViewState::default()), [1, 2, 0], "what opposes is in sight");
        let by = SortBy::Value(Metric::DirectEffect, Compared::Left);
        assert_eq!(rows(&ViewState { sort: Sort { by, descending: true }, ..Default::default() }), [2, 0, 1]);
    }

    #[test]
    fn what_stands_on_one_side_alone_comes_last_and_adds_nothing_to_the_other() {
        let mut answer = answer();
        (answer.rows[1].values[0], answer.rows[1].nodes[0]) = (None, None);
        let lines = |descending, grouped| {
            let by = SortBy::Value(Metric::DirectEffect, Compared::Left);
            let view = ViewState { sort: Sort { by, descending }, grouped, ..Default::default() };
            arrange(&answer, &view, &HashSet::new(), Layers::default())
        };
        let rows = |descending| lines(descending, Grouping::None).iter().map(Line::first_row).collect::<Vec<_>>();
        assert_eq!((rows(true), rows(false)), (vec![2, 0, 1], vec![0, 2, 1]));
        let groups = lines(true, Grouping::Component);
        let values = |side| groups.iter().map(|l| l.value(&answer, side, Metric::DirectEffect)).collect::<Vec<_>>();
        assert_eq!(values(Compared::Left), [Some(1.5), None]);
        assert_eq!(values(Compared::Right), [Some(1.5), Some(-2.0)]);
        assert_eq!(values(Compared::Diff), [Some(0.0), None]);
    }

    #[test]
    fn each_filter_filters() {
        let base = ViewState::default();
        assert_eq!(rows(&ViewState { text: "mary".into(), ..base.clone() }), [2, 0]);
        assert_eq!(rows(&ViewState { text: "mlp_l1".into(), ..base.clone() }), [1]);
        assert_eq!(rows(&ViewState { kinds: vec![NodeType::MlpNeuron], ..base.clone() }), [1]);
        assert_eq!(rows(&ViewState { layers: vec![0], ..base.clone() }), [2, 0]);
        assert_eq!(rows(&ViewState { tokens: vec![0], ..base.clone() }), [2]);
        let number = |op, bound| Some(NumberFilter { metric: Metric::DirectEffect, op, bound });
        assert_eq!(rows(&ViewState { number: number(Op::Above, 0.7), ..base.clone() }), [2]);
        assert_eq!(rows(&ViewState { number: number(Op::SizeAbove, 0.7), ..base.clone() }), [1, 2]);
        assert_eq!(arrange(&answer(), &base, &HashSet::new(), Layers { from: Some(1), to: None }).len(), 1);
    }

    #[test]
    fn groups_add_up_and_open() {
        let view = ViewState { grouped: Grouping::Component, ..Default::default() };
        let lines = arrange(&answer(), &view, &HashSet::new(), Layers::default());
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1].value(&answer(), Compared::Left, Metric::DirectEffect), Some(1.5));
        let open = HashSet::from(["attn_L0_5".to_owned()]);
        assert_eq!(arrange(&answer(), &view, &open, Layers::default()).len(), 4);
        let view = ViewState { grouped: Grouping::Layer, ..Default::default() };
        let names =
            arrange(&answer(), &view, &HashSet::new(), Layers::default()).iter().map(Line::key).collect::<Vec<_>>();
        assert_eq!(names, ["mlp_L1", "attn_L0"]);
    }

    #[test]
    fn a_narrow_window_shows_what_fits_unless_told() {
        let mut view = ViewState::default();
        assert!(view.shows_column("activation", false) && !view.shows_column("activation", true));
        view.toggle_column("activation", true);
        assert!(view.shows_column("activation", true) && !view.shows_column("write_norm", true));
        view.toggle_column("explanation", false);
        view.toggle_column("write_norm", false);
        assert_eq!(view.columns, None, "all of them need no word in the address");
    }

    #[test]
    fn a_view_survives_its_url() {
        let view = ViewState {
            sort: Sort { by: SortBy::Value(Metric::Activation, Compared::Diff), descending: false },
            text: "a, b".into(),
            kinds: vec![NodeType::AttentionHead, NodeType::MlpNeuron],
            layers: vec![0, 3],
            tokens: vec![2],
            number: Some(NumberFilter { metric: Metric::TotalEffect, op: Op::Below, bound: -0.25 }),
            grouped: Grouping::Layer,
            sides: vec![Compared::Diff],
            hidden: vec!["map".into()],
            columns: Some(vec!["to".into(), "explanation".into()]),
            trail: "[]".into(),
            circuit: "[]".into(),
            sources: vec![("mlp_L0_1@2".into(), 0.5, "mean over 7 tokens".into())],
            tour: Some(2),
        };
        let mut other = view.parameters();
        other.push(("theirs".into(), "1".into()));
        assert_eq!(ViewState::take_from(&mut other), view);
        assert_eq!(other, [("theirs".to_owned(), "1".to_owned())]);
        assert!(ViewState::default().parameters().is_empty());
        let by_size = Sort { by: SortBy::Size(Metric::Activation, Compared::Left), descending: true };
        let mut other = ViewState { sort: by_size, ..Default::default() }.parameters();
        assert_eq!(ViewState::take_from(&mut other).sort, by_size);
    }
}
