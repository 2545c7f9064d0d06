//! What the tests of the pages share: hands for a browser.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where
#![allow(dead_code, reason = "each test program uses a part")]

use std::time::Duration;

use serde_json::{Value, json};
use tdb_testkit::server::Server;
use tdb_tests::browser::Browser;
use tdb_tests::serving;
use thirtyfour::prelude::*;

pub const IOI: &str = "<|endoftext|>When Mary and John went to the store, John gave a drink to";

/// A server with the embedded model, and a browser of the size of a laptop's.
pub async fn start() -> (Server, Browser) {
    let server = serving::serve(&[]).unwrap();
    let browser = Browser::start().await.unwrap();
    browser.resize(1440, 900).await.unwrap();
    (server, browser)
}

/// Opens the start page and from there the debugger; waits for its first answer.
pub async fn open_debugger(server: &Server, browser: &Browser) {
    browser.open(server, "/").await.unwrap();
    click(browser, "#open-debugger").await;
    answered(browser).await;
}

/// Writes the question about Mary and John into the form.
pub async fn write_ioi(browser: &Browser) {
    write(browser, "#prompt", IOI).await;
    write(browser, "#target-0", " Mary").await;
    write(browser, "#distractor-0", " John").await;
}

/// Waits until nothing is under way and the table has rows.
pub async fn answered(browser: &Browser) {
    browser
        .until("document.querySelector('.line') && !document.querySelector('#progress') && document.querySelector('#node-table').ariaBusy === 'false'")
        .await
        .unwrap();
}

pub async fn click(browser: &Browser, css: &str) {
    browser.see(css).await.unwrap().click().await.unwrap_or_else(|e| panic!("{css}: {e}"));
}

/// Replaces a field's text by typing.
pub async fn write(browser: &Browser, css: &str, text: &str) {
    let field = browser.see(css).await.unwrap();
    field.click().await.unwrap();
    field.send_keys(Key::Control + "a").await.unwrap();
    field.send_keys(Key::Delete + "").await.unwrap();
    field.send_keys(text).await.unwrap();
}

/// Chooses an entry of a list by its value.
pub async fn choose(browser: &Browser, css: &str, value: &str) {
    browser.see(css).await.unwrap();
    let script = format!(
        "const s = document.querySelector({}); s.value = {}; s.dispatchEvent(new Event('change', {{ bubbles: true }}));",
        json!(css),
        json!(value)
    );
    browser.ask(&script).await.unwrap();
}

/// What a route of the interface answers to a POST.
pub async fn post(server: &Server, path: &str, body: Value) -> Value {
    let (address, path) = (server.address, path.to_owned());
    let ask = move || {
        let body = body.to_string();
        tdb_testkit::http::request(address, "POST", &path, &[], Some(body.as_bytes()), Duration::from_secs(60))
    };
    let response = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
    serde_json::from_slice(&response.body).unwrap()
}

/// What the page wants to save from now on is kept in `window.saved`: name and content, a data address or text.
pub async fn catch_files(browser: &Browser) {
    let script = "window.saved = []; const blobs = {}, make = URL.createObjectURL;
        URL.createObjectURL = blob => { const url = make(blob); blobs[url] = blob; return url; };
        HTMLAnchorElement.prototype.click = function () {
            const blob = blobs[this.href], name = this.download;
            blob ? blob.text().then(text => saved.push([name, text])) : saved.push([name, this.href]);
        };";
    browser.ask(script).await.unwrap();
}

/// The content of the file that the page saved under this name.
pub async fn saved(browser: &Browser, name: &str) -> String {
    let find = format!("window.saved.find(f => f[0] === {})", json!(name));
    browser.until(&find).await.unwrap();
    browser.ask(&format!("return {find}[1];")).await.unwrap().as_str().unwrap().to_owned()
}

/// Presses the entry of an open menu whose text begins so.
pub async fn pick(browser: &Browser, label: &str) {
    let find = format!(
        "[...document.querySelectorAll('[role=menuitem]')].find(e => e.innerText.startsWith({}))",
        json!(label)
    );
    browser.until(&find).await.unwrap();
    browser.ask(&format!("{find}.click()")).await.unwrap();
}

pub async fn press(browser: &Browser, keys: impl Into<TypingData>) {
    browser.driver.active_element().await.unwrap().send_keys(keys.into()).await.unwrap();
}

pub async fn submit(browser: &Browser) {
    click(browser, "#submit").await;
    answered(browser).await;
}

pub async fn value(browser: &Browser, css: &str) -> String {
    let script = format!("return document.querySelector({})?.value ?? null;", json!(css));
    browser.ask(&script).await.unwrap().as_str().unwrap_or_else(|| panic!("no field {css}")).to_owned()
}

pub async fn count(browser: &Browser, css: &str) -> u64 {
    browser.ask(&format!("return document.querySelectorAll({}).length;", json!(css))).await.unwrap().as_u64().unwrap()
}

pub async fn text(browser: &Browser, css: &str) -> String {
    browser.see(css).await.unwrap().text().await.unwrap()
}

pub async fn address(browser: &Browser) -> String {
    browser.driver.current_url().await.unwrap().to_string()
}

/// Keeps the bodies of the debugger's requests from now on in `window.asked`.
pub async fn listen(browser: &Browser) {
    let script = "window.asked = []; const real = window.fetch.bind(window);
        window.fetch = (url, options) => {
            if (String(url).includes('/batched_tdb')) window.asked.push(options.body);
            return real(url, options);
        };";
    browser.ask(script).await.unwrap();
}

/// The answer that the server gives, unstreamed, to the page's last question.
pub async fn answer(server: &Server, browser: &Browser) -> Value {
    let body = browser.ask("return window.asked.at(-1);").await.unwrap();
    let body = body.as_str().expect("a question was asked").to_owned();
    let address = server.address;
    let ask = move || {
        let headers = [("content-type", "application/json")];
        tdb_testkit::http::request(
            address,
            "POST",
            "/batched_tdb",
            &headers,
            Some(body.as_bytes()),
            Duration::from_secs(60),
        )
    };
    let response = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
    assert_eq!(response.status, 200);
    serde_json::from_slice(&response.body).unwrap()
}

/// Every value cell of the node table, also those out of sight: row, column, full value, shown text.
pub async fn cells(browser: &Browser) -> Vec<(usize, String, f64, String)> {
    let script = "const done = arguments[arguments.length - 1];
        const grid = document.querySelector('#node-table'), found = {};
        const frame = () => new Promise(r => requestAnimationFrame(() => setTimeout(r, 30)));
        (async () => {
            for (let top = 0; top <= grid.scrollHeight; top += 200) {
                grid.scrollTop = top;
                await frame();
                for (const line of grid.querySelectorAll('.line'))
                    for (const cell of line.querySelectorAll('[data-column]'))
                        found[line.id + ' ' + cell.dataset.column] =
                            [Number(line.id.slice(5)), cell.dataset.column, cell.dataset.value, cell.innerText];
            }
            grid.scrollTop = 0;
            await frame();
            done(Object.values(found));
        })();";
    let found = browser.driver.execute_async(script, Vec::new()).await.unwrap().json().clone();
    let cell = |c: &Value| {
        let word = |i: usize| c[i].as_str().unwrap().to_owned();
        (c[0].as_u64().unwrap() as usize, word(1), word(2).parse().unwrap(), word(3))
    };
    found.as_array().unwrap().iter().map(cell).collect()
}

/// A shown number as a number.
pub fn shown(text: &str) -> f64 {
    text.trim().replace('−', "-").replace([',', '+'], "").parse().unwrap_or_else(|_| panic!("{text:?} is not a number"))
}

/// Checks every cell of the table against an answer; returns how many there were.
pub fn compare(cells: &[(usize, String, f64, String)], answer: &Value) -> usize {
    for (row, column, full, text) in cells {
        let (metric, side) = column.split_once('.').unwrap();
        let at = |side: usize| {
            answer["inferenceSubResponses"][side]["processingResponseDataByName"]["topKComponents"]["activationsByGroupId"]
                [metric][*row]
                .as_f64()
                .unwrap_or_else(|| panic!("row {row} has no {metric} on side {side}"))
        };
        let want = match side {
            "Left" => at(0),
            "Right" => at(1),
            _ => at(0) - at(1),
        };
        assert_eq!(*full, want, "row {row}, {column}");
        let near = (shown(text) - want).abs() <= want.abs() * 0.06 + 1e-12;
        assert!(near, "row {row}, {column}: {text} is shown for {want}");
    }
    cells.len()
}

/// Fails with what an accessibility audit finds.
pub async fn accessible(browser: &Browser, what: &str) {
    let found = browser.accessibility().await.unwrap();
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}
