//! Models in many files, from a web server and from a Hugging Face repository.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::common;
use crate::common::{Fault, Server, content};
use tdb_data::{Error, Fetcher, Location, ModelLayout, Progress, Registry, autoencoder_files, fetch_model};

const PIECES: usize = 5 + 2 * 16;

fn registry(server: &Server) -> Registry {
    let text = format!(
        "[[model]]\nname = 'small'\ntitle = ''\nlocation = '{0}/m'\nlayout = 'pieces'\nalternative = 'hf:owner/small@v2'\n\
         [[model]]\nname = 'hf'\ntitle = ''\nlocation = 'hf:owner/large'\nlayout = 'hugging-face'\n\
         [[autoencoder]]\nname = 'sae'\ntitle = ''\nmodel = 'hf'\nsite = 'resid_delta_mlp'\nn_layers = 2\n\
         location = 'hf:owner/saes/blocks.{{layer}}.hook'\nfiles = ['cfg.json', 'sae_weights.safetensors']\n",
        server.url
    );
    Registry::parse("test", &text).unwrap()
}

fn fetcher(server: &Server, folder: &std::path::Path, offline: bool) -> Fetcher {
    let mut config = common::config(folder);
    config.hugging_face.clone_from(&server.url);
    config.offline = offline;
    Fetcher::new(config, &registry(server))
}

fn put_pieces(server: &Server) {
    server.put("m/config.json", b"{\"n_layers\": 2, \"d_model\": 8}".to_vec());
    for name in ["tok_embed.weight", "pos_embed.weight", "final_ln.weight", "final_ln.bias", "unembed.weight"] {
        server.put(&format!("m/model_pieces/{name}.pt"), content(5000, 1));
    }
    let parts =
        ["ln_1", "ln_2", "attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj", "mlp.in_layer", "mlp.out_layer"];
    for (layer, part) in (0..2).flat_map(|l| parts.map(|p| (l, p))) {
        for kind in ["weight", "bias"] {
            server.put(&format!("m/model_pieces/xf_layers.{layer}.{part}.{kind}.pt"), content(3000, layer + 2));
        }
    }
}

/// Counts what it is told.
#[derive(Default)]
struct Heard(std::sync::Mutex<(usize, usize, u64, Vec<String>)>);

impl Progress for Heard {
    fn expect(&self, files: usize) {
        self.0.lock().unwrap().0 += files;
    }
    fn finished(&self, _: &str, _: bool) {
        self.0.lock().unwrap().1 += 1;
    }
    fn advanced(&self, _: &str, bytes: u64) {
        self.0.lock().unwrap().2 += bytes;
    }
    fn note(&self, name: &str, text: &str) {
        self.0.lock().unwrap().3.push(format!("{name}: {text}"));
    }
}

#[tokio::test]
async fn a_model_in_pieces_becomes_a_folder_that_is_there_offline() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    put_pieces(&server);
    server.fail("m/model_pieces/unembed.weight.pt", [Fault::BreakAfter(1000), Fault::Status(503)]);
    let (registry, heard) = (registry(&server), Heard::default());
    let model = registry.model("small").unwrap();
    let (place, layout) = fetch_model(&fetcher(&server, folder.path(), false), model, &heard).await.unwrap();
    assert_eq!(layout, ModelLayout::Pieces);
    assert_eq!(std::fs::read_dir(place.join("model_pieces")).unwrap().count(), PIECES);
    assert!(place.join("config.json").is_file());
    let told = heard.0.into_inner().unwrap();
    assert_eq!((told.0, told.1, told.2), (PIECES, PIECES, 5 * 5000 + 32 * 3000));
    assert!(told.3.iter().any(|n| n.contains("unembed") && n.contains("trying again")), "{:?}", told.3);

    let before = server.requests().len();
    let offline = fetcher(&server, folder.path(), true);
    assert_eq!(fetch_model(&offline, model, &()).await.unwrap().0, place);
    assert_eq!(server.requests().len(), before);
    // A piece that is gone is the one thing that is missing, and is named.
    offline.cache().drop_entry(&server.location("m/model_pieces/unembed.weight.pt"));
    let error = fetch_model(&offline, model, &()).await.unwrap_err();
    assert!(matches!(&error, Error::Offline { location } if location.ends_with("unembed.weight.pt")), "{error}");
}

#[tokio::test]
async fn another_place_is_tried_and_the_first_is_what_an_error_names() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = registry(&server);
    let (model, fetcher) = (registry.model("small").unwrap(), fetcher(&server, folder.path(), false));
    let error = fetch_model(&fetcher, model, &()).await.unwrap_err();
    assert!(matches!(&error, Error::NotFound(text) if text.contains("/m/config.json")), "{error}");
    for (name, size) in [("config.json", 20), ("model.safetensors", 50_000), ("tokenizer.json", 300)] {
        server.put(&format!("owner/small/resolve/v2/{name}"), content(size, 3));
    }
    let (place, layout) = fetch_model(&fetcher, model, &()).await.unwrap();
    assert_eq!(layout, ModelLayout::HuggingFace);
    assert_eq!(std::fs::read(place.join("model.safetensors")).unwrap(), content(50_000, 3));
    assert!(place.join("tokenizer.json").is_file() && !place.join("vocab.json").exists());
}

#[tokio::test]
async fn shards_are_found_by_their_index_which_cannot_lead_elsewhere() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = registry(&server);
    let (model, fetcher) = (registry.model("hf").unwrap(), fetcher(&server, folder.path(), false));
    let base = "owner/large/resolve/main";
    server.put(&format!("{base}/config.json"), b"{}".to_vec());
    let index = |a: &str| format!("{{\"weight_map\": {{\"x\": \"{a}\", \"y\": \"2.safetensors\", \"z\": \"{a}\"}}}}");
    server.put(&format!("{base}/model.safetensors.index.json"), index("../../../secret"));
    let error = fetch_model(&fetcher, model, &()).await.unwrap_err();
    assert!(matches!(&error, Error::Damaged { file, .. } if file.ends_with("index.json")), "{error}");
    server.put(&format!("{base}/model.safetensors.index.json"), index("1.safetensors"));
    fetcher.cache().clear(None);
    for name in ["1.safetensors", "2.safetensors"] {
        server.put(&format!("{base}/{name}"), content(1000, 4));
    }
    let (place, _) = fetch_model(&fetcher, model, &()).await.unwrap();
    assert!(place.join("1.safetensors").is_file() && place.join("2.safetensors").is_file());
}

#[tokio::test]
async fn a_complete_cache_asks_nobody_and_need_not_be_written_to() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = registry(&server);
    let (model, base) = (registry.model("hf").unwrap(), "owner/large/resolve/main");
    for (name, size) in [("config.json", 20), ("model.safetensors", 5000), ("tokenizer.json", 300)] {
        server.put(&format!("{base}/{name}"), content(size, 6));
    }
    let (place, _) = fetch_model(&fetcher(&server, folder.path(), false), model, &()).await.unwrap();
    let asked = server.requests().len();
    // Where files on their way would go there is no folder and none can be made, as on a read-only disk.
    let partial = fetcher(&server, folder.path(), false).cache().root().join("partial");
    std::fs::remove_dir_all(&partial).unwrap();
    std::fs::write(&partial, "").unwrap();
    assert_eq!(fetch_model(&fetcher(&server, folder.path(), false), model, &()).await.unwrap().0, place);
    assert_eq!(server.requests().len(), asked);
    // Nor does it matter if it was never noted that optional files are not there.
    fetcher(&server, folder.path(), false).cache().clear(Some("hf:owner/large/merges.txt"));
    let notes = |folder: &std::path::Path| -> usize {
        let mut folders = vec![folder.to_owned()];
        let mut found = 0;
        while let Some(next) = folders.pop() {
            for item in std::fs::read_dir(next).unwrap().map(Result::unwrap) {
                match item.file_type().unwrap().is_dir() {
                    true => folders.push(item.path()),
                    false if item.path().extension().is_some_and(|e| e == "absent") => {
                        found += 1;
                        std::fs::remove_file(item.path()).unwrap();
                    }
                    false => {}
                }
            }
        }
        found
    };
    assert!(notes(&fetcher(&server, folder.path(), false).cache().root().join("meta")) >= 2);
    assert_eq!(fetch_model(&fetcher(&server, folder.path(), false), model, &()).await.unwrap().0, place);
    // What is needed and not there is named, with the reason.
    fetcher(&server, folder.path(), false).cache().clear(None);
    std::fs::create_dir_all(folder.path()).unwrap();
    std::fs::write(&partial, "").unwrap();
    let error = fetch_model(&fetcher(&server, folder.path(), false), model, &()).await.unwrap_err();
    assert!(matches!(&error, Error::Unwritable { location, .. } if location.ends_with("config.json")), "{error}");
}

#[tokio::test]
async fn an_autoencoder_has_its_files_for_each_layer() {
    let (server, folder) = (Server::start().await, tempfile::tempdir().unwrap());
    let registry = registry(&server);
    let files = autoencoder_files(registry.autoencoder("hf", "sae").unwrap()).unwrap();
    for (layer, name) in
        [(0, "cfg.json"), (0, "sae_weights.safetensors"), (1, "cfg.json"), (1, "sae_weights.safetensors")]
    {
        server.put(&format!("owner/saes/resolve/main/blocks.{layer}.hook/{name}"), content(100, 5));
    }
    let here = fetcher(&server, folder.path(), false).files(&files, &()).await.unwrap();
    assert_eq!(here.len(), 4);
    assert!(here[3].ends_with("blocks.1.hook/sae_weights.safetensors"), "{here:?}");
    // A folder on this machine is read in place.
    let local = Location::parse(&folder.path().display().to_string()).unwrap();
    std::fs::write(folder.path().join("x"), b"y").unwrap();
    let path = fetcher(&server, folder.path(), true).file(&local.join("x").unwrap(), &()).await.unwrap();
    assert_eq!(path, folder.path().join("x"));
}
