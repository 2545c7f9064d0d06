//! What the interface has for looking at an accelerator's memory.

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use axum::Json;
use axum::extract::State;

pub fn add(api: &mut Api) {
    api.get("/dump_memory_snapshot", "memory", "dump_memory_snapshot", dump_memory_snapshot)
        .says("Refused: this server computes in the machine's own memory.")
        .gives::<String>();
}

async fn dump_memory_snapshot(State(app): State<App>) -> Result<Json<String>, ApiError> {
    Err(ApiError::Bad(match app.config().memory_debugging {
        false => "The cuda_memory_debugging flag must be set to dump a memory snapshot".into(),
        true => "there is no CUDA memory to dump: this server computes in the machine's own memory".into(),
    }))
}
