//! What tests of the other crates stand on: weights that any program can compute bit for bit ([`weights`], [`presets`]),
//! checkpoint folders holding them ([`checkpoint`], in the file format of [`torch`]), small checkpoints of every family
//! ([`families`]), two models of one name ([`namesakes`]), the rules by which an answer of
//! ours is compared with a recorded one ([`golden`]), a server to ask ([`server`], [`http`]), what processes use
//! ([`process`]), and, with the feature
//! `stores`, object stores (`stores`).
//!
//! Nothing here knows the code under test, so that a mistake cannot be made on both sides at once.

pub mod checkpoint;
pub mod families;
pub mod golden;
pub mod http;
pub mod namesakes;
pub mod oracle;
pub mod presets;
pub mod process;
pub mod server;
#[cfg(feature = "stores")]
pub mod stores;
pub mod torch;
pub mod weights;
