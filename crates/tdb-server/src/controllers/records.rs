//! Stored records of nodes.

use super::within;
use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use tdb_api::{
    AttentionHeadRecordResponse, NeuronDatasetMetadata, NeuronRecordResponse, NodeIdAndDatasets, RecordSummaryResponse,
    routes,
};

pub fn add(api: &mut Api) {
    api.route(routes::NeuronRecord, neuron_record);
    api.route(routes::AttentionHeadRecord, attention_head_record);
    api.route(routes::RecordSummary, record_summary);
    api.route(routes::NeuronDatasetsMetadata, neuron_datasets_metadata);
}

async fn neuron_record(app: App, request: NodeIdAndDatasets) -> Result<NeuronRecordResponse, ApiError> {
    Ok(within(app.config().limits.time, app.library()?.neuron_record(&request)).await??)
}

async fn attention_head_record(app: App, request: NodeIdAndDatasets) -> Result<AttentionHeadRecordResponse, ApiError> {
    Ok(within(app.config().limits.time, app.library()?.attention_head_record(&request)).await??)
}

async fn record_summary(app: App, request: NodeIdAndDatasets) -> Result<RecordSummaryResponse, ApiError> {
    Ok(within(app.config().limits.time, app.library()?.record_summary(&request)).await??)
}

async fn neuron_datasets_metadata(app: App, (): ()) -> Result<Vec<NeuronDatasetMetadata>, ApiError> {
    Ok(app.library()?.datasets_metadata())
}
