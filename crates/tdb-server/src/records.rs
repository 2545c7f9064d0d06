//! The maxima of stored records, for computations that run on compute threads.

use tdb_api::NodeIdAndDatasets;
use tdb_data::{Library, attention};
use tdb_scalars::{Error, RecordMaximum, Records};
use tokio::runtime::Handle;

/// Asks the library of records from a thread that is not one of the runtime's.
#[derive(Debug)]
pub struct StoredRecords {
    pub library: Library,
    pub runtime: Handle,
}

impl Records for StoredRecords {
    fn maximum(&self, node: &NodeIdAndDatasets) -> Result<RecordMaximum, Error> {
        let found = self.runtime.block_on(self.library.record(node)).map_err(|error| match error {
            tdb_data::Error::NotFound(what) => Error::NotFound(what),
            tdb_data::Error::Bad(what) => Error::Bad(what),
            other => Error::NotFound(other.to_string()),
        })?;
        // What has no value per pair of tokens has no such rows, and nobody asks it for them.
        let sequences = found.record.most_positive.iter().filter_map(|example| {
            let rows = attention::rows(example.tokens.len(), &example.activations)?;
            Some(rows.into_iter().map(|row| row.iter().copied().map(f64::from).collect()).collect())
        });
        Ok(RecordMaximum {
            activation: f64::from(found.record.max_activation()),
            mean: found.record.moments.mean,
            attention_sequences: sequences.collect(),
        })
    }
}
