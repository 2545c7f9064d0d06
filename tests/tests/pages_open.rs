//! The pages load in a browser, without a complaint.

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
