//! `licences.txt`, by which the other workspace's tests know what this one is built from, says what the crates say.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn the_list_of_licences_says_what_the_crates_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(folder.join("licences.txt")).unwrap();
    let mut listed = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(' ').unwrap();
        let (version, licence) = rest.split_once(' ').unwrap();
        listed.insert((name.to_owned(), version.to_owned()), licence.to_owned());
    }
    // Those of this machine, which were downloaded to be compiled.
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let about = String::from_utf8(rustc.stdout).unwrap();
    let host = about.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    let output = Command::new(env!("CARGO")).current_dir(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut compared = 0;
    for package in found["packages"].as_array().unwrap() {
        let [name, version, licence] =
            ["name", "version", "license"].map(|key| package[key].as_str().unwrap_or_default().to_owned());
        if let Some(said) = listed.get(&(name.clone(), version.clone())) {
            assert_eq!(*said, licence, "{name} {version}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} of {} crates were found", listed.len());
}
