//! axe-core finds nothing to complain about, in light and in dark.

use tdb_tests::browser::{Appearance, Browser};
use tdb_tests::serving::{self, root};

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_no_violations() {
    if !root().join("target/npm/node_modules/axe-core").is_dir() {
        panic!("axe-core is not installed: run `cargo xtask setup npm`");
    }
    let server = serving::serve(&[]).unwrap();
    let browser = Browser::start().await.unwrap();
    let mut found = Vec::new();
    for appearance in [Appearance::Light, Appearance::Dark] {
        browser.appearance(appearance).await.unwrap();
        browser.open(&server, "/").await.unwrap();
        let open = browser.see("#open-debugger").await.unwrap();
        found.extend(browser.accessibility().await.unwrap().into_iter().map(|v| format!("/ {appearance:?}: {v}")));
        open.click().await.unwrap();
        browser.see("#submit").await.unwrap().click().await.unwrap();
        browser.see("#node-table .line").await.unwrap();
        found.extend(
            browser.accessibility().await.unwrap().into_iter().map(|v| format!("debugger {appearance:?}: {v}")),
        );
    }
    browser.finish().await.unwrap();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
