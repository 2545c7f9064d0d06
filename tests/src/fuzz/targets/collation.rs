//! Texts to collate, and what a collation leaves for the next.

use std::sync::LazyLock;

use crc_fast::{CrcAlgorithm, checksum};
use tdb_collate::corpus::{Cutting, Sequences, Shard};
use tdb_collate::{Summary, UnitName};
use tdb_model::Tokenizer;

use super::in_folder;

/// A file of text, of whatever kind.
pub fn corpus(input: &[u8]) {
    static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::gpt2);
    in_folder(&[("corpus", input)], |folder| {
        let files = [folder.join("corpus")];
        let cutting = Cutting { tokens: 16, first: Some(50256) };
        let Ok(sequences) = Sequences::new(&files, GPT2.clone(), 50257, cutting, Shard::WHOLE) else { return };
        for sequence in sequences.take(1000).flatten() {
            assert!(sequence.tokens.len() <= 16);
        }
    });
}

/// A summary of a collation, and the same with the checksum that belongs to it: without that nothing of it is read.
pub fn summary(input: &[u8]) {
    let _ = std::str::from_utf8(input).map(UnitName::parse);
    read_summary(input);
    if let Some((content, _)) = input.split_last_chunk::<8>() {
        let mut whole = content.to_vec();
        whole.extend(checksum(CrcAlgorithm::Crc64Nvme, content).to_le_bytes());
        read_summary(&whole);
    }
}

fn read_summary(content: &[u8]) {
    in_folder(&[("a.summary", content)], |folder| {
        let path = folder.join("a.summary");
        let _ = Summary::read_head(&path);
        if let Ok(summary) = Summary::read(&path) {
            // What was read can be written, and is the same.
            let bytes = summary.to_bytes();
            assert!(bytes.is_ok_and(|bytes| !bytes.is_empty()));
        }
    });
}
