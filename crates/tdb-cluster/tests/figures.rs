//! Prints how much faster two workers are than one, and what the cluster costs beside `tdb collate` for the same work:
//! `(cd crates/tdb-cluster && cargo test --test figures -- --nocapture)`. No time is asserted.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{CUT, SETTINGS, Site, UNITS};

const DOCUMENTS: usize = 600;

/// Seconds of a run: those that passed, and those that the processors worked for it, which other work on the machine
/// changes less.
#[derive(Clone, Copy)]
struct Seconds {
    passed: f64,
    worked: f64,
}

fn timed(what: &str, run: impl FnOnce() -> Duration) -> Seconds {
    let before = children();
    let passed = run().as_secs_f64();
    let worked = children() - before;
    println!("{what}: {passed:.1} s, {:.2} units/s; processor {worked:.1} s", UNITS as f64 / passed);
    Seconds { passed, worked }
}

/// Seconds that the processors worked for processes that this one started and that have ended; 0 where Linux's table of
/// processes is not there.
fn children() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: the 14th and 15th, in hundredths.
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(13).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn alone(site: &Site, threads: usize) -> Seconds {
    timed(&format!("tdb collate, {threads} threads"), || {
        let begin = Instant::now();
        let output = site.tdb(&format!("collate my.txt --out alone-{threads} {SETTINGS} {CUT} --threads {threads}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        begin.elapsed()
    })
}

fn cluster(site: &Site, workers: usize) -> Seconds {
    timed(&format!("{workers} workers of one thread"), || {
        let _scheduler = site.scheduler("scheduler.log");
        let _workers: Vec<_> = (0..workers).map(|i| site.worker(&format!("worker-{i}.log"), "")).collect();
        std::thread::sleep(Duration::from_secs(2));
        let begin = Instant::now();
        let (ok, said) = site.collate("client.log", CUT).end();
        assert!(ok, "{said}");
        fs::remove_dir_all(site.folder().join("out")).unwrap();
        begin.elapsed()
    })
}

#[test]
fn scaling_and_overhead() {
    let site = Site::new(DOCUMENTS);
    let [alone_one, alone_two] = [1, 2].map(|threads| alone(&site, threads));
    let [one, two] = [1, 2].map(|workers| cluster(&site, workers));
    println!("from one worker to two: {:.2} times the units/s", one.passed / two.passed);
    for (what, cluster, alone) in [("one worker", one, alone_one), ("two workers", two, alone_two)] {
        let percent = |a: f64, b: f64| 100.0 * (a / b - 1.0);
        println!(
            "overhead with {what}: {:.1} % of the time, {:.1} % of the processors' work",
            percent(cluster.passed, alone.passed),
            percent(cluster.worked, alone.worked)
        );
    }
}
