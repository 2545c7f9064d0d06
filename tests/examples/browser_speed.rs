//! How fast the pages are in Chromium, from a cold browser: `browser_speed [RUNS]`.
//!
//! Prints a table with the targets beside. Times are those that the browser itself takes.

use anyhow::{Context, Result};
use serde_json::Value;
use tdb_testkit::server::Server;
use tdb_tests::browser::Browser;
use tdb_tests::serving;

/// Notes when the page can be worked with, and when the first answer is there.
const WATCH: &str = "
    window.times = {};
    const note = (name, css) => { if (!(name in times) && document.querySelector(css)) times[name] = performance.now(); };
    const look = () => {
        note('interactive', '#submit:not(:disabled), #open-debugger');
        note('answered', '#node-table .line');
        if (!('answered' in times)) requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
";

/// Scrolls `arguments[0]` pixels in steps of `arguments[1]`, one a frame, and gives each frame's length.
const SCROLL: &str = "
    const [far, step, done] = arguments, grid = document.querySelector('#node-table'), frames = [];
    let last = null;
    grid.scrollTop = 0;
    let top = 0;
    const next = now => {
        if (last !== null) frames.push(now - last);
        last = now;
        if (top < far) { grid.scrollTop = top += step; requestAnimationFrame(next); } else done(frames);
    };
    requestAnimationFrame(next);
";

/// Times each key from its event to the frame that shows it; the server takes a second for every answer meanwhile.
const KEYS: &str = "
    window.keys = [];
    if (!window.real) {
        window.real = window.fetch.bind(window);
        window.fetch = (...call) => new Promise(go => setTimeout(go, 1000)).then(() => window.real(...call));
        addEventListener('keydown', e => {
            requestAnimationFrame(() => { const c = new MessageChannel(); c.port1.onmessage = () => keys.push(performance.now() - e.timeStamp); c.port2.postMessage(0); });
        }, true);
    }
";

/// Adds up how far things move, also right after a key or a press.
const SHIFTS: &str = "
    window.shifts = [];
    new PerformanceObserver(list => list.getEntries().forEach(e => shifts.push(e.value))).observe({ type: 'layout-shift' });
";

/// Writes another prompt and asks.
const EDIT: &str = "
    const prompt = document.querySelector('#prompt');
    prompt.value = '<|endoftext|>Paris, France. ' + arguments[0] + ',';
    prompt.dispatchEvent(new Event('input', { bubbles: true }));
    requestAnimationFrame(() => requestAnimationFrame(() => document.querySelector('#submit').click()));
";

const EDITS: usize = 50;
const NODES: usize = 2000;
const ROW: usize = 28;

/// What one cold browser saw.
struct Cold {
    paint: f64,
    interactive: f64,
    answered: f64,
    bytes: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let runs: usize = std::env::args().nth(1).map_or(Ok(5), |n| n.parse()).context("browser_speed [RUNS]")?;
    let server = serving::serve(&[])?;
    let debugger = debugger_path(&server).await?;
    let mut start = Vec::new();
    let mut debug = Vec::new();
    for _ in 0..runs.max(1) {
        start.push(cold(&server, "/", false).await?);
        debug.push(cold(&server, &debugger, true).await?);
    }
    let middle = |list: &[Cold], get: fn(&Cold) -> f64| median(list.iter().map(get).collect());
    println!("| | measured | target |\n|---|---|---|");
    let line = |what: &str, measured: String, target: &str| println!("| {what} | {measured} | {target} |");
    for (name, list) in [("start page", &start), ("debugger", &debug)] {
        line(&format!("{name}: first paint"), ms(middle(list, |c| c.paint)), "< 1 s");
        line(&format!("{name}: interactive"), ms(middle(list, |c| c.interactive)), "< 2 s");
    }
    line("debugger: first answer shown", ms(middle(&debug, |c| c.answered)), "");
    line("assets as sent, compressed", format!("{:.0} kB", middle(&debug, |c| c.bytes) / 1000.0), "< 500 kB");

    let shifts = shifts(&server, &debugger).await?;
    let (sum, most) = (shifts.iter().sum::<f64>(), shifts.iter().fold(0.0f64, |m, s| m.max(*s)));
    line(&format!("layout shift over {EDITS} edits: sum, largest"), format!("{sum:.3}, {most:.3}"), "< 0.05");

    let browser = Browser::start().await?;
    browser.open(&server, &format!("{debugger}?topAndBottomKForNodeTable=400")).await?;
    browser.until("document.querySelector('#node-table .line') && !document.querySelector('#progress')").await?;
    let rows = browser.ask("return parseInt(document.querySelector('#row-count').innerText);").await?;
    anyhow::ensure!(rows.as_u64().unwrap_or(0) >= NODES as u64, "the table has {rows} rows only");
    let still = idle(&browser).await?;
    let normal = median(still.clone());
    let dropped = |frames: &[f64]| frames.iter().map(|f| (f / normal).round() - 1.0).filter(|n| *n > 0.0).sum::<f64>();
    for step in [60, 120] {
        let before = thread_time(&browser).await?;
        let frames = frames(&browser, step).await?;
        let busy = (thread_time(&browser).await? - before) * 1000.0 / frames.len() as f64;
        let seconds = frames.iter().sum::<f64>() / 1000.0;
        let longest = ms(frames.iter().fold(0.0, |m, f| m.max(*f)));
        line(
            &format!("scrolling {NODES} nodes in {seconds:.0} s: frames dropped"),
            format!("{:.0} of {} (longest {longest})", dropped(&frames).abs(), frames.len()),
            "0",
        );
        line("… the page's own time for a frame", format!("{busy:.1} ms"), "< 16.7 ms");
    }
    line("not scrolling: frames dropped", format!("{:.0} of {}", dropped(&still).abs(), still.len()), "");
    for (what, css, text) in [
        ("key in the prompt", "#prompt", " The quick brown fox jumps"),
        ("key in the filter of the table", "#filter", "mlp_L3_4"),
    ] {
        browser.ask(KEYS).await?;
        let field = browser.see(css).await?;
        field.click().await?;
        for letter in text.chars() {
            field.send_keys(letter.to_string()).await?;
        }
        browser.until(&format!("window.keys.length >= {}", text.chars().count())).await?;
        let keys = numbers(&browser.ask("return window.keys;").await?);
        let most = keys.iter().fold(0.0f64, |m, k| m.max(*k));
        line(
            &format!("{what}, until drawn, the server a second late"),
            format!("{} (longest {})", ms(median(keys)), ms(most)),
            "no wait",
        );
    }
    Ok(())
}

async fn debugger_path(server: &Server) -> Result<String> {
    let browser = Browser::start().await?;
    browser.open(server, "/").await?;
    browser.see("#open-debugger").await?.attr("href").await?.context("no way into the debugger")
}

/// A browser that has never been anywhere.
async fn cold(server: &Server, path: &str, answers: bool) -> Result<Cold> {
    let browser = Browser::start().await?;
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", serde_json::json!({ "source": WATCH })).await?;
    browser.open(server, path).await?;
    browser.until(if answers { "'answered' in times" } else { "'interactive' in times" }).await?;
    let script = "const entry = performance.getEntriesByName('first-contentful-paint')[0];
        const kinds = ['link', 'script', 'img', 'css', 'other'];
        const files = performance.getEntriesByType('resource').filter(e => kinds.includes(e.initiatorType) || e.name.endsWith('.wasm'));
        const page = performance.getEntriesByType('navigation')[0];
        return [entry ? entry.startTime : -1, times.interactive, times.answered ?? 0,
            [page, ...files].reduce((sum, e) => sum + e.encodedBodySize, 0)];";
    let found = numbers(&browser.ask(script).await?);
    let [paint, interactive, answered, bytes] = found[..] else { anyhow::bail!("no times: {found:?}") };
    Ok(Cold { paint, interactive, answered, bytes })
}

/// How far things moved while other prompts were asked about, one after the other.
async fn shifts(server: &Server, debugger: &str) -> Result<Vec<f64>> {
    const ANSWERED: &str = "!document.querySelector('#progress') && !document.querySelector('.stale') \
                            && document.querySelector('#exact-bound')?.innerText";
    let browser = Browser::start().await?;
    browser.resize(1440, 900).await?;
    browser.open(server, debugger).await?;
    browser.until(ANSWERED).await?;
    browser.ask(SHIFTS).await?;
    for i in 0..EDITS {
        let capital = ["Rome", "Madrid", "Ottawa", "Berlin"][i % 4];
        browser.driver.execute(EDIT, vec![capital.into()]).await?;
        browser
            .until(&format!("document.querySelector('#effects')?.innerText.includes('{capital}') && {ANSWERED}"))
            .await?;
    }
    Ok(numbers(&browser.ask("return window.shifts;").await?))
}

async fn frames(browser: &Browser, step: usize) -> Result<Vec<f64>> {
    let far = (NODES - 30) * ROW;
    Ok(numbers(browser.driver.execute_async(SCROLL, vec![far.into(), step.into()]).await?.json()))
}

/// Seconds of a processor that the page's thread has had, whatever else the machine does.
async fn thread_time(browser: &Browser) -> Result<f64> {
    browser.devtools("Performance.enable", serde_json::json!({})).await?;
    let found = browser.devtools("Performance.getMetrics", serde_json::json!({})).await?;
    let metrics = found["metrics"].as_array().into_iter().flatten();
    let time = metrics.filter(|m| m["name"] == "ThreadTime").find_map(|m| m["value"].as_f64());
    time.context("Chromium does not tell the thread's time")
}

/// Frames while nothing happens: what this machine gives at best now.
async fn idle(browser: &Browser) -> Result<Vec<f64>> {
    let script = "const [done] = arguments, frames = []; let last = null;
        const step = now => { if (last !== null) frames.push(now - last); last = now; frames.length < 450 ? requestAnimationFrame(step) : done(frames); };
        requestAnimationFrame(step);";
    Ok(numbers(browser.driver.execute_async(script, Vec::new()).await?.json()))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ms(value: f64) -> String {
    format!("{value:.0} ms")
}
