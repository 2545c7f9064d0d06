//! The drawing of a circuit: nodes by layer and token, edges as thick as they are large.

use std::fmt::Write as _;

use tdb_api::numbers::{LayerPart, largest_magnitude};
use tdb_api::{AttentionTraceType, NodeIndex};

use crate::format;
use crate::names;
use crate::sorting::sort;
use crate::ui::sign_class;

/// Height of a line, space for its name at the left and for names at the right.
const LINE: usize = 34;
const LEFT: usize = 54;
const RIGHT: usize = 100;
/// Least and largest width of a token's column.
const COLUMN: (usize, usize) = (20, 110);
/// From this width on tokens are written across.
const WIDE: usize = 46;
/// A column in which many nodes stand.
const WIDEST: usize = 260;
/// More edges than this stand without their numbers, as all do in narrow columns.
const NUMBERED: usize = 24;

/// An edge between nodes by their positions, or to the output.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    pub from: usize,
    pub to: Option<usize>,
    pub weight: f64,
    /// What of it goes through a head's query, key and value.
    pub parts: Vec<(AttentionTraceType, f64)>,
}

impl Edge {
    /// The inputs of the head that it goes through, in words.
    pub fn words(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|(way, w)| format!("{way} {}", format::signed(*w))).collect();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    }
}

#[derive(Clone, PartialEq)]
pub struct Graph {
    pub nodes: Vec<NodeIndex>,
    pub tokens: Vec<String>,
    /// Those that are shown, the largest first.
    pub edges: Vec<Edge>,
    /// Whether there are edges at all; without them only nodes are drawn.
    pub is_known: bool,
}

impl Graph {
    /// Of each node whether shown edges lead from it to the output.
    pub fn reaching(&self) -> Vec<bool> {
        let mut reaches = vec![false; self.nodes.len()];
        loop {
            let found = self.edges.iter().find(|edge| {
                let is_new = reaches.get(edge.from) == Some(&false);
                is_new && edge.to.is_none_or(|to| reaches.get(to) == Some(&true))
            });
            match found {
                Some(edge) => reaches[edge.from] = true,
                None => return reaches,
            }
        }
    }

    /// Drawn as wide as there is room, or wider.
    pub fn svg(&self, room: usize) -> String {
        let columns = self.columns(room);
        let n = columns.widths.len();
        let lines = self.lines();
        let height_of = |line: usize| (lines.count - line) * LINE + 16;
        let column_of = |token: Option<usize>| token.unwrap_or(n - 1).min(n - 1);
        let x_of = |token: Option<usize>| columns.middle(column_of(token));
        let bottom = (lines.count + 1) * LINE + 10;
        let upwards = columns.upwards;
        let (width, height) = (columns.end() + RIGHT, bottom + if upwards { LINE + 64 } else { LINE });
        // In a wide column nodes at one token do not stand straight above each other, so that edges can be told apart.
        let at = |node: usize| {
            let (line, token) = (lines.of_node[node], names::token_from(&self.nodes[node]));
            let column = columns.widths[column_of(token)];
            let aside = if upwards { 0 } else { [column / 3, 0, column / 6][line % 3] };
            (x_of(token) - aside, height_of(line))
        };
        let output = (x_of(Some(n - 1)), 16);
        let described: Vec<String> = self.nodes.iter().map(names::node_name).collect();
        let mut out = format!(
            "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"Output, from {}\">",
            described.join(", from ")
        );
        for (name, line) in &lines.names {
            let y = height_of(*line) + 4;
            let _ = write!(out, "<text x=\"2\" y=\"{y}\" font-size=\"10\" fill=\"currentColor\">{name}</text>");
        }
        let most = largest_magnitude(self.edges.iter().map(|edge| edge.weight));
        let known = |edge: &&Edge| edge.from < self.nodes.len() && edge.to.is_none_or(|to| to < self.nodes.len());
        for edge in self.edges.iter().filter(known).rev() {
            let (from, to) = (at(edge.from), edge.to.map_or(output, at));
            let _ = write!(
                out,
                "<line class=\"edge {}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"currentColor\" \
                 style=\"stroke-width:{:.1}px\"/>",
                sign_class(edge.weight),
                from.0,
                from.1,
                to.0,
                to.1,
                0.8 + 5.0 * edge.weight.abs() / most
            );
        }
        for edge in self.edges.iter().filter(known).take(if upwards { 0 } else { NUMBERED }) {
            let (from, to) = (at(edge.from), edge.to.map_or(output, at));
            let _ = write!(
                out,
                "<text class=\"weight\" x=\"{}\" y=\"{}\" font-size=\"10\" text-anchor=\"middle\" \
                 fill=\"currentColor\">{}</text>",
                // Nearer to where it comes from, where edges are apart.
                (3 * from.0 + 2 * to.0) / 5,
                (3 * from.1 + 2 * to.1) / 5 + 3,
                format::signed(edge.weight)
            );
        }
        // Heads also reach down to the token that they read.
        for (node, index) in self.nodes.iter().enumerate() {
            let Some(read) = names::token_to(index) else { continue };
            let ((x, y), to) = (at(node), x_of(Some(read)));
            let _ = write!(
                out,
                "<line class=\"edge read\" x1=\"{x}\" y1=\"{y}\" x2=\"{to}\" y2=\"{bottom}\" stroke=\"currentColor\" \
                 stroke-dasharray=\"3 3\"/>"
            );
        }
        let reaching = self.reaching();
        for (node, index) in self.nodes.iter().enumerate() {
            let (x, y) = at(node);
            let faint = if self.is_known && !reaching[node] { " faint" } else { "" };
            let _ = write!(
                out,
                "<circle class=\"{}{faint}\" cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"currentColor\"/>",
                names::type_class(index.node_type)
            );
            label(&mut out, (x, y), &described[node], x > columns.end() / 2, faint);
        }
        let _ = write!(out, "<circle class=\"output\" cx=\"{}\" cy=\"16\" r=\"4\" fill=\"currentColor\"/>", output.0);
        label(&mut out, output, "output", true, "");
        for (token, text) in self.tokens.iter().enumerate() {
            let short: String =
                text.trim().chars().take(if upwards { 11 } else { columns.widths[token] / 7 }).collect();
            let (x, y) = (x_of(Some(token)), bottom + if upwards { 8 } else { LINE - 12 });
            let (anchor, turn) = match upwards {
                true => ("start", format!(" transform=\"rotate(90 {x} {y})\"")),
                false => ("middle", String::new()),
            };
            let _ = write!(
                out,
                "<text x=\"{x}\" y=\"{y}\" font-size=\"10\" text-anchor=\"{anchor}\" dominant-baseline=\"middle\" \
                 fill=\"currentColor\"{turn}>{}</text>",
                format::html(&short)
            );
        }
        out + "</svg>"
    }

    /// As wide as there is room for, wider where nodes stand; tokens without nodes need no more than their text.
    fn columns(&self, room: usize) -> Columns {
        let n = self.tokens.len().max(1);
        let even = (room / n).clamp(COLUMN.0, COLUMN.1);
        // Narrow columns have their tokens written upwards.
        let upwards = even < WIDE;
        if upwards {
            return Columns { widths: vec![even; n], upwards };
        }
        let mut weights = vec![1; n];
        for token in self.nodes.iter().map(|node| names::token_from(node).unwrap_or(n - 1).min(n - 1)) {
            weights[token] = (weights[token] + 2).min(7);
        }
        let all: usize = weights.iter().sum();
        let widths = weights.iter().map(|weight| (room * weight / all).clamp(WIDE, WIDEST)).collect();
        Columns { widths, upwards }
    }

    /// The lines that nodes stand on, from the bottom of the model up: one for each part of a layer, and more where
    /// nodes stand at one token.
    fn lines(&self) -> Lines {
        let part = |node: &NodeIndex| (node.layer_index.unwrap_or(-1), LayerPart::of(node.node_type));
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        let key = |node: &usize| (part(&self.nodes[*node]), names::token_from(&self.nodes[*node]), *node);
        sort(&mut order, |a, b| key(a).cmp(&key(b)));
        let mut lines = Lines { of_node: vec![0; self.nodes.len()], names: Vec::new(), count: 0 };
        for alike in order.chunk_by(|a, b| part(&self.nodes[*a]) == part(&self.nodes[*b])) {
            let (layer, of) = part(&self.nodes[alike[0]]);
            let name = match of {
                LayerPart::Embedding => "embed".to_owned(),
                LayerPart::Residual => format!("L{layer} resid"),
                LayerPart::Attention => format!("L{layer} attn"),
                LayerPart::Mlp => format!("L{layer} mlp"),
            };
            lines.names.push((name, lines.count));
            let mut highest = 0;
            for at_token in alike.chunk_by(|a, b| key(a).1 == key(b).1) {
                for (above, node) in at_token.iter().enumerate() {
                    lines.of_node[*node] = lines.count + above;
                    highest = highest.max(above);
                }
            }
            lines.count += highest + 1;
        }
        lines
    }
}

/// A name beside its dot, on the side where there is more room.
fn label(out: &mut String, (x, y): (usize, usize), name: &str, before: bool, faint: &str) {
    let (x, anchor) = if before { (x - 8, "end") } else { (x + 8, "start") };
    let _ = write!(
        out,
        "<text class=\"name{faint}\" x=\"{x}\" y=\"{}\" font-size=\"11\" text-anchor=\"{anchor}\" \
         fill=\"currentColor\">{name}</text>",
        y + 4
    );
}

/// The tokens' columns.
struct Columns {
    widths: Vec<usize>,
    upwards: bool,
}

impl Columns {
    fn middle(&self, at: usize) -> usize {
        LEFT + self.widths[..at].iter().sum::<usize>() + self.widths[at] / 2
    }

    fn end(&self) -> usize {
        LEFT + self.widths.iter().sum::<usize>()
    }
}

struct Lines {
    /// Of each node, from the bottom.
    of_node: Vec<usize>,
    names: Vec<(String, usize)>,
    count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdb_api::{NodeType, PassType};

    fn neuron(layer: i64, token: i64, unit: i64) -> NodeIndex {
        NodeIndex {
            node_type: NodeType::MlpNeuron,
            tensor_indices: vec![Some(token), Some(unit)],
            layer_index: Some(layer),
            pass_type: PassType::Forward,
        }
    }

    fn graph(edges: &[(usize, Option<usize>)]) -> Graph {
        let edge = |&(from, to): &(usize, Option<usize>)| Edge { from, to, weight: 1.0, parts: Vec::new() };
        Graph {
            nodes: vec![neuron(0, 1, 5), neuron(1, 1, 6), neuron(0, 1, 7)],
            tokens: ["a", " <b"].map(str::to_owned).to_vec(),
            edges: edges.iter().map(edge).collect(),
            is_known: true,
        }
    }

    #[test]
    fn a_node_reaches_the_output_through_others() {
        assert_eq!(graph(&[(0, Some(1)), (1, None)]).reaching(), [true, true, false]);
        assert_eq!(graph(&[(0, Some(1)), (2, None)]).reaching(), [false, false, true]);
        assert_eq!(graph(&[]).reaching(), [false; 3]);
    }

    #[test]
    fn nodes_at_one_token_stand_on_lines_of_their_own() {
        let lines = graph(&[]).lines();
        assert_eq!((lines.of_node, lines.count), (vec![0, 2, 1], 3));
        assert_eq!(lines.names, [("L0 mlp".to_owned(), 0), ("L1 mlp".to_owned(), 2)]);
    }

    #[test]
    fn a_column_in_which_nodes_stand_is_wider() {
        let columns = graph(&[]).columns(300);
        assert_eq!((columns.upwards, columns.widths.as_slice()), (false, &[WIDE, WIDEST][..]));
        assert_eq!(columns.middle(1), LEFT + columns.widths[0] + columns.widths[1] / 2);
    }

    #[test]
    fn text_of_the_prompt_is_no_markup() {
        let svg = graph(&[(0, Some(1)), (1, None)]).svg(300);
        assert!(svg.contains("&lt;b") && !svg.contains("<b"), "{svg}");
        assert_eq!(svg.matches("<line").count(), 2);
        assert_eq!(svg.matches("faint").count(), 2, "the third node and its name");
    }
}
