//! Prints how much faster two workers are than one, and what the cluster costs beside `tdb collate` for the same work:
//! `cargo xtask bench cluster`. No time is asserted.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod common;

use std::fs;
use std::time::Instant;

use common::{CUT, Running, SETTINGS, Site, UNITS};

const DOCUMENTS: usize = 1800;

/// Seconds of a run.
#[derive(Clone, Copy)]
struct Seconds {
    passed: f64,
    /// Those that the processors worked for it, which other work on the machine changes less.
    worked: f64,
}

/// Runs a collation from its beginning to its end. `steps` are what it says when a step of it is over, with the step's
/// name.
fn timed(what: &str, steps: &[(&str, &str)], start: impl FnOnce() -> (Running, Vec<Running>)) -> Seconds {
    let before = children();
    let (collation, others) = start();
    let (begin, mut last, mut said) = (Instant::now(), 0.0, String::new());
    for (step, line) in steps {
        collation.wait_for(line);
        let now = begin.elapsed().as_secs_f64();
        said += &format!("{step} {:.1} s, ", now - last);
        last = now;
    }
    let (ok, log) = collation.end();
    assert!(ok, "{log}");
    let passed = begin.elapsed().as_secs_f64();
    drop(others);
    let worked = children() - before;
    let each = UNITS as f64 / passed;
    println!(
        "{what}: {passed:.1} s ({said}merging {:.1} s), {each:.2} units/s; processors {worked:.1} s",
        passed - last
    );
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
    timed(&format!("tdb collate, threads: {threads}"), &[("units", " work units made, ")], || {
        let line = format!("collate my.txt --out alone-{threads} {SETTINGS} {CUT} --threads {threads}");
        (site.start_tdb(&line, &format!("alone-{threads}.log")), Vec::new())
    })
}

fn cluster(site: &Site, workers: usize) -> Seconds {
    let steps = [("checks", "have the same version, model and text"), ("units", "merging")];
    let seconds = timed(&format!("tdb-cluster, workers of one thread: {workers}"), &steps, || {
        let mut others = vec![site.scheduler("scheduler.log")];
        others.extend((0..workers).map(|i| site.worker(&format!("worker-{i}.log"), "")));
        // Until they are connected.
        std::thread::sleep(std::time::Duration::from_secs(2));
        (site.collate("client.log", CUT), others)
    });
    fs::remove_dir_all(site.folder().join("out")).unwrap();
    seconds
}

#[test]
#[ignore = "prints figures, and checks nothing: cargo xtask bench cluster"]
fn scaling_and_overhead() {
    let site = Site::new(DOCUMENTS);
    println!("{DOCUMENTS} documents, {UNITS} units");
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
