//! Light and dark, narrow and wide, and an accessibility audit of each page.

use crate::ui_support::*;
use tdb_tests::browser::Appearance;
use thirtyfour::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_accessible_in_light_and_dark_and_fit_a_phone() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    let href = browser.see("#open-debugger").await.unwrap().attr("href").await.unwrap().unwrap();
    let slug = href.trim_start_matches('/').split('/').next().unwrap().to_owned();
    for (appearance, width) in
        [(Appearance::Light, 1440), (Appearance::Dark, 1440), (Appearance::Light, 390), (Appearance::Dark, 2560)]
    {
        browser.appearance(appearance).await.unwrap();
        browser.resize(width, 900).await.unwrap();
        for (path, ready) in [
            ("/".to_owned(), "#facts"),
            (href.clone(), ".line"),
            (format!("/{slug}/mlp_neuron/0/0?promptsOfInterest=Mary"), "#prompts .text-map"),
            (format!("/{slug}/attention_head/1/1?promptsOfInterest=Mary"), "#prompts .text-map"),
            (format!("/{slug}/nothing/0/0"), "h1"),
        ] {
            browser.open(&server, &path).await.unwrap();
            browser.see(ready).await.unwrap();
            browser
                .until("!document.querySelector('.skeleton') && !document.querySelector('#progress')")
                .await
                .unwrap();
            if ready == ".line" {
                browser.ask("document.querySelector('.line .expand').click()").await.unwrap();
                browser.see(".detail").await.unwrap();
            }
            accessible(&browser, &format!("{path}, {appearance:?}, {width}")).await;
            let wide = browser.ask("return document.documentElement.scrollWidth - innerWidth;").await.unwrap();
            assert!(wide.as_i64().unwrap() <= 0, "{path} is {wide} px too wide for {width}");
        }
    }
    let severe = browser.complaints().await.unwrap();
    assert!(severe.iter().all(|c| c.contains("the server responded with a status of 4")), "{severe:?}");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_is_on_the_first_screen() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    for css in ["#prompt", "#summary strong", "#candidates tbody tr", "#effects .heat", ".line"] {
        let bottom = browser
            .ask(&format!("return document.querySelector('{css}').getBoundingClientRect().bottom;"))
            .await
            .unwrap();
        assert!(bottom.as_f64().unwrap() <= 900.0, "{css} ends at {bottom}");
    }
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_follow_the_switch_and_help_is_a_key_away() {
    let (server, browser) = start().await;
    browser.open(&server, "/").await.unwrap();
    browser.see("#facts").await.unwrap();
    let background = "return getComputedStyle(document.body).backgroundColor;";
    let light = browser.ask(background).await.unwrap();
    browser.appearance(Appearance::Dark).await.unwrap();
    // The system's preference is followed.
    browser.until(&format!("getComputedStyle(document.body).backgroundColor !== {light}")).await.unwrap();
    click(&browser, "#theme").await;
    // The switch wins.
    browser.until(&format!("getComputedStyle(document.body).backgroundColor === {light}")).await.unwrap();
    browser.driver.refresh().await.unwrap();
    browser.see("#facts").await.unwrap();
    assert_eq!(browser.ask(background).await.unwrap(), light, "and is remembered");
    press(&browser, "?").await;
    browser.see("dialog[open]").await.unwrap();
    browser.read("Node table").await.unwrap();
    press(&browser, Key::Escape + "").await;
    browser.until("!document.querySelector('dialog[open]')").await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_of_an_ablated_prompt_are_whole_and_opened_details_come_into_sight() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    let open_last = "const box = document.querySelector('#node-table').getBoundingClientRect();
        const bottom = line => line.getBoundingClientRect().bottom;
        const seen = [...document.querySelectorAll('.line')].filter(line => bottom(line) <= box.bottom);
        seen.sort((a, b) => bottom(a) - bottom(b)).at(-1).querySelector('.expand').click();";
    browser.ask(open_last).await.unwrap();
    // As a whole, or as far as there is room below its line.
    let in_sight = "(() => { const place = css => document.querySelector(css)?.getBoundingClientRect();
        const detail = place('.detail'), line = place('.line.opened');
        const box = place('#node-table'), head = place('#node-table .grid-head').bottom;
        return detail && line.top >= head - 1 && (detail.bottom <= box.bottom + 1 || line.top <= head + 1); })()";
    browser.until(in_sight).await.unwrap();
    assert_eq!(
        browser.ask("return document.querySelector('.line.opened .expand').ariaExpanded;").await.unwrap(),
        "true"
    );
    browser.ask("document.querySelector('.line.opened .expand').click()").await.unwrap();
    browser.until("!document.querySelector('.detail')").await.unwrap();
    browser.ask("document.querySelector('.line:has(.kind-attention) [title^=Ablate]').click()").await.unwrap();
    browser.until("document.querySelector('#node-table.compare .line')").await.unwrap();
    answered(&browser).await;
    let cut = "const card = document.querySelector('.overview'); return card.scrollHeight - card.clientHeight;";
    assert!(browser.ask(cut).await.unwrap().as_i64().unwrap() <= 1, "the cards above the table are cut off");
    browser.finish().await.unwrap();
}
