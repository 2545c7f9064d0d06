//! The start page: the model, the way into the debugger, questions to begin with, any node.

mod examples;
mod picker;

use leptos::prelude::*;
use tdb_api::page::{EXAMPLES_MODEL, PageState, TOUR};
use tdb_api::{ComponentTypeForAttention, ComponentTypeForMlp};

use crate::app::TermsLink;
use crate::dom::set_title;
use crate::format;
use crate::server::{Facts, Health, Server};
use crate::signals::See;
use crate::ui::{CollectView, dynamic};

#[component]
pub fn StartPage() -> impl IntoView {
    set_title("Start");
    let server = Server::get();
    let debugger = move || server.facts.get().and_then(|f| f.slug()).map(|s| s.debugger_path());
    view! {
        <div class="page start">
            <section class="card hero">
                <h1>"Ask the model why it says this and not that."</h1>
                <p class="lead">
                    "Give a prompt, the token you expect, and one to compare it with. The debugger shows which \
                        attention heads, neurons, autoencoder latents and embeddings made the difference, what each of \
                        them looks for, and the texts that excite it most; ablate them, trace them, and see what made \
                        them fire."
                </p>
                <div class="row">
                    {dynamic(move || match debugger() {
                        Some(path) => view! {
                            <a class="button primary" id="open-debugger" href=path.clone()>"Open the debugger"</a>
                            {tour(&server).map(|query| view! {
                                <a class="button big" id="take-tour" href=format!("{path}?{query}")>
                                    "Take the tour: six steps"
                                </a>
                            })}
                            {latents(&server).map(|query| view! {
                                <a class="button big" id="open-latents" href=format!("{path}?{query}")>
                                    "… with autoencoder latents"
                                </a>
                            })}
                        }.into_any(),
                        None => match server.health.get() {
                            Health::Absent(problem) => view! {
                                <span class="problem" role="alert">
                                    <span><strong>"No server. "</strong>{problem.message}</span>
                                </span>
                            }.into_any(),
                            Health::Present => view! {
                                <span class="notice">
                                    "This server runs without a model: node pages work, the debugger does not."
                                </span>
                            }.into_any(),
                            Health::Unknown => view! { <span class="quiet">"Looking for the model…"</span> }.into_any(),
                        },
                    })}
                    <TermsLink />
                </div>
                {dynamic(move || server.facts.get().map(|f| view! { <FactList facts=f /> }))}
            </section>
            <section class="stack" aria-labelledby="examples-title">
                <h2 id="examples-title">"Questions to begin with"</h2>
                <examples::Examples />
            </section>
            <section class="card" aria-labelledby="picker-title">
                <div class="card-head"><h2 id="picker-title">"Look at one node"</h2></div>
                <div class="card-body"><picker::Picker /></div>
            </section>
        </div>
    }
}

/// The query of the tour's first step, where its model is served.
fn tour(server: &Server) -> Option<String> {
    let slug = server.facts.see(|f| f.as_ref().and_then(|f| f.slug()))?;
    let mut state = TOUR[0].example.state(None);
    state.other.push(("tour".into(), "1".into()));
    (slug.model == EXAMPLES_MODEL).then(|| state.to_query())
}

/// The query that shows the model in latents, where it has autoencoders for them.
fn latents(server: &Server) -> Option<String> {
    let model = server.facts.see(|f| f.as_ref().map(|f| f.model.clone()))?;
    let mut state = PageState::default();
    if model.has_mlp_autoencoder {
        state.component_type_for_mlp = ComponentTypeForMlp::AutoencoderLatent;
    }
    if model.has_attention_autoencoder {
        state.component_type_for_attention = ComponentTypeForAttention::AutoencoderLatent;
    }
    let residual = server.facts.see(|f| f.as_ref()?.server.as_ref()?.residual_autoencoder.clone());
    if let Some(residual) = residual {
        state.residual_cut_layer = residual.layers.get(residual.layers.len() / 2).copied();
    }
    Some(state.to_query()).filter(|query| !query.is_empty())
}

/// A dictionary's name, size, and where it stands.
fn described(a: &tdb_api::AutoencoderInfo, n_layers: i64) -> String {
    let layers = match a.layers.as_slice() {
        all if all.len() as i64 == n_layers => String::new(),
        [one] => format!(", layer {one}"),
        some => format!(", layers {}", some.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    format!("{} ({} latents at {}{layers})", a.name, format::count(a.n_latents.unsigned_abs()), a.site)
}

#[component]
fn FactList(facts: Facts) -> impl IntoView {
    let mut list: Vec<(&'static str, String)> = Vec::new();
    let mut put = |name, value: Option<String>| list.extend(value.map(|v| (name, v)));
    let count = |n: i64| format::count(n.unsigned_abs());
    put("Model", facts.model.model_name.clone());
    let shape = facts.server.as_ref().and_then(|s| s.shape.as_ref());
    put("Layers", (facts.model.n_layers > 0).then(|| count(facts.model.n_layers)));
    put("Heads a layer", shape.map(|s| count(s.n_heads)));
    put("Neurons a layer", shape.map(|s| count(s.d_mlp)));
    put("Width", shape.map(|s| count(s.d_model)));
    put("Vocabulary", shape.map(|s| count(s.vocab_size)));
    put("Context", shape.map(|s| format!("{} tokens", count(s.context_length))));
    let latents = |a: Option<&tdb_api::AutoencoderInfo>, name: &Option<String>, has: bool| {
        has.then(|| match a {
            Some(a) => described(a, facts.model.n_layers),
            None => name.clone().unwrap_or_else(|| "yes".into()),
        })
    };
    let s = facts.server.as_ref();
    put(
        "MLP autoencoder",
        latents(
            s.and_then(|s| s.mlp_autoencoder.as_ref()),
            &facts.model.mlp_autoencoder_name,
            facts.model.has_mlp_autoencoder,
        ),
    );
    put(
        "Attention autoencoder",
        latents(
            s.and_then(|s| s.attention_autoencoder.as_ref()),
            &facts.model.attention_autoencoder_name,
            facts.model.has_attention_autoencoder,
        ),
    );
    put("Residual dictionary", s.and_then(|s| Some(described(s.residual_autoencoder.as_ref()?, facts.model.n_layers))));
    view! {
        <dl class="facts" id="facts">
            {list.into_iter().map(|(name, value)| view! { <div><dt>{name}</dt><dd>{value}</dd></div> }).collect_view()}
        </dl>
    }
}
