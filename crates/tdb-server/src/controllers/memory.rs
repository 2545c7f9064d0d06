//! What the interface has for looking at an accelerator's memory.

use crate::app::App;
use crate::error::ApiError;
use crate::openapi::Api;
use tdb_api::routes;

pub fn add(api: &mut Api) {
    api.route(routes::DumpMemorySnapshot, dump_memory_snapshot);
}

async fn dump_memory_snapshot(app: App, (): ()) -> Result<String, ApiError> {
    Err(ApiError::Bad(match app.config().memory_debugging {
        false => "The cuda_memory_debugging flag must be set to dump a memory snapshot".into(),
        true => "there is no CUDA memory to dump: this server computes in the machine's own memory".into(),
    }))
}
