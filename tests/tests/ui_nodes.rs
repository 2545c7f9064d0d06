//! Start page, node pages, and ways between them.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support::*;
use thirtyfour::prelude::*;

async fn slug(browser: &tdb_tests::browser::Browser) -> String {
    let href = browser.see("#open-debugger").await.unwrap().attr("href").await.unwrap().unwrap();
    href.trim_start_matches('/').split('/').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_page_leads_everywhere() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    browser.see("#facts").await.unwrap();
    assert!(text(&browser, "#facts").await.contains("Layers"));
    let examples = count(&browser, ".example").await;
    assert!(examples >= 4);
    for i in 0..examples {
        browser.open(&server, "/").await.unwrap();
        browser.until("document.querySelectorAll('.example[href]').length > 3").await.unwrap();
        let asked = browser.ask(&format!("const e = document.querySelectorAll('.example')[{i}]; const t = e.querySelector('.example-prompt').innerText; e.click(); return t;")).await.unwrap();
        answered(&browser).await;
        assert_eq!(
            value(&browser, "#prompt").await.split_whitespace().collect::<Vec<_>>(),
            asked.as_str().unwrap().split_whitespace().collect::<Vec<_>>()
        );
    }
    browser.open(&server, "/").await.unwrap();
    browser.until("document.querySelectorAll('#dataset option').length > 0").await.unwrap();
    write(&browser, "#pick-layer", "99999").await;
    browser.read("Layer must be 0–3").await.unwrap();
    write(&browser, "#pick-layer", "0").await;
    write(&browser, "#pick-index", "1").await;
    click(&browser, "#pick").await;
    browser.see("#node-name").await.unwrap();
    assert!(text(&browser, "#node-name").await.ends_with("L0_1"));
    browser.until("!document.querySelector('.skeleton')").await.unwrap();
    let _ = browser.complaints().await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_node_has_a_page() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    let slug = slug(&browser).await;
    for node_type in [
        "mlp_neuron",
        "attention_head",
        "attn_write_norm",
        "autoencoder_latent",
        "mlp_autoencoder_latent",
        "attention_autoencoder_latent",
        "autoencoder_latent_by_token_pair",
        "residual_stream_channel",
    ] {
        browser.open(&server, &format!("/{slug}/{node_type}/0/0?promptsOfInterest=Mary+and+John")).await.unwrap();
        browser.see("#node-name").await.unwrap();
        browser.until("!document.querySelector('.skeleton')").await.unwrap();
        assert_eq!(count(&browser, "#crash").await, 0, "{node_type}");
        let said = browser.text().await.unwrap();
        // What no server can answer is not asked.
        assert!(node_type != "residual_stream_channel" || !said.contains("can't be run"), "{said}");
    }
    for path in ["layer/0/0", "vocab_token/0/0", "qk_channel/0/0", "mlp_neurn/0/0", "mlp_neuron/x/0"] {
        browser.open(&server, &format!("/{slug}/{path}")).await.unwrap();
        browser.read("No such node").await.unwrap();
    }
    // Panes without data are told by the server with 4xx, which a browser logs.
    let severe = browser.complaints().await.unwrap();
    assert!(severe.iter().all(|c| c.contains("the server responded with a status of 4")), "{severe:?}");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_page_is_walked_by_keys_and_runs_prompts() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    let slug = slug(&browser).await;
    browser.open(&server, &format!("/{slug}/mlp_neuron/0/0")).await.unwrap();
    browser.see("#node-name").await.unwrap();
    browser.until("document.querySelectorAll('#lens .list .token').length >= 20").await.unwrap();
    write(&browser, "#typed-prompt", "When Mary and John").await;
    press(&browser, Key::Control + Key::Enter).await;
    browser.until("document.querySelectorAll('#prompts .text-map .piece').length >= 4").await.unwrap();
    assert!(address(&browser).await.contains("promptsOfInterest=When"));
    browser.ask("document.activeElement.blur()").await.unwrap();
    press(&browser, Key::Right + "").await;
    browser.until("document.querySelector('#node-name').innerText === 'mlp_L0_1'").await.unwrap();
    press(&browser, Key::Shift + Key::Up).await;
    browser.until("document.querySelector('#node-name').innerText === 'mlp_L1_1'").await.unwrap();
    browser.driver.back().await.unwrap();
    browser.until("document.querySelector('#node-name').innerText === 'mlp_L0_1'").await.unwrap();
    press(&browser, Key::Control + "k").await;
    browser.see("#jump").await.unwrap();
    press(&browser, "L1.H2").await;
    press(&browser, Key::Enter + "").await;
    browser.until("document.querySelector('#node-name')?.innerText === 'attn_L1_2'").await.unwrap();
    browser.until("!document.querySelector('.skeleton')").await.unwrap();
    let severe = browser.complaints().await.unwrap();
    assert!(severe.iter().all(|c| c.contains("the server responded with a status of 4")), "{severe:?}");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_leads_home() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    browser
        .ask("history.pushState(null, '', '/no/such'); dispatchEvent(new PopStateEvent('popstate'));")
        .await
        .unwrap();
    browser.read("Page Not Found").await.unwrap();
    browser.ask("[...document.querySelectorAll('a')].find(a => a.innerText === 'Go back home').click()").await.unwrap();
    browser.see("#open-debugger").await.unwrap();
    browser.finish().await.unwrap();
}
