//! Recorded answers of the reference, replayed against `tdb serve`.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::path::PathBuf;

use tdb_testkit::golden::replay::{Differences, Options};
use tdb_testkit::oracle::Oracle;
use tdb_testkit::server;
use tdb_tests::serving::root;

fn replay(goldens: PathBuf, records: Option<PathBuf>, at_least: usize) {
    let oracle =
        Oracle { goldens, records, binary: server::binary().unwrap(), work: root().join("target/oracle-weights") };
    let differences = Differences::load(&root().join("tests/differences.txt")).unwrap();
    let options = Options { differences, ..Options::default() };
    let mut lines = Vec::new();
    let total = oracle.replay(&options, |_, _| true, |line| lines.push(line.to_owned())).unwrap();
    println!("{}\n{total}", lines.join("\n"));
    assert_eq!(total.failed, 0, "{}", lines.join("\n"));
    assert!(total.with_data_passed >= at_least, "only {} cases with data passed", total.with_data_passed);
}

#[test]
fn the_committed_cases_pass() {
    replay(root().join("tests/fixtures/goldens"), None, 40);
}

#[test]
fn all_cases_pass_where_the_oracle_is() {
    let oracle = std::env::var_os("TDB_ORACLE").map_or_else(|| root().join("../shared/oracle"), PathBuf::from);
    if oracle.is_dir() {
        replay(oracle.join("goldens"), oracle.join("records").canonicalize().ok(), 1000);
    }
}
