//! Processes are killed, and the results are the bytes of `tdb collate` alone.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod common;

use std::time::{Duration, Instant};

use common::{CUT, Running, Site, UNITS, assert_made_once, made};

/// Each unit takes about a second on one thread.
const DOCUMENTS: usize = 600;

fn count(worker: &Running, what: &str) -> usize {
    worker.log().matches(what).count()
}

#[test]
fn a_worker_is_killed_while_it_makes_a_unit() {
    let site = Site::new(DOCUMENTS);
    let _scheduler = site.scheduler("scheduler.log");
    let [mut one, two] = site.two_workers();
    let client = site.collate("client.log", CUT);
    common::wait_until("the second unit", || {
        count(&one, " making ") > count(&one, " made ") && count(&one, " made ") > 0
    });
    std::thread::sleep(Duration::from_millis(100));
    one.kill();
    let lost = count(&one, " making ") - count(&one, " made ");
    assert_eq!(lost, 1, "it was not killed within a unit: {}", one.log());
    let (ok, said) = client.end();
    assert!(ok, "{said}\n{}", two.log());
    assert_made_once(&[&one, &two]);
    println!("killed a worker in a unit: {lost} unit of {UNITS} was begun again");
    site.assert_same();
}

#[test]
fn a_worker_is_killed_after_the_first_stage() {
    let site = Site::new(DOCUMENTS / 2).with_store();
    let _scheduler = site.scheduler("scheduler.log");
    let [mut one, mut two] = site.two_workers();
    let client = site.collate("client.log", CUT);
    let merging = |worker: &Running| count(worker, " merging ") > 0;
    common::wait_until("merging", || merging(&one) || merging(&two));
    assert_eq!(made(&[&one, &two]).len(), UNITS);
    let killed = if merging(&one) { &mut one } else { &mut two };
    killed.kill();
    let (ok, said) = client.end();
    assert!(ok, "{said}");
    assert_made_once(&[&one, &two]);
    println!("killed a worker after the first stage: 0 units were made again");
    site.assert_same();
}

#[test]
fn the_scheduler_is_killed_and_the_job_is_submitted_again() {
    let site = Site::new(DOCUMENTS).with_store();
    let mut scheduler = site.scheduler("scheduler.log");
    let [one, two] = site.two_workers();
    let client = site.collate("client.log", CUT);
    common::wait_until("five units", || made(&[&one, &two]).len() >= 5);
    scheduler.kill();
    let (ok, said) = client.end();
    assert!(!ok && said.contains("went away; start it again") && said.contains("the same command goes on"), "{said}");
    let _scheduler = site.scheduler("scheduler-again.log");
    // The workers find it by themselves.
    let (ok, said) = site.collate("client-again.log", CUT).end();
    assert!(ok, "{said}\n{}", one.log());
    assert_made_once(&[&one, &two]);
    println!("killed the scheduler: 0 finished units were made again");
    site.assert_same();
}

#[test]
fn all_workers_are_killed() {
    let site = Site::new(DOCUMENTS);
    let _scheduler = site.scheduler("scheduler.log");
    let [mut one, mut two] = site.two_workers();
    let client = site.collate("client.log", CUT);
    common::wait_until("a unit", || !made(&[&one, &two]).is_empty());
    one.kill();
    two.kill();
    let begin = Instant::now();
    let (ok, said) = client.end();
    println!("killed all workers: an error after {:.1} s", begin.elapsed().as_secs_f64());
    assert!(!ok && said.contains("all workers were lost") && said.contains("the same command goes on"), "{said}");
    // And with nobody to do it, a job is not taken.
    let (ok, said) = site.collate("client-again.log", CUT).end();
    assert!(!ok && said.contains("no worker is connected to this scheduler"), "{said}");
}

#[test]
fn a_job_is_cancelled_and_goes_on_later() {
    let site = Site::new(DOCUMENTS);
    let _scheduler = site.scheduler("scheduler.log");
    let [one, two] = site.two_workers();
    let client = site.collate("client.log", CUT);
    common::wait_until("a unit", || !made(&[&one, &two]).is_empty());
    client.interrupt();
    let (ok, said) = client.end();
    assert!(!ok && said.contains("cancelled; ") && said.contains("the same command goes on"), "{said}");
    // Soon nobody works on it any longer.
    common::wait_until("rest", || {
        let before = made(&[&one, &two]).len();
        std::thread::sleep(Duration::from_secs(2));
        made(&[&one, &two]).len() == before
    });
    assert!(made(&[&one, &two]).len() < UNITS, "the work went on");
    let (ok, said) = site.collate("client-again.log", CUT).end();
    assert!(ok && said.contains(&format!("of {UNITS} units are there already")), "{said}");
    assert_made_once(&[&one, &two]);
    site.assert_same();
}
