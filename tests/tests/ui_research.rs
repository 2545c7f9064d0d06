//! What a researcher does beyond asking: reads explanations and examples beside the table, holds a node at its mean, saves
//! figures, hands on a short link.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support::*;
use serde_json::{Value, json};
use thirtyfour::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn latents_explanations_and_examples_are_on_the_first_screen() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    click(&browser, "#open-latents").await;
    answered(&browser).await;
    listen(&browser).await;
    submit(&browser).await;
    browser.see(".line .kind-latent").await.unwrap();
    // The table says what each component looks for, as the interface has it.
    browser
        .until("[...document.querySelectorAll('.line .explanation .cut')].some(e => e.innerText.length > 9)")
        .await
        .unwrap();
    let first = "return (l => [Number(l.id.slice(5)), l.querySelector('.explanation').innerText])(document.querySelector('.line:has(.cut)'));";
    let first = browser.ask(first).await.unwrap();
    let answer = answer(&server, &browser).await;
    let node = &answer["inferenceSubResponses"][0]["processingResponseDataByName"]["topKComponents"]["nodeIndices"]
        [first[0].as_u64().unwrap() as usize];
    let (dst, set) = match node["nodeType"].as_str().unwrap() {
        "mlp_autoencoder_latent" => ("mlp_autoencoder_latent", "mlp"),
        "attention_autoencoder_latent" => ("flattened_attn_write_to_latent_summed_over_heads", "attn"),
        other => panic!("{other} comes first"),
    };
    let info = post(&server, "/model_info", json!({})).await;
    let autoencoder = if set == "mlp" { &info["mlpAutoencoderName"] } else { &info["attentionAutoencoderName"] };
    let dataset = format!("{}_{}", info["modelName"].as_str().unwrap(), autoencoder.as_str().unwrap());
    assert!(dataset.contains(set));
    let body = json!({ "dst": dst, "layerIndex": node["layerIndex"], "activationIndex": node["tensorIndices"][1], "explanationDatasets": [], "neuronDataset": dataset });
    let stored = post(&server, "/existing_explanations", body).await;
    assert_eq!(stored[0]["explanation"], first[1]);
    // Nobody is set up here to write more of them, and nothing offers it.
    assert_eq!(count(&browser, "#write-explanations").await, 0);
    // Beside it the texts that excite the node at hand, in sight at once, and they follow the row.
    browser.see("#at-hand .excerpts li").await.unwrap();
    let bottom = "return document.querySelector('#at-hand .excerpts li').getBoundingClientRect().bottom;";
    assert!(browser.ask(bottom).await.unwrap().as_f64().unwrap() < 900.0);
    let name = text(&browser, "#at-hand h2").await;
    browser.ask("document.querySelector('#node-table').focus()").await.unwrap();
    for _ in 0..3 {
        press(&browser, Key::Down + "").await;
    }
    browser.until(&format!("document.querySelector('#at-hand h2').innerText !== {}", json!(name))).await.unwrap();
    browser
        .until("document.querySelector('#at-hand h2').innerText === document.querySelector('.line.active .node-name').innerText")
        .await
        .unwrap();
    accessible(&browser, "latents").await;

    // A column less, a narrow window, and all of them again.
    browser
        .ask("[...document.querySelectorAll('.ask button')].find(b => b.innerText === 'Display').click()")
        .await
        .unwrap();
    browser.ask("[...document.querySelectorAll('dialog label')].find(l => l.innerText.trim() === 'Explanation').querySelector('input').click()").await.unwrap();
    browser
        .until("!document.querySelector('.line .explanation') && location.search.includes('columns=')")
        .await
        .unwrap();
    press(&browser, Key::Escape + "").await;
    browser.driver.back().await.unwrap();
    browser.resize(390, 844).await.unwrap();
    browser.open(&server, "/").await.unwrap();
    click(&browser, "#open-latents").await;
    answered(&browser).await;
    let wide = "const g = document.querySelector('#node-table'); return g.scrollWidth - g.clientWidth;";
    assert!(browser.ask(wide).await.unwrap().as_i64().unwrap() <= 0, "the effects are in sight on a phone");
    assert!(count(&browser, "[data-column='act_times_grad.Left']").await > 0);
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neuron_is_held_at_its_mean_and_the_source_is_said() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    let name = browser.ask("return document.querySelector('.line .kind-mlp').innerText;").await.unwrap();
    let name = name.as_str().unwrap().to_owned();
    let (layer, unit) = name.trim_start_matches("mlp_L").split_once('_').unwrap();
    let (layer, unit): (i64, i64) = (layer.parse().unwrap(), unit.parse().unwrap());
    let body = json!({
        "inferenceRequestSpec": { "prompt": "<|endoftext|>Paris, France. Ottawa," },
        "derivedScalarsRequestSpec": { "dst": "mlp_post_act", "layerIndex": layer, "activationIndex": unit },
    });
    let run = post(&server, "/derived_scalars", body).await;
    let values: Vec<f64> = numbers(&run["derivedScalarsResponseData"]["activations"]);
    let mean = values.iter().sum::<f64>() / values.len() as f64;

    browser.ask("document.querySelector('.line:has(.kind-mlp) [title=Actions]').click()").await.unwrap();
    pick(&browser, "Ablate to the mean over this prompt").await;
    browser.read(&format!("{name} is held at")).await.unwrap();
    browser.read("the 7 tokens of this prompt, unablated").await.unwrap();
    let held: f64 = value(&browser, "#ablations input").await.parse().unwrap();
    assert!((held - mean).abs() < 1e-12, "{held} for {mean}");
    browser.until("document.querySelector('#node-table.compare .line')").await.unwrap();
    answered(&browser).await;
    click(&browser, "#ablations .close").await;
    browser.until("!document.querySelector('#node-table.compare')").await.unwrap();
    answered(&browser).await;

    // In the row's details the mean over the data set becomes the value, with its source beside it.
    let body = json!({ "dst": "mlp_post_act", "layerIndex": layer, "activationIndex": unit, "datasets": [post(&server, "/model_info", json!({})).await["modelName"]] });
    let record = post(&server, "/record_summary", body).await;
    let mean = record["mean"].as_f64().unwrap();
    assert!(record["values"].as_i64().unwrap() > 80_000, "{record}");
    browser.ask("document.querySelector('.line:has(.kind-mlp) .expand').click()").await.unwrap();
    browser.see(".detail .means button").await.unwrap();
    browser.ask("document.querySelectorAll('.detail .means button')[1].click()").await.unwrap();
    browser.read("mean over the 120,486 tokens of the collated text").await.unwrap();
    let filled: f64 = value(&browser, ".detail input").await.parse().unwrap();
    assert!((filled - mean).abs() < 1e-12, "{filled} for {mean}");
    // Held at it, the chip says where the value comes from, and so does a link.
    browser
        .ask("[...document.querySelectorAll('.detail button')].find(b => b.innerText === 'Ablate').click()")
        .await
        .unwrap();
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    browser.driver.refresh().await.unwrap();
    answered(&browser).await;
    assert!(text(&browser, "#ablations li").await.contains("120,486 tokens of the collated text"));
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_saved_and_links_are_short() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    catch_files(&browser).await;
    for entry in ["Save as SVG", "Save as PNG"] {
        click(&browser, "#effects [aria-label^=Save]").await;
        pick(&browser, entry).await;
    }
    let svg = saved(&browser, "token-effects.svg").await;
    let cells = browser
        .ask("return [...document.querySelectorAll('#effects td .heat-number')].map(c => c.innerText);")
        .await
        .unwrap();
    for cell in cells.as_array().unwrap() {
        assert!(svg.contains(&format!(">{}</text>", cell.as_str().unwrap())), "{cell} is missing in {svg}");
    }
    assert!(svg.starts_with("<svg xmlns=") && svg.contains("Ottawa") && !svg.contains("light-dark"), "{svg}");
    assert!(saved(&browser, "token-effects.png").await.starts_with("data:image/png;base64,iVBOR"));
    browser.ask("document.querySelector('.line:has(.kind-attention) .expand').click()").await.unwrap();
    browser.see(".detail .matrix").await.unwrap();
    browser.ask("document.querySelector('.detail [aria-label^=Save]').click()").await.unwrap();
    pick(&browser, "Save as SVG").await;
    assert!(saved(&browser, "attention.svg").await.matches("<rect").count() > 20);

    browser.ask("document.querySelector('.line:has(.kind-attention) [title^=Ablate]').click()").await.unwrap();
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    choose(&browser, "#group", "layer").await;
    browser.until("location.search.includes('group=layer')").await.unwrap();
    let long = address(&browser).await;
    let keep = "Object.defineProperty(navigator, 'clipboard', { value: { writeText: t => { window.copied = t; return Promise.resolve(); } } });";
    browser.ask(keep).await.unwrap();
    browser
        .ask("[...document.querySelectorAll('.ask button')].find(b => b.innerText === 'Share').click()")
        .await
        .unwrap();
    pick(&browser, "Copy short link").await;
    browser.until("window.copied").await.unwrap();
    let short = browser.ask("return window.copied;").await.unwrap().as_str().unwrap().to_owned();
    assert!(short.len() < long.len(), "{short} for {long}");
    let fresh = tdb_tests::browser::Browser::start().await.unwrap();
    fresh.driver.goto(&short).await.unwrap();
    fresh.see("#node-table.compare .line.group").await.unwrap();
    answered(&fresh).await;
    assert_eq!(address(&fresh).await, long, "a short link opens as the long one");
    fresh.driver.goto(&format!("http://{}/{}?s=nonsense", server.address, path(&short))).await.unwrap();
    fresh.read("This short link cannot be read").await.unwrap();
    answered(&fresh).await;
    fresh.finish().await.unwrap();
    browser.finish().await.unwrap();
}

fn path(link: &str) -> String {
    link.split("//").nth(1).unwrap().split_once('/').unwrap().1.split('?').next().unwrap().to_owned()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}
