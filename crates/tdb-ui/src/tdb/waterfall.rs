//! The logit difference as a sum over parts of the model. A bar filters the table.

use std::fmt::Write as _;

use leptos::prelude::*;
use tdb_api::NodeType;
use tdb_api::numbers::{end_to_end, sum};
use tdb_api::stream::{Contribution, ContributionPart as Part, Contributions};

use crate::dom;
use crate::format;
use crate::json::Json;
use crate::session::Session;
use crate::signals::{Change, See};
use crate::ui::{CardHead, JsonButton, SaveFigure, Show, dynamic, follows, press, sign_class};

/// A part's name in full, and short with its layer.
fn name(term: &Contribution) -> (String, String) {
    let layer = term.layer.unwrap_or_default();
    let of_layer = |long: &str, short: &str| (format!("{long} of layer {layer}"), format!("{short}{layer}"));
    match term.part {
        Part::Embedding => ("token embedding".into(), "emb".into()),
        Part::Position => ("position embedding".into(), "pos".into()),
        Part::Attention => of_layer("attention heads", "attn "),
        Part::AttentionLatents => of_layer("attention latents", "attn "),
        Part::AttentionError => of_layer("error of the attention autoencoder", "err a"),
        Part::Mlp => of_layer("MLP neurons", "mlp "),
        Part::MlpLatents => of_layer("MLP latents", "mlp "),
        Part::MlpError => of_layer("error of the MLP autoencoder", "err m"),
        Part::Biases => ("biases".into(), "bias".into()),
        Part::LogitCap => ("cap on the logits".into(), "cap".into()),
    }
}

/// The table's nodes of a part; an error, a bias or a cap has none.
fn nodes(part: Part) -> Option<NodeType> {
    match part {
        Part::Embedding => Some(NodeType::Layer),
        Part::Attention => Some(NodeType::AttentionHead),
        Part::AttentionLatents => Some(NodeType::AttentionAutoencoderLatent),
        Part::Mlp => Some(NodeType::MlpNeuron),
        Part::MlpLatents => Some(NodeType::MlpAutoencoderLatent),
        _ => None,
    }
}

#[component]
pub fn Waterfall() -> impl IntoView {
    let session = Session::get();
    let told = move || session.answer.see(|a| a.folded.contributions.iter().flatten().cloned().collect::<Vec<_>>());
    let json = Callback::new(move |()| Json::of(&untrack(told)));
    let filter = move |event: web_sys::MouseEvent| {
        let bar = dom::closest(&event, "[data-bar]").and_then(|b| b.get_attribute("data-bar"));
        let term = bar.and_then(|at| untrack(told).into_iter().next()?.terms.into_iter().nth(at.parse().ok()?));
        let Some((kind, layer)) = term.and_then(|t| Some((nodes(t.part)?, t.layer))) else { return };
        session.view.change(|v| {
            let (kinds, layers) = (vec![kind], layer.into_iter().collect::<Vec<_>>());
            let again = v.kinds == kinds && v.layers == layers;
            (v.kinds, v.layers) = if again { Default::default() } else { (kinds, layers) };
        });
    };
    view! {
        <Show when=move || !told().is_empty()>
            <section class="card sum-card" aria-label="Logit difference as a sum" id="sum">
                <CardHead
                    title="Sum"
                    about="the sum"
                    tip="What each part of the model writes at the last token, along the direction from distractor to \
                        target, with the final norm's scale as it is. The parts add up to the logit difference. Press \
                        a bar to see its nodes in the table."
                >
                    <span class="quiet small-text">{dynamic(move || errors(&told()))}</span>
                    <SaveFigure what="the sum" of="#sum .waterfalls" file="logit-difference" />
                    <JsonButton what="the sum" value=json />
                </CardHead>
                <div
                    class="card-body waterfalls"
                    class:stale=follows(move || session.is_stale())
                    on:click=press(filter)
                    inner_html=move || {
                        let ablated = session.asked.see(|a| a.as_ref().is_some_and(|a| a.right.is_none()));
                        let titles = match ablated {
                            true => ["Left: ablated", "Right: baseline"],
                            false => ["Left prompt", "Right prompt"],
                        };
                        draw(&told(), titles)
                    }
                ></div>
            </section>
        </Show>
    }
}

/// What autoencoders leave over, in the sum of the left side.
fn errors(told: &[Contributions]) -> Option<String> {
    let is_error = |t: &&Contribution| matches!(t.part, Part::AttentionError | Part::MlpError);
    let errors: Vec<f64> = told.first()?.terms.iter().filter(is_error).map(|t| t.value).collect();
    (!errors.is_empty()).then(|| format!("Errors of the autoencoders add {}.", format::signed(sum(errors))))
}

/// A column of the figure: how it is named, and what it is on each side.
struct Column {
    /// Its place among the terms, if there are nodes to show.
    at: Option<usize>,
    name: (String, String),
    /// Value, and where it begins and ends.
    sides: Vec<(f64, (f64, f64))>,
}

/// One column for each part, and the whole at the end; two sides share the columns.
fn draw(told: &[Contributions], titles: [&str; 2]) -> String {
    let Some(first) = told.first() else { return String::new() };
    let ends: Vec<_> = told.iter().map(|side| end_to_end(side.terms.iter().map(|t| t.value))).collect();
    let value = |side: usize, at: usize| told[side].terms.get(at).map_or(0.0, |t| t.value);
    let parts = first.terms.iter().enumerate().map(|(at, term)| Column {
        at: nodes(term.part).map(|_| at),
        name: name(term),
        sides: (0..told.len()).filter_map(|s| Some((value(s, at), *ends[s].get(at)?))).collect(),
    });
    let whole = Column {
        at: None,
        name: ("logit difference".into(), "sum".into()),
        sides: told.iter().map(|side| (side.objective, (0.0, side.objective))).collect(),
    };
    let columns: Vec<Column> = parts.chain([whole]).collect();
    let all = || columns.iter().flat_map(|c| &c.sides).flat_map(|(_, (from, to))| [*from, *to]).chain([0.0]);
    let (low, high) = (all().fold(0.0, f64::min), all().fold(0.0, f64::max));
    let scale = Scale { low, span: if high > low { high - low } else { 1.0 } };
    let mut out = String::new();
    if told.len() > 1 {
        let [left, right] = titles;
        let _ = write!(out, "<h3><span class=\"of-left\">{left}</span> <span class=\"of-right\">{right}</span></h3>");
    }
    let _ = write!(out, "<div class=\"waterfall\" style=\"--zero:{:.2}%\">", scale.percent(-low));
    columns.iter().for_each(|column| column.draw(&scale, &mut out));
    out.push_str("</div>");
    out
}

struct Scale {
    low: f64,
    span: f64,
}

impl Scale {
    fn percent(&self, length: f64) -> f64 {
        length / self.span * 100.0
    }
}

impl Column {
    fn draw(&self, scale: &Scale, out: &mut String) {
        let (tag, bar) = match self.at {
            Some(at) => ("button", format!(" type=\"button\" data-bar=\"{at}\"")),
            None => ("div", String::new()),
        };
        let full: Vec<String> = self.sides.iter().map(|(value, _)| format::full(*value)).collect();
        let (long, short) = &self.name;
        let _ = write!(
            out,
            "<{tag} class=\"column\"{bar} title=\"{long}: {}\" data-value=\"{}\"><span class=\"well\">",
            full.join(", "),
            full.first().map(String::as_str).unwrap_or_default(),
        );
        let width = 76.0 / self.sides.len() as f64;
        for (i, (value, (from, to))) in self.sides.iter().enumerate() {
            let (bottom, height) = (scale.percent(from.min(*to) - scale.low), scale.percent((to - from).abs()));
            let class = if self.at.is_none() && short == "sum" { "whole" } else { sign_class(*value) };
            let _ = write!(
                out,
                "<span class=\"bar {class} side{i}\" style=\"left:{:.0}%;width:{width:.0}%;bottom:{bottom:.2}%;\
                 height:{height:.2}%\"></span>",
                12.0 + width * i as f64
            );
        }
        out.push_str("</span>");
        for (value, _) in &self.sides {
            let _ = write!(out, "<span class=\"column-value\">{}</span>", format::short(*value));
        }
        let _ = write!(out, "<span class=\"column-name\">{short}</span></{tag}>");
    }
}
