//! Stored records of nodes.

use crate::app::App;
use crate::body::Body;
use crate::error::ApiError;
use crate::openapi::Api;
use axum::Json;
use axum::extract::State;
use tdb_api::{AttentionHeadRecordResponse, NeuronDatasetMetadata, NeuronRecordResponse, NodeIdAndDatasets};

pub fn add(api: &mut Api) {
    api.post("/neuron_record", "read", "neuron_record", neuron_record)
        .says("The examples that excite a component most, with a value for each token.")
        .takes::<NodeIdAndDatasets>()
        .gives::<NeuronRecordResponse>();
    api.post("/attention_head_record", "read", "attention_head_record", attention_head_record)
        .says("The examples that excite a component most, with a value for each pair of tokens.")
        .takes::<NodeIdAndDatasets>()
        .gives::<AttentionHeadRecordResponse>();
    api.post("/neuron_datasets_metadata", "read", "neuron_datasets_metadata", neuron_datasets_metadata)
        .says("The registered sets of records.")
        .gives::<Vec<NeuronDatasetMetadata>>();
}

async fn neuron_record(
    State(app): State<App>,
    Body(request): Body<NodeIdAndDatasets>,
) -> Result<Json<NeuronRecordResponse>, ApiError> {
    Ok(Json(app.library()?.neuron_record(&request).await?))
}

async fn attention_head_record(
    State(app): State<App>,
    Body(request): Body<NodeIdAndDatasets>,
) -> Result<Json<AttentionHeadRecordResponse>, ApiError> {
    Ok(Json(app.library()?.attention_head_record(&request).await?))
}

async fn neuron_datasets_metadata(State(app): State<App>) -> Result<Json<Vec<NeuronDatasetMetadata>>, ApiError> {
    Ok(Json(app.library()?.datasets_metadata()))
}
