//! The pages with a model of another family than GPT-2: grouped heads and gated neurons, parallel blocks.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support::*;
use tdb_testkit::families::{Copied, PROMPT};
use tdb_tests::browser::Browser;
use tdb_tests::serving;

#[tokio::test(flavor = "multi_thread")]
async fn a_llama_and_a_neox_are_asked_ablated_traced_and_looked_at() {
    for name in ["llama-3-scaling", "gpt-neox-parallel"] {
        let copied = Copied::new(name).unwrap();
        let server = serving::serve(&["--model", copied.path.to_str().unwrap()]).unwrap();
        let browser = Browser::start().await.unwrap();
        browser.resize(1440, 900).await.unwrap();
        // The first question is one that the model can know, and nothing is put before it.
        open_debugger(&server, &browser).await;
        assert_eq!(value(&browser, "#prompt").await, PROMPT, "{name}");
        assert_eq!(value(&browser, "#target-0").await, " Mary", "{name}");
        listen(&browser).await;
        submit(&browser).await;
        let first = answer(&server, &browser).await;
        assert!(compare(&cells(&browser).await, &first) >= 4, "{name}");

        // A head, in the Llama one of a group, is ablated.
        browser.ask("document.querySelector('.line:has(.kind-attention) [title^=Ablate]').click()").await.unwrap();
        browser.see("#ablations li").await.unwrap();
        answered(&browser).await;
        browser.read("baseline").await.unwrap();
        let ablated = answer(&server, &browser).await;
        assert_eq!(ablated["inferenceSubResponses"].as_array().unwrap().len(), 2, "{name}");
        assert!(compare(&cells(&browser).await, &ablated) >= 4, "{name}");
        click(&browser, "#ablations .close").await;
        browser.until("!document.querySelector('#ablations')").await.unwrap();
        answered(&browser).await;

        // A neuron's menu offers to trace its other factor where there is one.
        browser.ask("document.querySelector('.line:has(.kind-mlp) [title=Actions]').click()").await.unwrap();
        browser.see(".menu.floating").await.unwrap();
        let entries = text(&browser, ".menu.floating").await;
        assert_eq!(entries.contains("Trace what its gate is multiplied with"), name.starts_with("llama"), "{entries}");
        let entry = if name.starts_with("llama") { "Trace what its gate" } else { "Trace" };
        let script = format!(
            "[...document.querySelectorAll('.menu.floating [role=menuitem]')].find(e => e.innerText.startsWith('{entry}')).click()"
        );
        browser.ask(&script).await.unwrap();
        browser.see("#trace").await.unwrap();
        answered(&browser).await;
        let traced = answer(&server, &browser).await;
        assert!(compare(&cells(&browser).await, &traced) >= 4, "{name}");

        browser
            .open(&server, &format!("/{name}/mlp_neuron/1/3?promptsOfInterest={}", PROMPT.replace(' ', "+")))
            .await
            .unwrap();
        browser.see("#node-name").await.unwrap();
        browser.until("document.querySelectorAll('#prompts .text-map .piece').length >= 10").await.unwrap();
        browser.until("document.querySelectorAll('#lens .list .token').length >= 10").await.unwrap();
        // Panes without data are told by the server with 4xx, which a browser logs.
        let severe = browser.complaints().await.unwrap();
        assert!(severe.iter().all(|c| c.contains("the server responded with a status of 4")), "{severe:?}");
        browser.finish().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_toy_model_of_attention_alone_is_asked_and_ablated() {
    let copied = Copied::new("lens-attention-only").unwrap();
    let server = serving::serve(&["--model", copied.path.to_str().unwrap()]).unwrap();
    let browser = Browser::start().await.unwrap();
    browser.resize(1440, 900).await.unwrap();
    open_debugger(&server, &browser).await;
    listen(&browser).await;
    submit(&browser).await;
    let first = answer(&server, &browser).await;
    assert!(compare(&cells(&browser).await, &first) >= 4);
    let neurons = browser.ask("return document.querySelectorAll('.line:has(.kind-mlp)').length").await.unwrap();
    assert_eq!(neurons, 0);
    browser.ask("document.querySelector('.line:has(.kind-attention) [title^=Ablate]').click()").await.unwrap();
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    let ablated = answer(&server, &browser).await;
    assert_eq!(ablated["inferenceSubResponses"].as_array().unwrap().len(), 2);
    assert!(compare(&cells(&browser).await, &ablated) >= 4);
    browser.finish().await.unwrap();
}
