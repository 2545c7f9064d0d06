//! The state of the debugger's page as the parameters of a URL.
//!
//! A parameter stands there only when it differs from its default. Prompts and component types stand as they are, the
//! rest as JSON.

use super::state::{PageState, SideState};
use crate::wire::{Decode, from_value};
use crate::{ComponentTypeForMlp, NodeToTrace};
use serde::Serialize;
use serde_json::{Number, Value};

/// A parameter that could not be understood and was left at its default.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {message}")]
pub struct QueryProblem {
    /// The parameter.
    pub name: String,
    /// What is wrong with its value.
    pub message: String,
}

impl PageState {
    /// Reads a query string, with or without its question mark. What cannot be understood keeps its default and is
    /// told.
    pub fn from_query(query: &str) -> (Self, Vec<QueryProblem>) {
        let mut state = Self::default();
        let mut right = SideState::default();
        let mut two = false;
        let mut problems = Vec::new();
        for (name, text) in form_urlencoded::parse(query.trim_start_matches('?').as_bytes()) {
            let (name, text) = (name.into_owned(), text.into_owned());
            let read = match name.as_str() {
                "componentTypeForMlp" if text == "autoencoder" => {
                    state.component_type_for_mlp = ComponentTypeForMlp::AutoencoderLatent;
                    Ok(())
                }
                "componentTypeForMlp" => word(&text, &mut state.component_type_for_mlp),
                "componentTypeForAttention" => word(&text, &mut state.component_type_for_attention),
                "residualCutLayer" => json(&text, &mut state.residual_cut_layer),
                "topAndBottomKForNodeTable" => json(&text, &mut state.top_and_bottom_k_for_node_table),
                "hideEarlyLayersWhenAblating" => json(&text, &mut state.hide_early_layers_when_ablating),
                "prompt" => raw(text, &mut state.left.prompt),
                "targetTokens" => json(&text, &mut state.left.target_tokens),
                "distractorTokens" => json(&text, &mut state.left.distractor_tokens),
                "nodeAblations" => json(&text, &mut state.left.node_ablations),
                "upstreamNodeToTrace" => json(&text, &mut state.left.upstream_node_to_trace),
                "downstreamNodeToTrace" => json(&text, &mut state.left.downstream_node_to_trace),
                "rightPrompt" => {
                    two = true;
                    raw(text, &mut right.prompt)
                }
                "alignment" => raw(text, &mut state.alignment),
                "rightTargetTokens" => json(&text, &mut right.target_tokens),
                "rightDistractorTokens" => json(&text, &mut right.distractor_tokens),
                "rightNodeAblations" => json(&text, &mut right.node_ablations),
                "rightUpstreamNodeToTrace" => json(&text, &mut right.upstream_node_to_trace),
                "rightDownstreamNodeToTrace" => json(&text, &mut right.downstream_node_to_trace),
                _ => {
                    state.other.push((name.clone(), text));
                    Ok(())
                }
            };
            if let Err(message) = read {
                problems.push(QueryProblem { name, message });
            }
        }
        state.right = two.then_some(right);
        (state, problems)
    }

    /// The query string, without a question mark; empty if everything is at its default.
    pub fn to_query(&self) -> String {
        let default = Self::default();
        let mut out = Writer(form_urlencoded::Serializer::new(String::new()));
        let mlp = self.component_type_for_mlp;
        out.raw("componentTypeForMlp", mlp.as_str(), default.component_type_for_mlp.as_str());
        let attention = self.component_type_for_attention;
        out.raw("componentTypeForAttention", attention.as_str(), default.component_type_for_attention.as_str());
        out.json("residualCutLayer", &self.residual_cut_layer, &default.residual_cut_layer);
        let (k, default_k) = (&self.top_and_bottom_k_for_node_table, &default.top_and_bottom_k_for_node_table);
        out.json("topAndBottomKForNodeTable", k, default_k);
        let (hide, default_hide) = (&self.hide_early_layers_when_ablating, &default.hide_early_layers_when_ablating);
        out.json("hideEarlyLayersWhenAblating", hide, default_hide);
        out.raw("prompt", &self.left.prompt, &default.left.prompt);
        out.side(&self.left, &default.left, LEFT);
        if let Some(right) = &self.right {
            // Its presence says that there are two prompts, so it is written even when it is empty.
            out.0.append_pair("rightPrompt", &right.prompt);
            out.side(right, &SideState::default(), RIGHT);
            out.raw("alignment", &self.alignment, &default.alignment);
        }
        out.0.extend_pairs(&self.other);
        out.0.finish()
    }
}

/// Names of the parameters of one side, but for its prompt: tokens, ablations, trace.
type SideNames = [&'static str; 5];
const LEFT: SideNames =
    ["targetTokens", "distractorTokens", "nodeAblations", "upstreamNodeToTrace", "downstreamNodeToTrace"];
const RIGHT: SideNames = [
    "rightTargetTokens",
    "rightDistractorTokens",
    "rightNodeAblations",
    "rightUpstreamNodeToTrace",
    "rightDownstreamNodeToTrace",
];

struct Writer<'a>(form_urlencoded::Serializer<'a, String>);

impl Writer<'_> {
    fn raw(&mut self, name: &str, value: &str, default: &str) {
        if value != default {
            self.0.append_pair(name, value);
        }
    }

    fn json<T: Serialize + PartialEq>(&mut self, name: &str, value: &T, default: &T) {
        if value == default {
            return;
        }
        // Plain data always has a JSON form.
        if let Ok(value) = serde_json::to_value(value) {
            self.0.append_pair(name, &as_a_browser_writes(value).to_string());
        }
    }

    fn side(&mut self, side: &SideState, default: &SideState, names: SideNames) {
        let [targets, distractors, ablations, upstream, downstream] = names;
        self.json(targets, &side.target_tokens, &default.target_tokens);
        self.json(distractors, &side.distractor_tokens, &default.distractor_tokens);
        self.json(ablations, &side.node_ablations, &default.node_ablations);
        self.trace(upstream, side.upstream_node_to_trace.as_ref());
        self.trace(downstream, side.downstream_node_to_trace.as_ref());
    }

    fn trace(&mut self, name: &str, node: Option<&NodeToTrace>) {
        let Some(Ok(Value::Object(mut object))) = node.map(serde_json::to_value) else { return };
        // What does not apply to a node is left out rather than null.
        object.retain(|_, value| !value.is_null());
        self.0.append_pair(name, &as_a_browser_writes(Value::Object(object)).to_string());
    }
}

/// Whole numbers without `.0`, as JavaScript's `JSON.stringify` has them.
fn as_a_browser_writes(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(as_a_browser_writes).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, as_a_browser_writes(value))).collect(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                Value::Number(Number::from(float as i64))
            }
            _ => Value::Number(number),
        },
        other => other,
    }
}

fn raw(text: String, into: &mut String) -> Result<(), String> {
    *into = text;
    Ok(())
}

fn word<T: std::str::FromStr<Err = crate::UnknownName>>(text: &str, into: &mut T) -> Result<(), String> {
    *into = text.parse().map_err(|error: crate::UnknownName| error.to_string())?;
    Ok(())
}

fn json<T: Decode>(text: &str, into: &mut T) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("{text:?} is not JSON: {error}"))?;
    *into = from_value(&value, "value").map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AttentionTraceType, ComponentTypeForAttention, MirroredNodeIndex, NodeAblation, NodeType, PassType, TokenRef,
    };

    fn head() -> MirroredNodeIndex {
        MirroredNodeIndex {
            node_type: NodeType::AttentionHead,
            tensor_indices: vec![Some(6), Some(4), Some(2)],
            layer_index: Some(3),
            pass_type: PassType::Forward,
        }
    }

    fn traced(attention_trace_type: Option<AttentionTraceType>) -> Option<NodeToTrace> {
        Some(NodeToTrace {
            node_index: head(),
            attention_trace_type,
            mlp_trace_type: None,
            downstream_trace_config: None,
        })
    }

    fn read(query: &str) -> PageState {
        let (state, problems) = PageState::from_query(query);
        assert_eq!(problems, []);
        state
    }

    #[test]
    fn defaults_are_not_written() {
        assert_eq!(PageState::default().to_query(), "");
        assert_eq!(read(""), PageState::default());
        assert_eq!(read("?"), PageState::default());
    }

    #[test]
    fn everything_survives() {
        let side = SideState {
            prompt: "a b & c=d + 100% \u{2603} \"q\"\n".into(),
            target_tokens: vec![" Mary".into(), "".into()],
            distractor_tokens: vec![TokenRef::Id { id: 187, text: Some("\u{fffd}".into()) }],
            node_ablations: vec![NodeAblation { node_index: head(), value: -1.5 }],
            upstream_node_to_trace: traced(Some(AttentionTraceType::V)),
            downstream_node_to_trace: traced(None),
        };
        let state = PageState {
            component_type_for_mlp: ComponentTypeForMlp::AutoencoderLatent,
            component_type_for_attention: ComponentTypeForAttention::AutoencoderLatent,
            residual_cut_layer: Some(3),
            top_and_bottom_k_for_node_table: 3,
            hide_early_layers_when_ablating: false,
            left: side.clone(),
            right: Some(SideState { prompt: String::new(), ..side }),
            alignment: "0:1 2:2".into(),
            other: vec![("sort".into(), "activation desc".into())],
        };
        assert_eq!(read(&format!("?{}", state.to_query())), state);
    }

    #[test]
    fn links_look_as_they_always_did() {
        let mut state = PageState::default();
        state.left.prompt = "Mary & John".into();
        state.left.node_ablations = vec![NodeAblation { node_index: head(), value: 0.0 }];
        state.left.upstream_node_to_trace = traced(Some(AttentionTraceType::Q));
        let query = state.to_query();
        assert!(query.starts_with("prompt=Mary+%26+John&nodeAblations=%5B%7B%22nodeIndex%22%3A"), "{query}");
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let head = r#"{"nodeType":"attention_head","tensorIndices":[6,4,2],"layerIndex":3,"passType":"forward"}"#;
        assert_eq!(pairs[1].1, format!(r#"[{{"nodeIndex":{head},"value":0}}]"#));
        assert_eq!(pairs[2].1, format!(r#"{{"nodeIndex":{head},"attentionTraceType":"Q"}}"#));
    }

    #[test]
    fn a_right_prompt_means_two_prompts() {
        let state = read("rightPrompt=&rightTargetTokens=%5B%22+x%22%5D");
        assert_eq!(state.right.as_ref().unwrap().target_tokens, [" x".into()]);
        assert!(read("rightTargetTokens=%5B%22+x%22%5D").right.is_none());
    }

    #[test]
    fn old_values_are_understood() {
        let state = read("componentTypeForMlp=autoencoder");
        assert_eq!(state.component_type_for_mlp, ComponentTypeForMlp::AutoencoderLatent);
        assert_eq!(state.to_query(), "componentTypeForMlp=autoencoder_latent");
    }

    #[test]
    fn nonsense_keeps_the_default_and_is_told() {
        let (state, problems) = PageState::from_query(
            "componentTypeForAttention=x&targetTokens=%5B&topAndBottomKForNodeTable=null&prompt=p",
        );
        let names: Vec<_> = problems.iter().map(|problem| problem.name.as_str()).collect();
        assert_eq!(names, ["componentTypeForAttention", "targetTokens", "topAndBottomKForNodeTable"]);
        assert_eq!(state.left.target_tokens, [" Canada".into()]);
        assert_eq!(state.left.prompt, "p");
    }
}
