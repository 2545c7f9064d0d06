//! The pages load in a browser, without a complaint, and are small.

use std::fs;
use std::path::Path;

use tdb_tests::browser::Browser;
use tdb_tests::serving;

#[tokio::test(flavor = "multi_thread")]
async fn the_start_page_opens() {
    let server = serving::serve(&[]).unwrap();
    let browser = Browser::start().await.unwrap();
    browser.open(&server, "/").await.unwrap();
    browser.see("h1").await.unwrap();
    browser.until("!document.getElementById('boot')").await.unwrap();
    assert!(browser.driver.title().await.unwrap().contains("Transformer Debugger"));
    browser.finish().await.unwrap();
}

/// What a browser fetches once, compressed: all pages are one module.
#[test]
fn the_pages_are_below_450_kilobytes() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/tdb-ui/dist");
    let files = fs::read_dir(dist).unwrap().map(|entry| entry.unwrap().path());
    let compressed: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "br")).collect();
    let bytes: u64 = compressed.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(compressed.len() > 3 && bytes < 450_000, "{bytes} bytes in {} files", compressed.len());
}
