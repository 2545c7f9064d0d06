//! A neuron or latent by its weights: neighbours, connections, effects on the logits.

use std::fmt::Write as _;

use leptos::prelude::*;
use tdb_api::routes::ComponentWeights;
use tdb_api::{ComponentRequest, ComponentWeightsResponse, Histogram, WeightedComponent};

use super::Node;
use crate::format;
use crate::names::{component_name, node_path};
use crate::remote::{Remote, follow};
use crate::ui::dynamic;
use crate::ui::{CardHead, ProblemCard, sign_class};

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
        "</div><h3>Effect of an activation of 1 on all logits</h3>{}<p class=\"quiet small-text\">Write magnitude of an \
         activation of 1: {}</p>",
        histogram(&weights.logit_effects),
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

/// Bars by the logarithm of their count, so that the few tokens at the ends are seen.
fn histogram(of: &Histogram) -> String {
    let most = of.counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let bar = |count: &i64| {
        let height = (*count as f64 + 1.0).ln() / (most + 1.0).ln() * 100.0;
        format!("<span class=\"bar\" style=\"height:{height:.1}%\" title=\"{count} tokens\"></span>")
    };
    format!(
        "<div class=\"histogram\" role=\"img\" aria-label=\"Histogram of logit effects, counts on a logarithmic \
         scale\">{}</div><div class=\"histogram-ends\"><span>{}</span><span>tokens, logarithmic</span><span>{}</span></div>",
        of.counts.iter().map(bar).collect::<String>(),
        format::signed(of.low),
        format::signed(of.high)
    )
}
