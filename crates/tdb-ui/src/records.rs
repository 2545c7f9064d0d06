//! The stored record of a component: which one it is, and its examples.

use tdb_api::page::NodePage;
use tdb_api::{AttentionHeadRecordResponse, NeuronRecordResponse, NodeIdAndDatasets, routes};

use crate::remote::Question;

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

/// Asks for a component's examples; of some the values belong to pairs of tokens.
pub fn question(node: &NodeIdAndDatasets, by_token_pair: bool) -> Question<Record> {
    match by_token_pair {
        true => Question::of::<routes::AttentionHeadRecord>(node, Record::Pairs),
        false => Question::of::<routes::NeuronRecord>(node, Record::Tokens),
    }
}
