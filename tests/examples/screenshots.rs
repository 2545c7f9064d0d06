//! Pictures of the pages in light and dark: `screenshots FOLDER`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tdb_tests::browser::{Appearance, Browser};
use tdb_tests::serving;

/// Every explanation in sight has come.
const FILLED: &str = "[...document.querySelectorAll('#node-table .explanation .cut')].every(e => e.innerText !== '…')";

/// A head, on a prompt.
const HEAD: &str = "/embedded/attention_head/1/2\
    ?promptsOfInterest=When+Mary+and+John+went+to+the+store,+John+gave+a+drink+to";

/// The indirect-object question.
const CIRCUIT: &str = "/embedded/tdb_alpha?prompt=%3C%7Cendoftext%7C%3EWhen+Mary+and+John+went+to+the+store,+John+gave+a\
    +drink+to&targetTokens=[%22+Mary%22]&distractorTokens=[%22+John%22]";

#[tokio::main]
async fn main() -> Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).context("screenshots FOLDER")?.into();
    let server = serving::serve(&[])?;
    let browser = Browser::start().await?;
    browser.resize(1440, 900).await?;
    for (appearance, suffix) in [(Appearance::Light, "light"), (Appearance::Dark, "dark")] {
        browser.appearance(appearance).await?;
        let picture = |name: &str| folder.join(format!("{name}-{suffix}.png"));

        browser.open(&server, "/").await?;
        let debugger = browser.see("#open-debugger").await?;
        browser.screenshot(&picture("start")).await?;

        debugger.click().await?;
        browser.see("#submit").await?.click().await?;
        browser.see("#node-table .line").await?;
        browser.until("!document.getElementById('progress') && document.querySelector('#at-hand .excerpts')").await?;
        browser.until(&format!("{FILLED} && document.querySelector('#exact-bound')?.innerText")).await?;
        browser.screenshot(&picture("debugger")).await?;

        browser.open(&server, CIRCUIT).await?;
        browser.see("#node-table .line").await?;
        browser.until("!document.getElementById('progress') && document.querySelector('#effects .heat')").await?;
        browser.see("#tool-circuit").await?.click().await?;
        browser.see("#pin-largest").await?.click().await?;
        browser.until("document.querySelector('#circuit-view .circuit-figures')").await?;
        browser.see("#circuit-view").await?.screenshot(&picture("circuit")).await?;
        browser.open(&server, "/").await?;
        browser.see("#open-debugger").await?.click().await?;
        browser.see("#node-table .line").await?;
        browser.until("!document.getElementById('progress') && document.querySelector('#at-hand .excerpts')").await?;

        browser.ask("document.querySelector('#node-table [aria-label^=\"Ablate \"]').click();").await?;
        browser.see("#node-table.compare .line").await?;
        browser.until("!document.getElementById('progress')").await?;
        browser.screenshot(&picture("ablated")).await?;

        let node =
            browser.see("#node-table a.node-name").await?.attr("href").await?.context("a node without a page")?;
        browser.open(&server, "/").await?;
        browser.see("#open-latents").await?.click().await?;
        browser.see("#node-table .explanation .cut").await?;
        browser.until(&format!("{FILLED} && document.querySelector('#at-hand .excerpts')")).await?;
        browser.until("document.querySelector('#exact-bound')?.innerText").await?;
        browser.screenshot(&picture("latents")).await?;

        browser.resize(1440, 1500).await?;
        for (name, page) in [("neuron", node.as_str()), ("head", HEAD)] {
            browser.open(&server, page).await?;
            browser.see("#node-name").await?;
            browser.see("#prompts .piece").await?;
            browser.until("!document.querySelector('[aria-busy=true], .skeleton')").await?;
            browser.screenshot(&picture(name)).await?;
        }
        browser.see("#readings").await?.screenshot(&picture("readings")).await?;

        browser.resize(1440, 1800).await?;
        browser.open(&server, "/embedded/patch?cells=residual.2.10").await?;
        browser.until("document.querySelector('.ledger') && document.querySelector('#drill td')").await?;
        browser.see("#lens-corrupted td.put").await?;
        browser.screenshot(&picture("patch")).await?;
        browser.resize(1440, 900).await?;
    }
    for file in std::fs::read_dir(&folder)? {
        println!("{}", file?.path().display());
    }
    browser.finish().await
}
