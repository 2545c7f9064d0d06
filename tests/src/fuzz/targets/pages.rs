//! What the pages read: their addresses, what they keep in a browser, and the server's streams.

use tdb_api::page::{LogEntry, ModelSlug, NodePage, NodePageQuery, PageState, Snapshot, token_pairs};
use tdb_api::stream::{Fold, FoldEvents, TdbEvent};
use tdb_api::wire::from_json;

/// Path and query of a page's address: what is read and written is the same.
pub fn page(input: &[u8]) {
    let Ok(address) = std::str::from_utf8(input) else { return };
    let query = address.split_once('?').map_or(address, |(_, query)| query);
    let (state, _) = PageState::from_query(query);
    let _ = serde_json::to_string(&state.to_request());
    let (again, problems) = PageState::from_query(&state.to_query());
    assert_eq!((&again, problems.len()), (&state, 0));
    let _ = state.pairs([5, 7]);

    let node = NodePageQuery::parse(query);
    assert_eq!(NodePageQuery::parse(&node.encode()), node);
    let parts: Vec<&str> = address.trim_start_matches('/').splitn(4, '/').collect();
    if let [model, node_type, layer, index] = parts[..]
        && let Ok(page) = NodePage::parse(model, node_type, layer, index)
    {
        page.dataset_name();
        assert!(page.path().starts_with('/'));
    }
    ModelSlug::parse(address).debugger_path();
    token_pairs(address);
}

/// What a browser kept for the pages, or a file that somebody sent.
pub fn kept(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(snapshots) = from_json::<Vec<Snapshot>>(text) {
        let _ = serde_json::to_string(&snapshots);
    }
    if let Ok(entries) = from_json::<Vec<LogEntry>>(text) {
        let _ = serde_json::to_string(&entries);
    }
}

/// Lines of a streamed answer.
pub fn stream(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut fold = Fold::new(1);
    for line in text.lines() {
        let Ok(event) = from_json::<TdbEvent>(line) else { continue };
        // A fold keeps a place for each side; the server tells of two at most, and its own numbers are not doubted.
        let side = serde_json::to_value(&event).ok().and_then(|event| event["side"].as_u64());
        if side.is_some_and(|side| side > 64) {
            continue;
        }
        let again = serde_json::to_string(&event).ok().and_then(|text| from_json::<TdbEvent>(&text).ok());
        assert_eq!(again.as_ref(), Some(&event));
        let _ = fold.add(event);
        let _ = fold.so_far();
    }
    let _ = fold.finish();
}
