//! What is changed and what is traced, as chips that can be edited and removed.

use leptos::prelude::*;
use tdb_api::{AttentionTraceType, MlpTraceType, NodeIndex, NodeToTrace, NodeType, PassType};

use super::means::MeanValues;
use crate::answer::Answer;
use crate::client::capital;
use crate::dom;
use crate::format;
use crate::names;
use crate::session::Session;
use crate::signals::{Change, Memo, Peek, RwSignal, See, Signal};
use crate::ui::{CollectView, Show, Tip, button, dynamic, entered, follows, press};

/// Name and place of a node in words: `attn_L2_1 at “,” (6)`.
pub fn describe(node: &NodeIndex, answer: &Answer) -> String {
    describe_at(node, answer.tokens())
}

/// The same, of a node named by these tokens.
pub fn describe_at(node: &NodeIndex, tokens: &[String]) -> String {
    let token = |i: Option<usize>| match i {
        Some(i) => match tokens.get(i) {
            Some(t) => format!("{} ({i})", format::quoted(t)),
            None => format!("token {i}"),
        },
        None => "every token".into(),
    };
    let name = match node.tensor_indices.last() {
        Some(Some(_)) | None => names::node_name(node),
        Some(None) => {
            format!("{} of layer {}, all", names::type_short(node.node_type), node.layer_index.unwrap_or_default())
        }
    };
    let from = token(names::token_from(node));
    match names::token_to(node) {
        Some(to) => format!("{name} at {from} → {}", token(Some(to))),
        None => format!("{name} at {from}"),
    }
}

#[component]
pub fn Interventions() -> impl IntoView {
    let session = Session::get();
    let adding = RwSignal::new(false);
    let ablations = Memo::new(move |_| session.page.see(|p| p.left.node_ablations.clone()));
    let note = move || {
        if session.page.see(|p| p.right.is_some()) {
            "Applied to both prompts."
        } else {
            "Left: with ablations. Right: baseline."
        }
    };
    view! {
        <Trace />
        <section class="card interventions" aria-label="Active ablations">
            <div class="card-head">
                <h2>"Ablations"</h2>
                <Tip about="ablations">
                    "A node that is ablated is held at the value shown while the model runs. Use a row's ⊘, or add a \
                        whole head, neuron, latent or layer here."
                </Tip>
                <span class="grow"></span>
                <button
                    type="button"
                    class="button small plain"
                    aria-expanded=follows(move || adding.get().to_string())
                    on:click=press(move |_| adding.change(|a| *a = !*a))
                >
                    "Add"
                </button>
                <Show when=move || ablations.see(|a| a.len() > 1)>
                    {button("button small plain", "Clear all", move |_| session.clear_ablations())}
                </Show>
            </div>
            <Show when=move || adding.get()>
                <AddAblation />
            </Show>
            <Show when=move || !ablations.see(Vec::is_empty)>
                <div class="card-body stack">
                    <ul class="chips" id="ablations">
                        {dynamic(move || ablations.get().into_iter().enumerate().map(|(i, ablation)| {
                            let label = session.answer.see(|a| describe(&ablation.node_index, a));
                            let source = session.view.see(|v| v.source(&ablation.node_index, ablation.value));
                            let set = {
                                let node = ablation.node_index.clone();
                                move |text: String| {
                                    if let Some(value) = dom::number(&text)
                                        && value.is_finite()
                                    {
                                        session.ablate(node.clone(), value);
                                    }
                                }
                            };
                            view! {
                                <li class="chip ablation">
                                    <span class="chip-text" title=format!("{} pass", ablation.node_index.pass_type)>
                                        {label.clone()}
                                    </span>
                                    <span>"="</span>
                                    <input
                                        inputmode="decimal"
                                        aria-label=format!("Value of {label}")
                                        prop:value=ablation.value.to_string()
                                        on:change=entered(move |e| set(event_target_value(&e)))
                                    />
                                    {source.map(|s| view! {
                                        <span class="quiet chip-text" title=s.clone()>{s.clone()}</span>
                                    })}
                                    <button
                                        type="button"
                                        class="close"
                                        aria-label=format!("Remove the ablation of {label}")
                                        on:click=press(move |_| session.remove_ablation(i))
                                    >
                                        "✕"
                                    </button>
                                </li>
                            }
                        }).collect_view())}
                    </ul>
                    <p class="quiet small-text">{note}</p>
                </div>
            </Show>
        </section>
    }
}

/// The question of the present trace, and the way to it.
#[component]
fn Trace() -> impl IntoView {
    let session = Session::get();
    let question = move || {
        let page = session.page.get();
        let up = page.left.upstream_node_to_trace?;
        Some(session.answer.see(|a| words(&up, page.left.downstream_node_to_trace.as_ref(), a)))
    };
    let trail = move || session.view.see(|v| v.trail());
    view! {
        <Show when=move || session.page.see(|p| p.left.upstream_node_to_trace.is_some())>
            <section class="card trace" aria-label="Trace" id="trace">
                <div class="card-head">
                    <h2>"Trace"</h2>
                    <span class="grow"></span>
                    {button("button small plain", "Clear", move |_| session.trace_back(None))}
                </div>
                <div class="card-body stack">
                    <p>{question}</p>
                    <ol class="trail" aria-label="Way of the trace">
                        <li>
                            {button("chip", "logits", move |_| session.trace_back(None))}
                        </li>
                        {dynamic(move || trail().into_iter().enumerate().map(|(i, (node, _))| view! {
                            <li>
                                "← "
                                {button("chip", short(&node), move |_| session.trace_back(Some(i)))}
                            </li>
                        }).collect_view())}
                        {dynamic(move || session.page.get().left.upstream_node_to_trace.map(|node| view! {
                            <li>"← "<span class="chip" aria-current="step">{short(&node)}</span></li>
                        }))}
                    </ol>
                </div>
            </section>
        </Show>
    }
}

fn short(node: &NodeToTrace) -> String {
    let through = node.attention_trace_type.map(|t| format!(" {t}")).unwrap_or_default();
    let through = if node.mlp_trace_type == Some(MlpTraceType::Up) { " up".to_owned() } else { through };
    format!("{}{through}", names::node_name(&node.node_index))
}

fn words(up: &NodeToTrace, down: Option<&NodeToTrace>, answer: &Answer) -> String {
    let name = describe(&up.node_index, answer);
    match (up.attention_trace_type, down) {
        (Some(AttentionTraceType::Q), _) => format!("What in the query caused the attention of {name}?"),
        (Some(AttentionTraceType::K), _) => format!("What in the key caused the attention of {name}?"),
        (Some(AttentionTraceType::QK), _) => format!("What in query and key caused the attention of {name}?"),
        (Some(AttentionTraceType::V), None) => {
            format!("What did {name} move that changed the logit difference? (through the value)")
        }
        (Some(AttentionTraceType::V), Some(down)) => {
            format!("What did {name} move that excited {}? (through the value)", describe(&down.node_index, answer))
        }
        (None, _) if up.mlp_trace_type == Some(MlpTraceType::Up) => {
            format!("What caused that by which the gate of {name} is multiplied?")
        }
        (None, _) => format!("What caused the activation of {name}?"),
    }
}

const KINDS: [(NodeType, &str); 6] = [
    (NodeType::AttentionHead, "attention head"),
    (NodeType::MlpNeuron, "MLP neuron"),
    (NodeType::MlpAutoencoderLatent, "MLP latent"),
    (NodeType::AttentionAutoencoderLatent, "attention latent"),
    (NodeType::ResidualAutoencoderLatent, "residual latent"),
    (NodeType::AutoencoderLatent, "latent"),
];

/// Adds ablations that the table has no row for: whole components, whole layers, ranges of tokens.
#[component]
fn AddAblation() -> impl IntoView {
    let session = Session::get();
    let server = crate::server::Server::get();
    let kind = RwSignal::new(NodeType::AttentionHead);
    let layer = RwSignal::new("0".to_owned());
    let unit = RwSignal::new("0".to_owned());
    let places = RwSignal::new(String::new());
    let value = RwSignal::new("0".to_owned());
    let wrong = RwSignal::new(None::<String>);
    let build = move || -> Result<(Vec<NodeIndex>, f64), String> {
        let (layers, units) =
            server.facts.peek(|f| f.as_ref().map_or((None, None), |f| f.extent(kind.get_untracked())));
        let layer = index(&layer.get_untracked(), layers, "layer")?.ok_or("A layer is needed.")?;
        let unit = index(&unit.get_untracked(), units, "index")?;
        let n = session.answer.peek(|a| a.tokens().len());
        let places = ranges(&places.get_untracked(), n)?;
        let value = dom::number(&value.get_untracked()).ok_or("The value is not a number.")?;
        let node = |at: Option<i64>| NodeIndex {
            node_type: kind.get_untracked(),
            tensor_indices: match kind.get_untracked() {
                NodeType::AttentionHead => vec![at, None, unit],
                _ => vec![at, unit],
            },
            layer_index: Some(layer),
            pass_type: PassType::Forward,
        };
        Ok((places.into_iter().map(node).collect(), value))
    };
    // One component has a mean; a layer of them has none that a single value could be.
    let single = Signal::derive(move || {
        let (layer, unit) = (layer.get().trim().parse().ok()?, unit.get().trim().parse().ok()?);
        let node_type = kind.get();
        let tensor_indices = vec![None, Some(unit)];
        let node = NodeIndex { node_type, tensor_indices, layer_index: Some(layer), pass_type: PassType::Forward };
        (node_type != NodeType::AttentionHead).then_some(node)
    });
    let add = move |_| match build() {
        Ok((nodes, value)) => {
            wrong.set(None);
            session.ablate_all(nodes, value);
        }
        Err(message) => wrong.set(Some(message)),
    };
    let field = move |label: &'static str, signal: RwSignal<String>, hint: &'static str| {
        view! {
            <label class="stack tight">
                <span class="label">{label}</span>
                <input
                    class="field short"
                    placeholder=hint
                    prop:value=follows(move || signal.get())
                    on:input=entered(move |e| signal.set(event_target_value(&e)))
                />
            </label>
        }
    };
    view! {
        <div class="card-body stack add-ablation">
            <div class="row">
                <label class="stack tight">
                    <span class="label">"Kind"</span>
                    <select class="field" on:change=entered(move |e| {
                        if let Some((k, _)) = KINDS.iter().find(|(k, _)| k.as_str() == event_target_value(&e)) {
                            kind.set(*k);
                        }
                    })>
                        {KINDS.iter().map(|(k, label)| view! {
                            <option value=k.as_str()>{*label}</option>
                        }).collect_view()}
                    </select>
                </label>
                {field("Layer", layer, "0")}
                {field("Index", unit, "all")}
                {field("Tokens", places, "all, 2, 3-5")}
                {field("Value", value, "0")}
                {button("button", "Ablate", add)}
            </div>
            <MeanValues node=single value=value />
            {dynamic(move || wrong.get().map(|w| view! { <div class="field-error" role="alert">{w}</div> }))}
            <p class="quiet small-text">
                "Leave the index empty for the whole layer, the tokens empty for all of them."
            </p>
        </div>
    }
}

/// An index in range; empty or `all` is `None`.
fn index(text: &str, limit: Option<i64>, what: &str) -> Result<Option<i64>, String> {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("all") {
        return Ok(None);
    }
    match (text.parse::<i64>(), limit) {
        (Ok(n), Some(limit)) if (0..limit).contains(&n) => Ok(Some(n)),
        (Ok(n), None) if n >= 0 => Ok(Some(n)),
        (_, Some(limit)) => Err(format!("{} must be 0–{}.", capital(what), limit - 1)),
        _ => Err(format!("{} must be a whole number, 0 or more.", capital(what))),
    }
}

/// `all`, `3`, `2-5`, `1, 4-6` as places; all of them is one `None`.
fn ranges(text: &str, n: usize) -> Result<Vec<Option<i64>>, String> {
    let text = text.trim();
    if text.is_empty() || text.eq_ignore_ascii_case("all") {
        return Ok(vec![None]);
    }
    let mut places = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let number = |t: &str| {
            t.trim().parse::<i64>().map_err(|_| "Use token numbers or ranges, for instance 2, 3-5.".to_owned())
        };
        let (from, to) = (number(from)?, number(to)?);
        if from > to || (n > 0 && to >= n as i64) {
            return Err(format!("“{part}” is outside the prompt's tokens, 0–{}.", n.saturating_sub(1)));
        }
        places.extend((from..=to).map(Some));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(ranges("", 9), Ok(vec![None]));
        assert_eq!(ranges("1, 4-6", 9), Ok(vec![Some(1), Some(4), Some(5), Some(6)]));
        assert!(ranges("7-9", 9).is_err());
        assert!(ranges("x", 9).is_err());
        assert_eq!(index("all", Some(4), "layer"), Ok(None));
        assert!(index("4", Some(4), "layer").is_err());
    }
}
