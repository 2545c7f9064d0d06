//! What a head does in tokens: its OV and QK circuits.

use std::fmt::Write as _;

use leptos::prelude::*;
use tdb_api::routes::HeadReadings;
use tdb_api::{HeadCircuit, HeadReadingsRequest, HeadReadingsResponse, TokenAndScalar};

use super::Node;
use crate::format;
use crate::remote::{Remote, follow};
use crate::ui::{CardHead, ProblemCard, dynamic, token_html};

/// Tokens at either end, of those that the server tells.
const SHOWN: usize = 5;

#[component]
pub fn Readings() -> impl IntoView {
    let node = Node::get();
    let (state, again) = follow::<HeadReadings>(move || {
        let a = node.address.get()?;
        let prompt = node.query.get().prompts_of_interest.into_iter().next();
        Some(HeadReadingsRequest { layer_index: a.layer_index, activation_index: a.node_index, prompt })
    });
    view! {
        <section class="card" aria-label="OV and QK in tokens" id="readings">
            <CardHead
                title="OV and QK in tokens"
                about="OV and QK in tokens"
                tip="From the weights alone. A token x is its embedding, without position, after the norm before the \
                    layer. OV: what attending to x adds to each logit y, W_U[y] · γ W_O v(x), with the final norm's \
                    gain γ, without its scale, through no other layer; from the mean over y. QK: the attention logit \
                    of a query x with a key y, q(x) · k(y), from the mean over y."
            />
            {dynamic(move || match state.get() {
                Remote::Ready(readings) => {
                    view! { <div class="card-body stack" inner_html=draw(&readings)></div> }.into_any()
                }
                Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                _ => view! { <div class="card-body"><div class="skeleton tall-skeleton"></div></div> }.into_any(),
            })}
        </section>
    }
}

fn draw(readings: &HeadReadingsResponse) -> String {
    let circuits = [
        (
            &readings.ov,
            "OV: which logits attending to a token raises and lowers",
            ["Attended-to token", "Raises", "Lowers"],
            "of an attended-to token and a logit",
        ),
        (
            &readings.qk,
            "QK: which keys a query prefers and avoids",
            ["Query", "Prefers", "Avoids"],
            "of a query and a key",
        ),
    ];
    let notes = readings.notes.iter().map(|note| format!("<p class=\"notice\">{}</p>", format::html(note)));
    let circuits = circuits.map(|(circuit, title, heads, pair)| of_circuit(circuit, title, heads, pair));
    notes.chain(circuits).collect()
}

fn of_circuit(circuit: &HeadCircuit, title: &str, heads: [&str; 3], pair: &str) -> String {
    let mut out = format!("<h3>{title}</h3>");
    if circuit.tokens.is_empty() {
        out.push_str("<p class=\"quiet\">Run a prompt above to read its tokens.</p>");
    } else {
        let heads = heads.map(|head| format!("<th scope=\"col\">{head}</th>")).concat();
        let _ = write!(
            out,
            "<div class=\"heat-scroll\" tabindex=\"0\" role=\"group\" aria-label=\"{title}\">\
             <table class=\"explanations\"><thead><tr>{heads}</tr></thead><tbody>"
        );
        for r in &circuit.tokens {
            let [token, top, bottom] = [token_html(&r.token), list(&r.tokens.top), list(&r.tokens.bottom)];
            let _ = write!(out, "<tr><th scope=\"row\">{token}</th><td>{top}</td><td>{bottom}</td></tr>");
        }
        out.push_str("</tbody></table></div>");
    }
    let _ = write!(out, "<h3>Strongest pairs {pair}, in the whole vocabulary</h3><div class=\"list\">");
    for p in &circuit.pairs {
        let _ = write!(
            out,
            "<span class=\"pair\">{} → {} {}</span> ",
            token_html(&p.from),
            token_html(&p.to),
            value(p.value)
        );
    }
    out.push_str("</div>");
    if let Some(most) = circuit.unseen_at_most {
        let _ = write!(
            out,
            "<p class=\"quiet small-text\">Not all pairs were looked at; none of the others exceeds {}.</p>",
            format::number(most)
        );
    }
    out
}

fn list(tokens: &[TokenAndScalar]) -> String {
    tokens.iter().take(SHOWN).map(|t| format!("{} {} ", token_html(&t.token), value(t.scalar))).collect()
}

fn value(value: f64) -> String {
    let full = format::full(value);
    format!("<span class=\"token-index\" data-value=\"{full}\" title=\"{full}\">{}</span>", format::signed(value))
}
