//! The maxima of stored records, for computations that run on compute threads.

use std::time::Duration;
use tdb_api::NodeIdAndDatasets;
use tdb_data::{Library, attention};
use tdb_scalars::{Error, Observer, RecordMaximum, Records};
use tokio::runtime::Handle;

/// How often it is looked whether anybody still waits for a record.
const LOOK: Duration = Duration::from_millis(50);

/// Asks the library of records from a thread that is not one of the runtime's.
#[derive(Debug)]
pub struct StoredRecords {
    pub library: Library,
    pub runtime: Handle,
}

impl Records for StoredRecords {
    fn maximum(&self, node: &NodeIdAndDatasets, observer: &dyn Observer) -> Result<RecordMaximum, Error> {
        let waited_for = async {
            while !observer.is_cancelled() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let found = self.runtime.block_on(async {
            tokio::select! {
                found = self.library.record(node) => found.map_err(unavailable),
                () = waited_for => Err(Error::Cancelled),
            }
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

fn unavailable(error: tdb_data::Error) -> Error {
    use tdb_data::Error as Data;
    match error {
        Data::NotFound(what) => Error::NotFound(what),
        Data::Bad(what) => Error::Bad(what),
        fault @ (Data::Io { .. } | Data::Config(_)) => Error::Internal(fault.to_string()),
        other => Error::Elsewhere(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Instant;
    use tdb_data::{FetchConfig, Fetcher, Registry};
    use tdb_scalars::Observer;

    /// Waits for a tenth of a second.
    struct Brief(Instant);

    impl Observer for Brief {
        fn is_cancelled(&self) -> bool {
            self.0.elapsed() > Duration::from_millis(100)
        }
    }

    #[test]
    fn a_store_is_waited_for_as_long_as_the_request_may_take() {
        let folder = tempfile::tempdir().unwrap();
        // Takes connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        std::fs::create_dir_all(folder.path().join("damaged/0")).unwrap();
        std::fs::write(folder.path().join("damaged/0/1.json"), "{").unwrap();
        let set = |name: &str, location: String| {
            format!("[[records]]\nname='{name}'\nscalar='mlp_post_act'\ntitle=''\nper='token'\nlocation='{location}'\n")
        };
        let damaged = folder.path().join("damaged").display().to_string();
        let at = format!("http://{}/records", silent.local_addr().unwrap());
        let registry = Registry::parse("test", &(set("silent", at) + &set("damaged", damaged))).unwrap();
        let mut config = FetchConfig::from_env().unwrap();
        config.cache = folder.path().join("cache");
        let library = Library::new(registry.clone(), Fetcher::new(config, &registry), folder.path().join("own"));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let records = StoredRecords { library, runtime: runtime.handle().clone() };
        let maximum = |set: &str| {
            let node = serde_json::json!(
                {"dst": "mlp_post_act", "layerIndex": 0, "activationIndex": 1, "datasets": [set]}
            );
            records.maximum(&serde_json::from_value(node).unwrap(), &Brief(Instant::now()))
        };
        assert!(matches!(maximum("silent"), Err(Error::Cancelled)));
        let damaged = maximum("damaged").unwrap_err();
        assert!(matches!(&damaged, Error::Elsewhere(what) if what.contains("1.json")), "{damaged:?}");
    }
}
