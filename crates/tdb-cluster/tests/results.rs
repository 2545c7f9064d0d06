//! A scheduler and two workers write the bytes that `tdb collate` alone writes, to a folder and to a store.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod common;

use common::{CUT, Site, UNITS, assert_made_once};

fn collate(site: &Site) {
    let _scheduler = site.scheduler("scheduler.log");
    let [one, two] = site.two_workers();
    let (ok, said) = site.collate("dry.log", &format!("{CUT} --dry-run --machines 10")).end();
    assert!(ok && said.contains("16 work units, 0 of them finished") && said.contains("on 10 like it"), "{said}");
    let (ok, said) = site.collate("client.log", CUT).end();
    assert!(ok, "{said}\n{}\n{}", one.log(), two.log());
    for line in
        ["0 of 16 units are there already", "have the same version, model and text", "16 of 16 units", "tokens/s"]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains(&format!("--registry {}/registry.toml", site.out())), "{said}");
    assert_made_once(&[&one, &two]);
    for worker in [&one, &two] {
        assert!(worker.log().contains(" made "), "one did nothing: {}", worker.log());
    }
    site.assert_same();
    // Again: all is found, and the results stay.
    let (ok, said) = site.collate("again.log", CUT).end();
    assert!(ok && said.contains(&format!("{UNITS} of {UNITS} units are there already")), "{said}");
    assert_made_once(&[&one, &two]);
    site.assert_same();
}

#[test]
fn in_a_folder() {
    collate(&Site::new(200));
}

#[test]
fn in_a_store() {
    collate(&Site::new(200).with_store());
}
