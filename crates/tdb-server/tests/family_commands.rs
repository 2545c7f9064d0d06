//! `tdb train-sae` and `tdb collate` with models of other families than GPT-2.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::fs;
use std::path::Path;
use std::process::Command;

use tdb_testkit::families::Copied;

fn tdb(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdb"));
    command.args(args).current_dir(folder).env("TDB_CACHE", folder.join("cache")).env_remove("TDB_REGISTRY");
    let output = command.output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

#[test]
fn dictionaries_are_trained_and_collated_whatever_the_family() {
    for (model, site, flag) in [
        ("llama-3-scaling", "mlp-post-act", "--mlp-autoencoder"),
        ("gpt-neox-parallel", "resid-delta-attn", "--attn-autoencoder"),
        ("gemma-3", "resid-delta-mlp", "--mlp-autoencoder"),
        ("gemma-2", "resid-delta-attn", "--attn-autoencoder"),
    ] {
        let copied = Copied::new(model).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let sentence = |i: usize| {
            let (a, b) = (["Mary", "John", "Anna", "Tom"][i % 4], ["John", "Tom", "Mary", "Anna"][i / 4 % 4]);
            format!("When {a} and {b} went to the store, {b} gave a book to {a}.")
        };
        let text: Vec<String> = (0..40).map(sentence).collect();
        fs::write(folder.path().join("text.txt"), text.join("\n\n")).unwrap();
        let path = copied.path.to_str().unwrap();
        let train = ["train-sae", "text.txt", "--model", path, "--site", site, "--out", "sae", "--latents", "12"];
        let sizes = ["--k", "3", "--tokens", "400", "--batch", "40", "--buffer", "80", "--context", "12"];
        let said = tdb(folder.path(), &[&train[..], &sizes].concat());
        assert!(said.contains("sae holds the autoencoders"), "{model}: {said}");

        // The models see fewer tokens than an example usually has.
        let collate = ["collate", "text.txt", "--model", path, flag, "sae", "--out", "out"];
        let said = tdb(folder.path(), &[&collate[..], &["--k", "3", "--random", "2", "--shards", "2"]].concat());
        assert!(said.contains("out holds what was collated"), "{model}: {said}");
        let registry = fs::read_to_string(folder.path().join("out/registry.toml")).unwrap();
        for scalar in ["mlp_post_act", "attn_write_norm", "autoencoder_latent"] {
            assert!(registry.contains(scalar), "{model}: {registry}");
        }
    }
}
