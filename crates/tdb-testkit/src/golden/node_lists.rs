//! Lists of nodes: the top-k of derived scalars, and the per-node readings that go with them.
//!
//! A top-k list is, per sub-request and group in request order, the k largest of every node type, merged in descending
//! order, then the k smallest of every node type, merged in descending order; a node's first occurrence is kept. Over
//! several sub-requests, all lists of one name hold the union.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::compare::{Comparison, field, floats, list, scale_of, short};

/// A node's identity: type, layer, indices and pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub node_type: String,
    pub layer: Option<i64>,
    pub indices: Vec<i64>,
    pub pass: String,
}

impl Node {
    fn parse(value: &Value) -> Result<Self, String> {
        let malformed = || format!("malformed: {} where a node should be", short(value));
        let text = |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(malformed);
        let object = value.as_object().ok_or_else(malformed)?;
        let indices = value["tensorIndices"].as_array().ok_or_else(malformed)?;
        Ok(Self {
            node_type: text("nodeType")?,
            layer: field(object, "layerIndex")?.as_i64(),
            indices: indices.iter().map(|i| i.as_i64().ok_or_else(malformed)).collect::<Result<_, _>>()?,
            pass: text("passType")?,
        })
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let layer = self.layer.map_or_else(|| "-".into(), |l| l.to_string());
        write!(f, "{}:{layer}:{:?}:{}", self.node_type, self.indices, self.pass)
    }
}

fn nodes(data: &Map<String, Value>) -> Result<Vec<Node>, String> {
    list(field(data, "nodeIndices")?)?.iter().map(Node::parse).collect()
}

/// One top-k list's answers in all sub-requests of a case.
pub(super) struct List<'v> {
    answers: Vec<Answer<'v>>,
    /// `None`: everything is listed.
    k: Option<usize>,
}

struct Answer<'v> {
    got: &'v Map<String, Value>,
    want: &'v Map<String, Value>,
    /// In request order.
    groups: Vec<String>,
}

/// The groups of a debugger request's top-k lists.
const TDB_GROUPS: [&str; 5] = ["write_norm", "act_times_grad", "direction_write", "activation", "logits"];

/// The top-k lists of a case, each with what the request asked for.
pub(super) fn of_case<'v>(request: &Value, got: &'v Value, want: &'v Value) -> Result<Vec<List<'v>>, String> {
    let key = "multipleTopKDerivedScalarsResponseData";
    let mut lists: Vec<(&str, List<'v>)> = Vec::new();
    if let Some(want) = want.get(key).and_then(Value::as_object) {
        let got = got[key].as_object().ok_or_else(|| format!("malformed: {key} is missing"))?;
        let (k, groups) = asked(&request["multipleTopKDerivedScalarsRequestSpec"])?;
        lists.push((key, List { answers: vec![Answer { got, want, groups }], k }));
    }
    for (i, sub) in want["inferenceSubResponses"].as_array().into_iter().flatten().enumerate() {
        for (name, want) in sub["processingResponseDataByName"].as_object().into_iter().flatten() {
            let is_top_k = want["responseDataType"].as_str().is_some_and(|t| t.starts_with("multiple_top_k"));
            let got = &got["inferenceSubResponses"][i]["processingResponseDataByName"][name];
            let (true, Some(want), Some(got)) = (is_top_k, want.as_object(), got.as_object()) else { continue };
            let (k, groups) = match request.get("inferenceSubRequests") {
                Some(subs) => asked(&subs[i]["processingRequestSpecByName"][name])?,
                None => (tdb_k(request, i, name)?, TDB_GROUPS.map(str::to_owned).to_vec()),
            };
            let answer = Answer { got, want, groups };
            match lists.iter_mut().find(|(n, _)| n == name) {
                Some((_, list)) => list.answers.push(answer),
                None => lists.push((name, List { answers: vec![answer], k })),
            }
        }
    }
    Ok(lists.into_iter().map(|(_, list)| list).collect())
}

/// `k` and the groups of a top-k specification.
fn asked(spec: &Value) -> Result<(Option<usize>, Vec<String>), String> {
    let groups = spec["dstListByGroupId"].as_object().ok_or("malformed: the request has no dstListByGroupId")?;
    Ok((number(&spec["topAndBottomK"]), groups.keys().cloned().collect()))
}

fn tdb_k(request: &Value, sub: usize, name: &str) -> Result<Option<usize>, String> {
    match name {
        "componentSumsForTokenDisplay" => return Ok(Some(1)),
        "topOutputTokenLogits" => return Ok(Some(100)),
        _ => {}
    }
    let subs = request.get("subRequests").or(request.get("sub_requests")).ok_or("malformed: no sub-requests")?;
    let k = subs[sub].get("topAndBottomKForNodeTable").or(subs[sub].get("top_and_bottom_k_for_node_table"));
    number(k.unwrap_or(&Value::Null)).map(Some).ok_or_else(|| "malformed: the request has no k".into())
}

/// A whole number, also as the recorded server took it: `"1"` and `1.9` are 1.
fn number(value: &Value) -> Option<usize> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok()).map(|n| n as usize)
}

/// One group of one sub-request.
struct Cell {
    label: String,
    want: HashMap<Node, f64>,
    got: HashMap<Node, f64>,
    /// By node type the k-th largest and k-th smallest value; `None`: fewer than k nodes, so all are listed.
    edges: HashMap<String, Option<(f64, f64)>>,
    scale: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Must be listed.
    Beyond,
    /// May be listed.
    Tied,
    /// Must not be.
    Inside,
}

/// Which nodes are listed, and in which order.
pub(super) fn check(c: &mut Comparison, list: &List<'_>) -> Result<(), String> {
    let Some(first) = list.answers.first() else { return Ok(()) };
    let (want, got) = (nodes(first.want)?, nodes(first.got)?);
    let (want_set, got_set): (HashSet<&Node>, HashSet<&Node>) = (want.iter().collect(), got.iter().collect());
    if got_set.len() != got.len() {
        c.bad("nodeIndices", "duplicate nodes");
    }
    let cells = cells(list, &want, &got)?;
    let outer = c.scale;
    for (side, others, values, what) in [
        (&want, &got_set, (|cell| &cell.want) as fn(&Cell) -> &HashMap<Node, f64>, "missing"),
        (&got, &want_set, |cell| &cell.got, "unexpected"),
    ] {
        for node in side.iter().filter(|n| !others.contains(n)) {
            match state(c, &cells, node, values) {
                (State::Tied, _) => {
                    c.excused.insert(node.clone());
                }
                (state, label) => c.bad("nodeIndices", format!("{what} node {node} ({state:?} {label})")),
            }
        }
    }
    order(c, &cells, &want, &got);
    c.scale = outer;
    Ok(())
}

fn cells(list: &List<'_>, want: &[Node], got: &[Node]) -> Result<Vec<Cell>, String> {
    let mut cells = Vec::new();
    for (i, answer) in list.answers.iter().enumerate() {
        let wanted = field(answer.want, "activationsByGroupId")?;
        let ours = field(answer.got, "activationsByGroupId")?;
        for group in &answer.groups {
            let Some(values) = wanted.get(group) else { continue };
            let values = floats(values)?;
            let mut by_type: HashMap<String, Vec<f64>> = HashMap::new();
            for (node, &x) in want.iter().zip(&values) {
                by_type.entry(node.node_type.clone()).or_default().push(x);
            }
            let edge = |mut xs: Vec<f64>| {
                xs.sort_by(f64::total_cmp);
                let k = list.k.filter(|&k| k >= 1 && k <= xs.len())?;
                Some((xs[xs.len() - k], xs[k - 1]))
            };
            let our_values = ours.get(group).map_or(Ok(Vec::new()), floats)?;
            cells.push(Cell {
                label: format!("sub-request {i}, {group}"),
                scale: scale_of(values.iter().copied()),
                want: want.iter().cloned().zip(values).collect(),
                got: got.iter().cloned().zip(our_values).collect(),
                edges: by_type.into_iter().map(|(t, xs)| (t, edge(xs))).collect(),
            });
        }
    }
    Ok(cells)
}

fn state(
    c: &mut Comparison,
    cells: &[Cell],
    node: &Node,
    values: impl Fn(&Cell) -> &HashMap<Node, f64>,
) -> (State, String) {
    let mut tied = false;
    for cell in cells {
        let (Some(&x), Some(edge)) = (values(cell).get(node), cell.edges.get(&node.node_type)) else { continue };
        let Some((high, low)) = *edge else { return (State::Beyond, cell.label.clone()) };
        c.scale = cell.scale;
        let at_edge = c.close(x, high) || c.close(x, low);
        if !at_edge && (x > high || x < low) {
            return (State::Beyond, cell.label.clone());
        }
        tied |= at_edge;
    }
    (if tied { State::Tied } else { State::Inside }, String::new())
}

/// Where a node enters the list: the cell, and whether among its top (0) or bottom (1). `None` if that hinges on a tie.
fn entry(c: &mut Comparison, cells: &[Cell], node: &Node) -> Option<(usize, u8)> {
    for (i, cell) in cells.iter().enumerate() {
        let (Some(&x), Some(edge)) = (cell.want.get(node), cell.edges.get(&node.node_type)) else { continue };
        let Some((high, low)) = *edge else { return Some((i, 0)) };
        c.scale = cell.scale;
        if c.close(x, high) || c.close(x, low) {
            return None;
        }
        if x > high {
            return Some((i, 0));
        }
        if x < low {
            return Some((i, 1));
        }
    }
    None
}

fn order(c: &mut Comparison, cells: &[Cell], want: &[Node], got: &[Node]) {
    let position: HashMap<&Node, usize> = got.iter().enumerate().map(|(i, n)| (n, i)).collect();
    let listed = want.iter().filter_map(|n| Some((n, *position.get(n)?)));
    let firm: Vec<_> = listed.filter_map(|(n, p)| Some((n, p, entry(c, cells, n)?))).collect();
    let mut swaps = Vec::new();
    for (i, &(x, px, cx)) in firm.iter().enumerate() {
        let cell = &cells[cx.0];
        c.scale = cell.scale;
        for &(y, py, cy) in &firm[i + 1..] {
            let tied = || match (cell.want.get(x), cell.want.get(y)) {
                (Some(&x), Some(&y)) => c.close(x, y),
                _ => false,
            };
            if px > py && (cx != cy || !tied()) {
                swaps.push((x, y));
            }
        }
    }
    if let Some((x, y)) = swaps.first() {
        let n = swaps.len();
        c.bad("nodeIndices", format!("{n} pairs out of order without a tie, e.g. {y} before {x}"));
    }
}

/// The values of a top-k list, node by node.
pub(super) fn values(
    c: &mut Comparison,
    path: &str,
    got: &Map<String, Value>,
    want: &Map<String, Value>,
) -> Result<(), String> {
    let keys = c.keys(path, got, want);
    let (want_nodes, got_nodes) = (nodes(want)?, nodes(got)?);
    let at: HashMap<&Node, usize> = got_nodes.iter().enumerate().map(|(i, n)| (n, i)).collect();
    let object = |data: &Map<String, Value>| {
        field(data, "activationsByGroupId")?.as_object().cloned().ok_or("malformed: activationsByGroupId".to_owned())
    };
    let (ours, theirs) = (object(got)?, object(want)?);
    for group in c.keys(&format!("{path}.activationsByGroupId"), &ours, &theirs) {
        let (got, want) = (floats(&ours[group])?, floats(&theirs[group])?);
        if got.len() != got_nodes.len() {
            c.bad(&format!("{path}.{group}"), format!("{} values for {} nodes", got.len(), got_nodes.len()));
            continue;
        }
        let outer = c.scale;
        c.scale = scale_of(want.iter().copied());
        for (node, w) in want_nodes.iter().zip(want) {
            if let Some(&i) = at.get(node) {
                c.number(&format!("{path}.{group}.{node}"), got[i], w);
            }
        }
        c.scale = outer;
    }
    let key = "vocabTokenStringsForIndices";
    let strings = |data: &Map<String, Value>| data.get(key).filter(|v| !v.is_null()).cloned();
    match (strings(got), strings(want)) {
        (None, None) => {}
        (Some(got), Some(want)) => {
            let (got, want) = (list(&got)?, list(&want)?);
            for (node, w) in want_nodes.iter().zip(want) {
                let ours = at.get(node).map(|&i| got.get(i).unwrap_or(&Value::Null));
                if let Some(ours) = ours.filter(|o| *o != w) {
                    c.bad(&format!("{path}.{key}"), format!("{node}: got {ours}, want {w}"));
                }
            }
        }
        (got, want) => {
            let show = |v: Option<Value>| short(&v.unwrap_or_default());
            c.bad(&format!("{path}.{key}"), format!("got {}, want {}", show(got), show(want)));
        }
    }
    let key = "intermediateSumActivationsByDstByGroupId";
    if keys.contains(&key) {
        c.any(&format!("{path}.{key}"), &got[key], &want[key])?;
    }
    Ok(())
}

/// Readings given per node, in the order of `nodeIndices`.
pub(super) fn by_node(
    c: &mut Comparison,
    path: &str,
    got: &Map<String, Value>,
    want: &Map<String, Value>,
    key: &str,
) -> Result<(), String> {
    c.keys(path, got, want);
    let (want_nodes, got_nodes) = (nodes(want)?, nodes(got)?);
    let (ours, theirs) = (list(field(got, key)?)?, list(field(want, key)?)?);
    if ours.len() != got_nodes.len() {
        c.bad(path, format!("{} entries for {} nodes", ours.len(), got_nodes.len()));
        return Ok(());
    }
    let at: HashMap<&Node, usize> = got_nodes.iter().enumerate().map(|(i, n)| (n, i)).collect();
    for (side, other, what) in [(&want_nodes, &got_nodes, "missing"), (&got_nodes, &want_nodes, "unexpected")] {
        for node in side {
            if !other.contains(node) && !c.excused.contains(node) {
                c.bad(path, format!("{what} node {node}"));
            }
        }
    }
    for (node, w) in want_nodes.iter().zip(theirs) {
        if let Some(&i) = at.get(node) {
            c.any(&format!("{path}.{node}"), &ours[i], w)?;
        }
    }
    Ok(())
}
