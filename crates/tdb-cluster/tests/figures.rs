//! Prints how much faster two workers are than one, and what the cluster costs beside `tdb collate` for the same work:
//! `cargo test --manifest-path crates/tdb-cluster/Cargo.toml --test figures -- --nocapture`. No time is asserted.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod common;

use std::time::Instant;

use common::{CUT, SETTINGS, Site, UNITS};

const DOCUMENTS: usize = 12_000;

#[test]
fn scaling_and_overhead() {
    let site = Site::new(DOCUMENTS);
    let timed = |what: &str, run: &dyn Fn()| {
        let begin = Instant::now();
        run();
        let seconds = begin.elapsed().as_secs_f64();
        println!("{what}: {seconds:.1} s, {:.2} units/s", UNITS as f64 / seconds);
        seconds
    };
    let alone = |threads: usize| {
        let output = site.tdb(&format!("collate my.txt --out alone-{threads} {SETTINGS} {CUT} --threads {threads}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let cluster = |workers: usize| {
        let _scheduler = site.scheduler("scheduler.log");
        let _workers: Vec<_> = (0..workers).map(|i| site.worker(&format!("worker-{i}.log"), "")).collect();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let seconds = timed(&format!("{workers} workers of one thread"), &|| {
            let (ok, said) = site.collate("client.log", CUT).end();
            assert!(ok, "{said}");
        });
        std::fs::remove_dir_all(site.folder().join("out")).unwrap();
        seconds
    };
    let [alone_one, alone_two] = [1, 2].map(|n| timed(&format!("tdb collate, {n} threads"), &|| alone(n)));
    let [one, two] = [1, 2].map(cluster);
    println!("scaling from one worker to two: {:.2}", one / two);
    println!(
        "overhead: {:.1} % with one, {:.1} % with two",
        100.0 * (one / alone_one - 1.0),
        100.0 * (two / alone_two - 1.0)
    );
}
