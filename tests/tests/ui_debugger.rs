//! The debugger's page as people use it: typing, pressing, keys, Back.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support::*;
use thirtyfour::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_asked_answered_ablated_and_traced() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    listen(&browser).await;
    write_ioi(&browser).await;
    submit(&browser).await;

    let answer = answer_checked(&server, &browser).await;
    let loss =
        answer["inferenceSubResponses"][0]["inferenceResponse"]["inferenceAndTokenData"]["loss"].as_f64().unwrap();
    let strong: f64 =
        browser.see("#summary strong").await.unwrap().attr("data-value").await.unwrap().unwrap().parse().unwrap();
    assert_eq!(strong, loss, "the sentence shows the answer's logit difference");
    assert!(count(&browser, "#candidates tbody tr").await >= 10);
    assert!(count(&browser, "#effects .heat-token").await > 10);

    // The first head of the table is ablated: ablated stands beside baseline.
    browser.ask("document.querySelector('.line:has(.kind-attention) .expand').click()").await.unwrap();
    browser.see(".detail .matrix").await.unwrap();
    browser.ask("document.querySelector('.line:has(.kind-attention) [title^=Ablate]').click()").await.unwrap();
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    browser.read("baseline").await.unwrap();
    answer_checked(&server, &browser).await;
    assert!(count(&browser, "[data-column='direction_write.Diff']").await > 0);

    // Another value, then none.
    let field = browser.see("#ablations input").await.unwrap();
    field.send_keys(Key::Control + "a").await.unwrap();
    field.send_keys("0.5" + Key::Tab).await.unwrap();
    browser.until("decodeURIComponent(location.search).includes('\"value\":0.5')").await.unwrap();
    answered(&browser).await;
    click(&browser, "#ablations .close").await;
    browser.until("!document.querySelector('#ablations')").await.unwrap();
    answered(&browser).await;

    // A neuron is traced from the keyboard, then the trace is cleared.
    browser
        .ask("document.querySelector('.line:has(.kind-mlp)').click(); document.querySelector('#node-table').focus()")
        .await
        .unwrap();
    press(&browser, "t").await;
    browser.see("#trace").await.unwrap();
    answered(&browser).await;
    browser.read("What caused the activation of mlp_").await.unwrap();
    answer_checked(&server, &browser).await;
    browser.ask("document.querySelector('#trace .card-head button').click()").await.unwrap();
    browser.until("!document.querySelector('#trace')").await.unwrap();
    answered(&browser).await;
    browser.finish().await.unwrap();
}

/// The server's answer to the page's last question, after every cell was found equal to it.
async fn answer_checked(
    server: &tdb_testkit::server::Server,
    browser: &tdb_tests::browser::Browser,
) -> serde_json::Value {
    let answer = answer(server, browser).await;
    let asked = browser.ask("return JSON.parse(window.asked.at(-1)).subRequests[0];").await.unwrap();
    let nodes = &answer["inferenceSubResponses"][0]["processingResponseDataByName"]["topKComponents"]["nodeIndices"];
    // What comes after a traced node is left out.
    let last = asked["upstreamNodeToTrace"]["nodeIndex"]["layerIndex"].as_i64().unwrap_or(i64::MAX);
    let shown = |node: &&serde_json::Value| node["layerIndex"].as_i64().unwrap_or(-1) <= last;
    let rows = nodes.as_array().unwrap().iter().filter(shown).count();
    let seen = compare(&cells(browser).await, &answer);
    assert!(seen >= 4, "no cells were seen");
    let hidden = answer["inferenceSubResponses"].as_array().unwrap().len() == 2;
    // Beside an ablation the layers before it are left out.
    assert!(hidden || seen == rows * 4, "{seen} cells of {rows} rows");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_traced_through_its_query_and_the_way_back_is_kept() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    browser.ask("document.querySelector('.line:has(.kind-attention)').click(); document.querySelector('#node-table').focus()").await.unwrap();
    press(&browser, "t").await;
    browser.see(".menu.floating").await.unwrap();
    press(&browser, Key::Enter + "").await;
    browser.read("What in the query caused").await.unwrap();
    answered(&browser).await;
    assert!(address(&browser).await.contains("upstreamNodeToTrace"));
    assert_eq!(count(&browser, "#circuit svg").await, 1);
    browser.driver.back().await.unwrap();
    browser.until("!document.querySelector('#trace')").await.unwrap();
    browser.driver.forward().await.unwrap();
    browser.see("#trace").await.unwrap();
    answered(&browser).await;
    click(&browser, ".trail li:first-child button").await;
    browser.until("!document.querySelector('#trace')").await.unwrap();
    answered(&browser).await;
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_replaces_history_and_a_submit_pushes_it() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    let length = "return history.length;";
    let before = browser.ask(length).await.unwrap().as_u64().unwrap();
    write(&browser, "#prompt", IOI).await;
    browser.read("Prompt changed").await.unwrap();
    assert!(address(&browser).await.contains("prompt="), "the address follows what is typed");
    assert_eq!(browser.ask(length).await.unwrap().as_u64().unwrap(), before);
    press(&browser, Key::Control + Key::Enter).await;
    browser.until("!document.querySelector('.edited')").await.unwrap();
    answered(&browser).await;
    assert_eq!(browser.ask(length).await.unwrap().as_u64().unwrap(), before + 1);
    browser.driver.back().await.unwrap();
    browser.until("document.querySelector('#prompt').value.includes('Ottawa')").await.unwrap();
    browser.driver.forward().await.unwrap();
    browser.until("document.querySelector('#prompt').value.includes('Mary')").await.unwrap();
    answered(&browser).await;
    click(&browser, "[aria-label=Undo]").await;
    browser.until("document.querySelector('#prompt').value.includes('Ottawa')").await.unwrap();
    click(&browser, "[aria-label=Redo]").await;
    browser.until("document.querySelector('#prompt').value.includes('Mary')").await.unwrap();
    answered(&browser).await;
    let link = address(&browser).await;
    let fresh = tdb_tests::browser::Browser::start().await.unwrap();
    fresh.driver.goto(&link).await.unwrap();
    answered(&fresh).await;
    assert_eq!(value(&fresh, "#prompt").await, IOI, "a link shows the same elsewhere");
    fresh.finish().await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_shown_completed_and_checked_as_they_are_typed() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    browser.until("document.querySelectorAll('.prompt-back .piece').length > 5").await.unwrap();
    browser.read("7 / 128 tokens").await.unwrap();
    write(&browser, "#target-0", " Ge").await;
    browser.see("#target-0-list li").await.unwrap();
    press(&browser, Key::Down + "").await;
    press(&browser, Key::Enter + "").await;
    assert!(value(&browser, "#target-0").await.starts_with(" Ge"));
    write(&browser, "#target-0", " xqzzyx").await;
    browser.until("document.querySelector('#target-0-problem').innerText.includes('tokens:')").await.unwrap();
    // Asked anyway, the server says no, and the page says it at the field.
    press(&browser, Key::Escape + "").await;
    press(&browser, Key::Enter + "").await;
    browser.until("document.querySelector('#target-0').getAttribute('aria-invalid') === 'true' && !document.querySelector('#progress')").await.unwrap();
    assert_eq!(value(&browser, "#target-0").await, " xqzzyx", "what was typed stays");
    assert!(count(&browser, ".line").await > 0, "the old answer stays");
    let refused = browser.complaints().await.unwrap();
    assert!(refused.iter().all(|c| c.contains("400")), "{refused:?}");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_sorts_filters_groups_and_remembers() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    // Of the list, not of the few rows that are drawn, whose number follows the height of what stands above.
    const ROWS: &str = "return Number(document.querySelector('#node-table').getAttribute('aria-rowcount'));";
    let all = browser.ask(ROWS).await.unwrap().as_u64().unwrap();
    write(&browser, "#filter", "attn_").await;
    browser
        .until("[...document.querySelectorAll('.node-name')].every(n => n.innerText.startsWith('attn_'))")
        .await
        .unwrap();
    browser.until("location.search.includes('filter=attn_')").await.unwrap();
    choose(&browser, "#group", "component").await;
    browser.see(".line.group").await.unwrap();
    browser.ask("document.querySelector('.line.group .expand').click()").await.unwrap();
    browser.see(".line.member").await.unwrap();
    choose(&browser, "#group", "layer").await;
    browser.until("location.search.includes('group=layer') && document.querySelector('.line.group .node-name').innerText.startsWith('attn_L')").await.unwrap();
    choose(&browser, "#group", "").await;
    write(&browser, "#filter", "").await;
    browser.until("!location.search.includes('filter')").await.unwrap();
    browser
        .ask("[...document.querySelectorAll('.cell.head .sort')].find(b => b.innerText.startsWith('Write')).click()")
        .await
        .unwrap();
    browser
        .until("document.querySelector('#node-table [aria-sort=descending]').innerText.startsWith('Write')")
        .await
        .unwrap();
    let values = browser.ask("return [...document.querySelectorAll('[data-column=\"write_norm.Left\"]')].map(c => [c.closest('.line').style.transform, c.dataset.value]);").await.unwrap();
    let mut rows: Vec<(f64, f64)> = values
        .as_array()
        .unwrap()
        .iter()
        .map(|v| {
            let top = v[0].as_str().unwrap().trim_start_matches("translateY(").trim_end_matches("px)").parse().unwrap();
            (top, v[1].as_str().unwrap().parse().unwrap())
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(rows.windows(2).all(|w| w[0].1 >= w[1].1), "sorted by write magnitude");
    browser.ask("document.querySelector('.heat-token:last-of-type').click()").await.unwrap();
    browser.until("location.search.includes('at=')").await.unwrap();
    browser.driver.refresh().await.unwrap();
    answered(&browser).await;
    assert!(address(&browser).await.contains("sort=write_norm.left.desc"));
    let at_one_token = browser.ask(ROWS).await.unwrap().as_u64().unwrap();
    assert!(1 < at_one_token && at_one_token < all, "{at_one_token} rows of {all}");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_worked_by_keys_and_keeps_the_focus() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    browser.ask("document.querySelector('#node-table').focus()").await.unwrap();
    press(&browser, Key::Down + "").await;
    press(&browser, "j").await;
    press(&browser, "k").await;
    press(&browser, Key::Enter + "").await;
    browser.see(".detail").await.unwrap();
    press(&browser, Key::Enter + "").await;
    browser.until("!document.querySelector('.detail')").await.unwrap();
    press(&browser, Key::End + "").await;
    browser.until("document.querySelector('.line.active')").await.unwrap();
    press(&browser, Key::Home + "").await;
    browser
        .ask("document.querySelector('.line:has(.kind-mlp)').click(); document.querySelector('#node-table').focus()")
        .await
        .unwrap();
    press(&browser, "a").await;
    browser.see("#ablations li").await.unwrap();
    answered(&browser).await;
    assert_eq!(browser.ask("return document.activeElement.id;").await.unwrap(), "node-table");
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_prompts_are_compared() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    listen(&browser).await;
    browser
        .ask("[...document.querySelectorAll('.ask button')].find(b => b.innerText === 'Add second prompt').click()")
        .await
        .unwrap();
    browser.see("#prompt-right").await.unwrap();
    answered(&browser).await;
    write(&browser, "#prompt-right", "<|endoftext|>Paris, France. Berlin,").await;
    submit(&browser).await;
    let answer = answer(&server, &browser).await;
    assert_eq!(answer["inferenceSubResponses"].as_array().unwrap().len(), 2);
    assert!(compare(&cells(&browser).await, &answer) > 12);
    assert!(count(&browser, ".differs").await > 0, "tokens that differ are marked");
    write(&browser, "#prompt-right", "<|endoftext|>Paris, France. Berlin").await;
    browser.read("7 and 6 tokens. Nodes are compared by tokens").await.unwrap();
    browser
        .ask("[...document.querySelectorAll('.ask button')].find(b => b.innerText === 'Remove second prompt').click()")
        .await
        .unwrap();
    browser.until("!document.querySelector('#prompt-right')").await.unwrap();
    answered(&browser).await;
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_results_stay_until_new_ones_come_and_late_ones_are_dropped() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    // The next question hangs; the one after it is answered first.
    let script = "const real = window.fetch.bind(window); let first = true;
        window.fetch = async (url, options) => {
            if (String(url).includes('/batched_tdb') && first) {
                first = false;
                await new Promise((go, stop) => {
                    window.letGo = go;
                    options.signal?.addEventListener('abort', () => stop(new DOMException('superseded', 'AbortError')));
                });
            }
            return real(url, options);
        };";
    browser.ask(script).await.unwrap();
    write(&browser, "#target-0", " France").await;
    click(&browser, "#submit").await;
    browser.see("#progress").await.unwrap();
    browser.see("#node-table.stale .line").await.unwrap();
    write(&browser, "#target-0", " Canada").await;
    write(&browser, "#distractor-0", " France").await;
    click(&browser, "#submit").await;
    answered(&browser).await;
    browser.until("document.querySelector('#summary').innerText.includes('France')").await.unwrap();
    browser.ask("window.letGo?.()").await.unwrap();
    assert!(text(&browser, "#summary").await.contains("Canada"));
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_absence_is_noticed_and_healed() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    browser
        .ask("window.real = window.fetch; window.fetch = () => Promise.reject(new TypeError('gone'));")
        .await
        .unwrap();
    click(&browser, "#submit").await;
    browser.read("cannot be reached").await.unwrap();
    browser.read("no server").await.unwrap();
    assert!(count(&browser, ".line").await > 0, "the old answer stays");
    browser.ask("window.fetch = window.real;").await.unwrap();
    browser.read("connected").await.unwrap();
    // The question that found no server is asked again by itself.
    browser.until("!document.body.innerText.includes('cannot be reached')").await.unwrap();
    answered(&browser).await;
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_not_asked_for_again_by_itself() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    let cut = "window.real = window.fetch; window.asked = 0; window.fetch = (url, init) => {
        if (!String(url).includes('/batched_tdb')) return window.real(url, init);
        window.asked += 1;
        const body = new ReadableStream({ start(answer) { answer.error(new TypeError('cut')); } });
        return Promise.resolve(new Response(body, { headers: { 'content-type': 'application/x-ndjson' } }));
    };";
    browser.ask(cut).await.unwrap();
    click(&browser, "#submit").await;
    browser.read("The answer broke off").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    browser.until("window.asked === 1").await.unwrap();
    browser.read("connected").await.unwrap();
    browser.ask("window.fetch = window.real;").await.unwrap();
    submit(&browser).await;
    browser.until("!document.body.innerText.includes('broke off')").await.unwrap();
    browser.finish().await.unwrap();
}

/// A field is gone before what it waits for comes.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_taken_away_and_added_at_any_pace() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    let distractors =
        |n: usize| format!("document.querySelectorAll('[id^=distractor-][role=combobox]').length === {n}");
    browser.until(&distractors(1)).await.unwrap();
    click(&browser, "[aria-label='Remove the last distractor token']").await;
    browser.until(&distractors(0)).await.unwrap();
    for n in 1..=3 {
        click(&browser, "[aria-label='Add a distractor token']").await;
        browser.until(&distractors(n)).await.unwrap();
    }
    for _ in 0..2 {
        click(&browser, "[aria-label='Remove the last distractor token']").await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    browser.until("!document.querySelector('#crash')").await.unwrap();
    write(&browser, "#distractor-0", " France").await;
    submit(&browser).await;
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn states_are_named_and_kept() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    click(&browser, "#snapshots").await;
    write(&browser, "#snapshot-name", "capitals").await;
    press(&browser, Key::Enter + "").await;
    browser.read("capitals").await.unwrap();
    press(&browser, Key::Escape + "").await;
    write(&browser, "#prompt", IOI).await;
    submit(&browser).await;
    browser.driver.refresh().await.unwrap();
    answered(&browser).await;
    click(&browser, "#snapshots").await;
    click(&browser, ".snapshots button").await;
    browser.until("document.querySelector('#prompt').value.includes('Ottawa')").await.unwrap();
    answered(&browser).await;
    browser.finish().await.unwrap();
}
