//! Pieces that belong to no page, in a browser: the field with suggestions, and the list of which only a part is drawn.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use crate::ui_support::*;
use serde_json::json;
use thirtyfour::prelude::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_field_offers_suggestions_to_keys_and_to_the_pointer() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    let told = "const field = document.querySelector('#target-0');
        const list = document.getElementById(field.getAttribute('aria-controls'));
        const at = field.getAttribute('aria-activedescendant');
        return [field.getAttribute('aria-expanded'), list.hidden, at && document.getElementById(at).ariaSelected,
            [...list.children].findIndex(e => e.id === at), list.querySelectorAll('[aria-selected=true]').length];";
    let open = |at: Option<u64>| match at {
        Some(i) => json!(["true", false, "true", i, 1]),
        None => json!(["true", false, null, -1, 0]),
    };
    write(&browser, "#target-0", " G").await;
    browser.until("document.querySelectorAll('#target-0-list li').length > 2").await.unwrap();
    let options = count(&browser, "#target-0-list li").await;
    assert_eq!(browser.ask(told).await.unwrap(), open(None));
    for (key, at) in [(Key::Down, 0), (Key::Down, 1), (Key::Up, 0), (Key::Up, options - 1), (Key::Down, 0)] {
        press(&browser, key + "").await;
        assert_eq!(browser.ask(told).await.unwrap(), open(Some(at)));
    }
    press(&browser, Key::Escape + "").await;
    browser.until("document.querySelector('#target-0-list').hidden").await.unwrap();
    assert_eq!(value(&browser, "#target-0").await, " G", "Escape leaves what was typed");
    // An arrow opens the list again, Enter takes, and does not submit.
    press(&browser, Key::Down + "").await;
    let chosen = "return document.querySelector('#target-0-list [aria-selected=true] .token').textContent;";
    let chosen = browser.ask(chosen).await.unwrap();
    press(&browser, Key::Enter + "").await;
    browser.until("document.querySelector('#target-0-list').hidden").await.unwrap();
    assert_eq!(value(&browser, "#target-0").await, chosen.as_str().unwrap());
    assert_eq!(count(&browser, "#progress").await, 0);
    write(&browser, "#target-0", " G").await;
    let third = browser.see("#target-0-list li:nth-child(3) .token").await.unwrap();
    let text = browser.ask("return document.querySelectorAll('#target-0-list .token')[2].textContent;").await.unwrap();
    third.click().await.unwrap();
    assert_eq!(value(&browser, "#target-0").await, text.as_str().unwrap());
    accessible(&browser, "suggestions").await;
    write(&browser, "#target-0", " G").await;
    browser.until("!document.querySelector('#target-0-list').hidden").await.unwrap();
    click(&browser, "#top-k").await;
    browser.until("document.querySelector('#target-0-list').hidden").await.unwrap();
    browser.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_list_the_lines_in_sight_are_drawn_and_no_others() {
    let (server, browser) = start().await;
    open_debugger(&server, &browser).await;
    write(&browser, "#top-k", "2000").await;
    press(&browser, Key::Enter + "").await;
    browser.until("location.search.includes('2000')").await.unwrap();
    submit(&browser).await;
    let rows = "Number(document.querySelector('#node-table').getAttribute('aria-rowcount'))";
    browser.until(&format!("{rows} > 2000")).await.unwrap();
    // Wherever the box stands, its lines cover it without a gap, and they are few.
    let state = "const box = document.querySelector('#node-table').getBoundingClientRect();
        const head = document.querySelector('#node-table [role=columnheader]').getBoundingClientRect().bottom;
        const lines = [...document.querySelectorAll('#node-table .line')].map(l => l.getBoundingClientRect());
        lines.sort((a, b) => a.top - b.top);
        const gap = lines.slice(1).reduce((most, l, i) => Math.max(most, Math.abs(l.top - lines[i].bottom)), 0);
        const end = Math.min(box.bottom, innerHeight);
        return [lines.length, lines[0].top <= head + 1, lines.at(-1).bottom >= end - 1, gap];";
    for share in [0.0, 0.37, 0.5, 0.83, 0.2, 1.0] {
        let scroll = format!(
            "const t = document.querySelector('#node-table'); t.scrollTop = {share} * (t.scrollHeight - t.clientHeight);"
        );
        browser.ask(&scroll).await.unwrap();
        browser
            .until(&format!("(() => {{ {} }})()", state.replace("return [", "const r = [") + " return r[1] && r[2];"))
            .await
            .unwrap();
        let found = browser.ask(state).await.unwrap();
        assert!(found[0].as_u64().unwrap() < 120, "{share}: {found}");
        assert!(found[3].as_f64().unwrap() < 1.0, "{share}: {found}");
    }
    // Keys go to both ends, and what they go to is in sight.
    browser.ask("document.querySelector('#node-table').focus()").await.unwrap();
    for (key, index) in [(Key::End, rows.to_owned()), (Key::Home, "2".to_owned())] {
        press(&browser, key + "").await;
        let shown = format!(
            "(() => {{ const line = document.querySelector('.line.active'); if (!line) return false;
                const box = document.querySelector('#node-table').getBoundingClientRect();
                const at = line.getBoundingClientRect(), is = Number(line.getAttribute('aria-rowindex')) === {index};
                return is && at.top >= box.top && at.bottom <= box.bottom + 1;
            }})()"
        );
        browser.until(&shown).await.unwrap();
    }
    browser.finish().await.unwrap();
}
