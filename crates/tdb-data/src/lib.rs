//! Records and explanations of nodes, and the files of models and autoencoders, wherever they live.
//!
//! ```text
//! registry   what there is and where        (one data file, built in and extended by the user)
//! location   https, az, s3, gs, file, hf    (never from a request)
//! fetch      stores -> partial -> cache     (resumed, verified, atomic; offline mode; mirrors)
//! remote     a file of a store that is read there   folder   a folder of a store that is written to
//! record     what a node responds to        explanation   what people and models say about it
//! histogram  how often which values occurred
//! library    the read routes' answers: parsed, kept in memory, first set that has the node wins
//! ```

pub mod attention;
mod cache;
pub mod collated;
mod connector;
mod dictionary_files;
mod error;
mod explanation;
mod fetch;
mod folder;
mod histogram;
pub mod hub;
mod json;
mod library;
mod local;
mod location;
mod memory;
mod model_files;
mod normalize;
mod pace;
mod partial;
mod progress;
mod random;
mod record;
mod registry;
mod remote;
mod search;
mod stores;
mod sweep;

pub use cache::{Cache, Cleared, Entry, Meta, Verified, write_atomically};
pub use dictionary_files::{fetch_dictionary, hub_dictionary};
pub use error::{Error, Result, START_AGAIN, io_reason};
pub use explanation::{
    ActivationScale, AttentionSimulation, Detection, MAX_EXPLANATION_BYTES, NodeExplanations, Origin,
    ScoredAttentionSimulation, ScoredExplanation, ScoredSequenceSimulation, ScoredSimulation, SequenceSimulation,
};
pub use fetch::{FetchConfig, Fetcher, parse_size, platform_folder};
pub use folder::{Folder, Put};
pub use histogram::Histogram;
pub use library::{Counts, FoundRecord, Library};
pub use location::{Location, Mirror, Root};
pub use model_files::{autoencoder_files, fetch_model, fetch_tokenizer, hub_model};
pub use pace::Pace;
pub use partial::Unfinished;
pub use progress::Progress;
pub use record::{ActivationRecord, MAX_RECORD_BYTES, Moments, NodeRecord};
pub use registry::{
    AutoencoderEntry, ExplanationsEntry, MirrorEntry, ModelEntry, ModelLayout, Per, RecordsEntry, RecordsLayout,
    Registry, StoreEntry,
};
pub use remote::RemoteFile;
