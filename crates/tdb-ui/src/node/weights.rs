//! A neuron or latent by its weights: neighbours, connections, effects on the logits.

use std::fmt::Write as _;

use leptos::prelude::*;
use tdb_api::routes::ComponentWeights;
use tdb_api::{ComponentRequest, ComponentWeightsResponse, WeightedComponent};

use super::{Node, histogram};
use crate::format;
use crate::names::{component_name, node_path};
use crate::remote::{Remote, follow};
use crate::ui::{CardHead, ProblemCard, dynamic, sign_class};

#[component]
pub fn Weights() -> impl IntoView {
    let node = Node::get();
    let (state, again) = follow::<ComponentWeights>(move || {
        let a = node.address.get()?;
        Some(ComponentRequest {
            node_type: a.kind.node_type,
            layer_index: a.layer_index,
            activation_index: a.node_index,
        })
    });
    let slug = move || node.address.get().map(|a| a.slug.to_string()).unwrap_or_default();
    view! {
        <section class="card" aria-label="Weights" id="weights">
            <CardHead
                title="Weights"
                about="the weights"
                tip="From the model's weights alone. Neighbours: cosine of write directions. Upstream: what another's \
                    write adds to this one's input, for an activation of 1 and apart from the norm's scale. \
                    Downstream: likewise, from this one to others."
            />
            {dynamic(move || match state.get() {
                Remote::Ready(weights) => {
                    view! { <div class="card-body stack" inner_html=draw(&weights, &slug())></div> }.into_any()
                }
                Remote::Failed(problem) => view! { <ProblemCard problem=problem retry=again /> }.into_any(),
                _ => view! { <div class="card-body"><div class="skeleton tall-skeleton"></div></div> }.into_any(),
            })}
        </section>
    }
}

fn draw(weights: &ComponentWeightsResponse, slug: &str) -> String {
    let mut out = String::from("<div class=\"lens\">");
    for (title, list) in [
        ("Nearest by direction (cosine)", &weights.neighbours),
        ("Strongest upstream", &weights.upstream),
        ("Strongest downstream", &weights.downstream),
    ] {
        let _ = write!(out, "<div><h3>{title}</h3>{}</div>", rows(list, slug));
    }
    let _ = write!(
        out,
        "</div><h3>Effect of an activation of 1 on all logits</h3>{}<p class=\"quiet small-text\">Write magnitude of \
         an activation of 1: {}</p>",
        histogram::draw(&weights.logit_effects, "tokens of the vocabulary"),
        format::number(weights.write_norm)
    );
    out
}

fn rows(list: &[WeightedComponent], slug: &str) -> String {
    if list.is_empty() {
        return "<p class=\"quiet\">None.</p>".into();
    }
    let row = |c: &WeightedComponent| {
        let name = component_name(c.node_type, c.layer_index, c.activation_index);
        let href = node_path(slug, c.node_type, c.layer_index, c.activation_index);
        let (class, full, shown) = (sign_class(c.value), format::full(c.value), format::signed(c.value));
        format!(
            "<tr><th scope=\"row\"><a class=\"node-name\" href=\"{href}\">{name}</a></th><td class=\"num {class}\" \
             title=\"{full}\">{shown}</td></tr>"
        )
    };
    format!("<table><tbody>{}</tbody></table>", list.iter().map(row).collect::<String>())
}
