//! The question and its answer for other programs.

use serde::Serialize;
use tdb_api::stream::Candidates;
use tdb_api::{BatchedResponse, BatchedTdbRequest, Check};

use crate::answer::{Answer, Metric};
use crate::dom;
use crate::format;
use crate::json::Json;
use crate::session::{Layers, Session};
use crate::ui::verdict;
use crate::view::{Line, arrange};

/// The request as a shell command.
pub fn curl(server: &str, body: &str) -> String {
    // In single quotes a shell takes everything as it is but the single quote itself.
    format!(
        "curl -s '{server}/batched_tdb' \\\n  -H 'Content-Type: application/json' \\\n  -d '{}'",
        body.replace('\'', r"'\''")
    )
}

/// The request as a Python program without dependencies, ending in the node table's rows.
pub fn python(server: &str, body: &str) -> String {
    let literal = Json::of(&body).text();
    format!(
        r#"import json
import urllib.request

body = json.loads({literal})
request = urllib.request.Request(
    "{server}/batched_tdb",
    data=json.dumps(body).encode(),
    headers={{"Content-Type": "application/json"}},
)
answer = json.load(urllib.request.urlopen(request))
for side in answer["inferenceSubResponses"]:
    top = side["processingResponseDataByName"]["topKComponents"]
    values = top["activationsByGroupId"]
    rows = [
        (node["nodeType"], node["layerIndex"], node["tensorIndices"], direct, total)
        for node, direct, total in zip(top["nodeIndices"], values["direction_write"], values["act_times_grad"])
    ]
    for row in sorted(rows, key=lambda row: -row[3])[:20]:
        print(*row)
"#
    )
}

/// The rows of the table as filtered and ordered, with a first line that says where they come from.
pub fn csv(session: Session, checks: &[Check], link: &str) -> String {
    let answer = session.answer.get_untracked();
    let view = crate::view::ViewState { grouped: crate::view::Grouping::None, ..session.view.get_untracked() };
    let lines = arrange(&answer, &view, &Default::default(), Layers::default());
    table(&answer, &lines, &stamp(session, checks, link))
}

fn table(answer: &Answer, lines: &[Line], stamp: &str) -> String {
    let mut out = format!("# {}\n", stamp.replace('\n', " "));
    out.push_str("name,type,layer,index");
    let sides: &[&str] = if answer.is_two_sided() { &["left_", "right_"] } else { &[""] };
    // Two prompts of unequal length have the same node at different tokens.
    let places = if answer.is_aligned() { sides } else { &[""] };
    for side in places {
        out.push_str(&format!(",{side}attended_to,{side}attended_to_token,{side}token,{side}token_text"));
    }
    for side in sides {
        for metric in Metric::ALL {
            out.push_str(&format!(",{side}{}", metric.wire()));
        }
    }
    out.push('\n');
    let text = |side: usize, i: Option<usize>| {
        i.and_then(|i| answer.sides.get(side)?.tokens.get(i)).map(|t| quote(t)).unwrap_or_default()
    };
    let place = |i: Option<usize>| i.map(|i| i.to_string()).unwrap_or_default();
    for line in lines {
        let Line::Node { row, .. } = line else { continue };
        let row = &answer.rows[*row];
        let layer = row.node.layer_index.map(|l| l.to_string()).unwrap_or_default();
        let unit = crate::names::unit(&row.node);
        out.push_str(&format!("{},{},{layer},{unit}", row.name, row.node.node_type));
        for side in 0..places.len() {
            for at in [row.to[side], row.from[side]] {
                out.push_str(&format!(",{},{}", place(at), text(side, at)));
            }
        }
        for values in row.values.iter().take(sides.len()) {
            for metric in Metric::ALL {
                out.push(',');
                out.push_str(&values.map(|values| format::full(values[metric as usize])).unwrap_or_default());
            }
        }
        out.push('\n');
    }
    out
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A question, its answer, and the address that asks it again.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stamp: Option<String>,
    url: &'a str,
    request: &'a BatchedTdbRequest,
    response: &'a BatchedResponse,
    /// What only a stream tells, for each side.
    candidates: &'a [Option<Candidates>],
    /// What was checked of it.
    checks: &'a [Check],
}

impl<'a> Whole<'a> {
    fn of(answer: &'a Answer, checks: &'a [Check], url: &'a str) -> Self {
        let folded = &answer.folded;
        let (request, response, candidates) = (&*answer.request, &folded.response, folded.candidates.as_slice());
        Self { stamp: None, url, request, response, candidates, checks }
    }
}

/// Request and answer, for the JSON view.
pub fn whole(answer: &Answer, checks: &[Check], link: &str) -> Json {
    Json::of(&Whole::of(answer, checks, link))
}

/// Request, answer, and what is needed to get it again.
pub fn json(session: Session, checks: &[Check], link: &str) -> String {
    let answer = session.answer.get_untracked();
    let whole = Whole { stamp: Some(stamp(session, checks, link)), ..Whole::of(&answer, checks, link) };
    Json::of(&whole).pretty()
}

fn stamp(session: Session, checks: &[Check], link: &str) -> String {
    let (model, version) = session.facts_stamp();
    let checked = verdict(checks).unwrap_or_else(|| "no checks".to_owned());
    format!("model {model}, {version}, {checked}, {}, {link}", dom::timestamp())
}

/// The outcome of the checks as the end of a link: a browser takes no notice of it, a reader does.
pub fn as_fragment(checks: &[Check]) -> String {
    verdict(checks).map(|words| format!("#{}", words.replace(' ', "-"))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_do_not_end_a_command() {
        let command = curl("http://h", r#"{"prompt":"it's"}"#);
        assert!(command.contains(r#"{"prompt":"it'\''s"}"#), "{command}");
        assert!(python("http://h", "{\"a\":\"\\n\"}").contains(r#"json.loads("{\"a\":\"\\n\"}")"#));
    }

    #[test]
    fn a_table_keeps_every_digit() {
        let side = r#"{
            "inferenceResponse": {"inferenceAndTokenData":
                {"inferenceTime": 0, "tokensAsInts": [1, 2], "tokensAsStrings": ["a", " \"b\""]}},
            "processingResponseDataByName": {"topKComponents": {
                "responseDataType": "multiple_top_k_derived_scalars_response_data",
                "nodeIndices": [{
                    "nodeType": "mlp_neuron", "tensorIndices": [1, 7], "layerIndex": 3, "passType": "forward"
                }],
                "activationsByGroupId": {
                    "activation": [0.10000000149011612], "write_norm": [2], "direction_write": [-0.5],
                    "act_times_grad": [0]
                },
                "intermediateSumActivationsByDstByGroupId": {}
            }}
        }"#;
        let answer = crate::answer::tests::answer(&[side.to_owned()]).unwrap();
        let text = table(&answer, &[Line::Node { row: 0, in_group: false }], "stamp");
        assert!(text.ends_with("mlp_L3_7,mlp_neuron,3,7,,,1,\" \"\"b\"\"\",0.10000000149011612,2,-0.5,0\n"), "{text}");
    }
}
