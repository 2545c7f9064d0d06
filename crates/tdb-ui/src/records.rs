//! The stored record of a component: which one it is, and its examples.

use tdb_api::page::NodePage;
use tdb_api::{AttentionHeadRecordResponse, NeuronRecordResponse, NodeIdAndDatasets, routes};
use web_sys::AbortSignal;

use crate::client::{self, Problem};

/// The component of a page as the routes about stored data name it; `None` if no data set is about its type.
pub fn stored_node(page: &NodePage) -> Option<NodeIdAndDatasets> {
    Some(in_dataset(page, page.dataset_name()?))
}

/// The component of a page in a data set.
pub fn in_dataset(page: &NodePage, dataset: String) -> NodeIdAndDatasets {
    NodeIdAndDatasets {
        dst: page.kind.stored,
        layer_index: page.layer_index,
        activation_index: page.node_index,
        datasets: vec![dataset],
    }
}

/// Asks for a component's examples.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRequest {
    pub node: NodeIdAndDatasets,
    /// Whether its values belong to pairs of tokens.
    pub by_token_pair: bool,
}

/// The examples of a component.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Record {
    Tokens(NeuronRecordResponse),
    Pairs(AttentionHeadRecordResponse),
}

impl Record {
    /// The largest value of any example.
    pub fn max(&self) -> f64 {
        match self {
            Self::Tokens(record) => record.max_activation,
            Self::Pairs(record) => record.max_attention_activation,
        }
    }
}

pub async fn fetch(request: RecordRequest, signal: Option<AbortSignal>) -> Result<Record, Problem> {
    match request.by_token_pair {
        true => client::call::<routes::AttentionHeadRecord>(&request.node, signal).await.map(Record::Pairs),
        false => client::call::<routes::NeuronRecord>(&request.node, signal).await.map(Record::Tokens),
    }
}
