//! Dictionaries of one layer in a browser: on the residual stream with its cut, as a transcoder, on the MLP's output.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support::*;
use serde_json::Value;
use tdb_model::{
    AutoencoderSite, AutoencoderWeights, LatentActivation, Matrix, NamedAutoencoder, Normalization, checkpoint,
};
use tdb_testkit::server::Server;
use tdb_testkit::weights::TensorSpec;
use tdb_tests::browser::Browser;
use tdb_tests::serving;
use tempfile::TempDir;

const LAYER: usize = 2;
const LATENTS: usize = 192;

/// A dictionary of one layer of the embedded model, which reconstructs a part of what is there.
fn folder(site: AutoencoderSite) -> TempDir {
    let model = serving::root().join("datasets/embedded");
    let width = checkpoint::open(&model).unwrap().config.d_model;
    let numbers = |name: &str, shape: &[usize], scale: f64| TensorSpec::new(name, shape, scale, 0.0).values(7);
    let encoder = numbers("encoder", &[LATENTS, width], 0.3);
    let decoder: Vec<f32> = encoder.iter().map(|x| x * 0.2).collect();
    let layer = AutoencoderWeights {
        normalization: Normalization::None,
        encoder_pre_bias: vec![0.0; width],
        encoder: Matrix::from_vec(LATENTS, width, encoder),
        latent_bias: numbers("bias", &[LATENTS], 0.1),
        activation: LatentActivation::Relu,
        decoder: Matrix::from_vec(LATENTS, width, decoder).transpose(),
        decoder_bias: vec![0.0; width],
        skip: site.is_transcoder().then(|| Matrix::from_vec(width, width, numbers("skip", &[width, width], 0.05))),
        activation_frequency: None,
    };
    let dictionary = NamedAutoencoder { name: "tiny".into(), site, layers: vec![layer], indices: vec![LAYER] };
    let folder = tempfile::tempdir().unwrap();
    checkpoint::sae_lens::save_autoencoder(folder.path(), &dictionary, "embedded").unwrap();
    folder
}

/// A server with the embedded model and this dictionary, and a browser that has asked about Mary and John.
async fn asked(option: &str, folder: &TempDir) -> (Server, Browser) {
    let model = serving::root().join("datasets/embedded");
    let arguments = ["--model", model.to_str().unwrap(), option, folder.path().to_str().unwrap()];
    let server = serving::serve(&arguments).unwrap();
    let browser = Browser::start().await.unwrap();
    browser.resize(1440, 900).await.unwrap();
    open_debugger(&server, &browser).await;
    listen(&browser).await;
    write_ioi(&browser).await;
    submit(&browser).await;
    (server, browser)
}

/// Presses a control and waits for the answer that follows.
async fn turn(browser: &Browser, css: &str) {
    let before = browser.ask("return window.asked.length;").await.unwrap();
    click(browser, css).await;
    browser.until(&format!("window.asked.length > {before}")).await.unwrap();
    answered(browser).await;
}

/// Every cell is the answer's, and the bars add up to the headline.
async fn checked(server: &Server, browser: &Browser) -> Value {
    let answer = answer(server, browser).await;
    assert!(compare(&cells(browser).await, &answer) > 20);
    let sums = "[...document.querySelectorAll('.waterfall')].map(w =>
        [...w.querySelectorAll('.column')].map(c => Number(c.dataset.value)))";
    for bars in browser.ask(&format!("return {sums};")).await.unwrap().as_array().unwrap() {
        let mut bars: Vec<f64> = bars.as_array().unwrap().iter().map(|b| b.as_f64().unwrap()).collect();
        let whole = bars.pop().unwrap();
        assert!((bars.iter().sum::<f64>() - whole).abs() < 1e-3, "{bars:?} {whole}");
    }
    answer
}

/// Names of the table's nodes that begin so, also those out of sight.
async fn named(browser: &Browser, prefix: &str) -> usize {
    write(browser, "#filter", prefix).await;
    let all = format!(
        "location.search.includes({prefix:?})
            && [...document.querySelectorAll('.line .node-name')].every(n => n.innerText.startsWith({prefix:?}))"
    );
    browser.until(&all).await.unwrap();
    let found = count(browser, ".line").await as usize;
    write(browser, "#filter", "").await;
    browser.until("!location.search.includes('filter=')").await.unwrap();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_residual_dictionary_of_one_layer_is_cut_there() {
    let folder = folder(AutoencoderSite::ResidPostMlp);
    let (server, browser) = asked("--dictionary", &folder).await;
    let layers = "return [...document.querySelectorAll('#residual-cut option')].map(o => o.value);";
    assert_eq!(browser.ask(layers).await.unwrap(), serde_json::json!(["", LAYER.to_string()]));
    choose(&browser, "#residual-cut", &LAYER.to_string()).await;
    browser.until("location.search.includes('residualCutLayer')").await.unwrap();
    submit(&browser).await;
    let answer = checked(&server, &browser).await;
    let text = answer.to_string();
    assert!(text.contains("residual_autoencoder_latent") && text.contains("residual_autoencoder_error"));
    browser.read("add up for one layer only").await.unwrap();
    assert!(named(&browser, &format!("resid_ae_L{LAYER}_")).await > 3);
    assert!(named(&browser, &format!("resid_error_L{LAYER}")).await > 3);
    // What wrote before the cut is in the dictionary's latents and error.
    for layer in 0..=LAYER {
        assert_eq!(named(&browser, &format!("mlp_L{layer}_")).await, 0);
    }
    assert!(named(&browser, &format!("mlp_L{}_", LAYER + 1)).await > 3);
    accessible(&browser, "cut").await;
    // The largest nodes are a circuit: it begins at the cut.
    browser.ask("[...document.querySelectorAll('button')].find(b => b.innerText === 'Circuit').click()").await.unwrap();
    click(&browser, "#pin-largest").await;
    browser.see("#circuit-view .circuit-figures").await.unwrap();
    browser
        .until(&format!("document.querySelector('#pinned').innerText.includes('resid_ae_L{LAYER}_')"))
        .await
        .unwrap();
    let edges = "[...document.querySelectorAll('#circuit-view tbody td:first-child')].map(e => e.innerText)";
    browser.until(&format!("{edges}.some(name => name.startsWith('resid_'))")).await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcoders_latent_is_ablated_and_traced() {
    let folder = folder(AutoencoderSite::MlpTranscoder);
    let (server, browser) = asked("--dictionary", &folder).await;
    turn(&browser, "#mlp-autoencoders").await;
    let answer = checked(&server, &browser).await.to_string();
    assert!(answer.contains("mlp_transcoder_skip") && answer.contains("mlp_autoencoder_error"));
    let latent = format!("mlp_ae_L{LAYER}_");
    let row = format!("[...document.querySelectorAll('.line')].find(l => l.innerText.includes({latent:?}))");
    write(&browser, "#filter", &latent).await;
    browser.until(&format!("{row} && document.querySelectorAll('.line').length > 2")).await.unwrap();
    let name = browser.ask(&format!("return {row}.querySelector('.node-name').innerText;")).await.unwrap();
    let name = name.as_str().unwrap().to_owned();
    browser.ask(&format!("{row}.querySelector('[title^=Ablate]').click()")).await.unwrap();
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    browser.read("baseline").await.unwrap();
    assert!(browser.text().await.unwrap().contains(&name));
    let ablated = checked(&server, &browser).await;
    let headline = |side: usize| {
        ablated["inferenceSubResponses"][side]["inferenceResponse"]["inferenceAndTokenData"]["loss"].as_f64().unwrap()
    };
    assert!((headline(0) - headline(1)).abs() > 1e-6, "the ablation does nothing");
    // Beside the difference stands what the estimate said.
    let estimate = browser.see("#estimate").await.unwrap().attr("data-value").await.unwrap().unwrap();
    let estimate: f64 = estimate.parse().unwrap();
    let group = &ablated["inferenceSubResponses"][1]["processingResponseDataByName"]["topKComponents"];
    let effects = group["activationsByGroupId"]["act_times_grad"].as_array().unwrap();
    assert!(effects.iter().any(|effect| effect.as_f64() == Some(-estimate)), "{estimate}");
    click(&browser, "#ablations .close").await;
    browser.until("!document.querySelector('#ablations')").await.unwrap();
    answered(&browser).await;
    browser.until(&row).await.unwrap();
    browser.ask(&format!("{row}.click(); document.querySelector('#node-table').focus()")).await.unwrap();
    press(&browser, "t").await;
    browser.see("#trace").await.unwrap();
    answered(&browser).await;
    browser.read(&format!("What caused the activation of {latent}")).await.unwrap();
    assert_eq!(named(&browser, &format!("mlp_L{}_", LAYER + 1)).await, 0, "what comes after the latent is hidden");
    assert!(text(&browser, "#row-count").await.contains(&format!("layers after {LAYER} are hidden")));
    assert!(named(&browser, "mlp_L0_").await > 3);
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_one_layer_leaves_the_other_layers_their_neurons() {
    let folder = folder(AutoencoderSite::ResidDeltaMlp);
    let (server, browser) = asked("--mlp-autoencoder", &folder).await;
    turn(&browser, "#mlp-autoencoders").await;
    checked(&server, &browser).await;
    assert!(named(&browser, &format!("mlp_ae_L{LAYER}_")).await > 3);
    assert!(named(&browser, &format!("mlp_L{}_", LAYER + 1)).await > 3);
    write(&browser, "#filter", &format!("mlp_ae_L{LAYER}_")).await;
    let name = text(&browser, ".line .node-name").await;
    let latent = name.rsplit('_').next().unwrap();
    for (layer, shown) in [(LAYER, "#weights .histogram .bar"), (0, "h1")] {
        let path = format!("/embedded/mlp_autoencoder_latent/{layer}/{latent}");
        browser.open(&server, &path).await.unwrap();
        browser.see(shown).await.unwrap();
        browser.until("!document.querySelector('.skeleton')").await.unwrap();
        assert_eq!(count(&browser, "#crash").await, 0, "{path}");
    }
    // No records are stored of this dictionary, which the server tells with 4xx, and a browser logs.
    let severe = browser.complaints().await.unwrap();
    assert!(severe.iter().all(|c| c.contains("the server responded with a status of 4")), "{severe:?}");
    browser.finish().await.unwrap();
}
