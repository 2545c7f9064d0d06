//! Pictures of the pages in light and dark: `screenshots FOLDER`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tdb_tests::browser::{Appearance, Browser};
use tdb_tests::house;

/// Name, path, and what is there once the page is complete.
const PAGES: [(&str, &str, &str); 1] = [("start", "/", "h1")];

#[tokio::main]
async fn main() -> Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).context("screenshots FOLDER")?.into();
    let server = house::serve(&[])?;
    let browser = Browser::start().await?;
    for (appearance, suffix) in [(Appearance::Light, "light"), (Appearance::Dark, "dark")] {
        browser.appearance(appearance).await?;
        for (name, path, complete) in PAGES {
            browser.open(&server, path).await?;
            browser.see(complete).await?;
            let file = folder.join(format!("{name}-{suffix}.png"));
            browser.screenshot(&file).await?;
            println!("{}", file.display());
        }
    }
    browser.finish().await
}
