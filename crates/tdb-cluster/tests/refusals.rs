//! What cannot become one collation is refused by name before work starts.

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

mod common;

use std::fs;

use ballista_core::serde::protobuf::RegisterExecutorParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use common::{KEY, SETTINGS, Site};
use tdb_testkit::namesakes;
use tonic::transport::Endpoint;

const CUT: &str = "--shards 2";

#[test]
fn a_worker_with_another_model_of_the_same_name() {
    let site = Site::new(20);
    namesakes::write(site.folder()).unwrap();
    let _scheduler = site.scheduler("scheduler.log");
    let worker = site.worker("one.log", "--registry there.toml");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let (ok, said) = site.collate("client.log", &format!("{CUT} --model mine --registry here.toml")).end();
    assert!(!ok && said.contains("worker 127.0.0.1:") && said.contains("fingerprint is"), "{said}\n{}", worker.log());
    assert!(!worker.log().contains(" making "), "work was begun: {}", worker.log());
}

#[test]
fn a_worker_that_comes_later_with_another_model_leaves_the_work_to_others() {
    let site = Site::new(600);
    namesakes::write(site.folder()).unwrap();
    let _scheduler = site.scheduler("scheduler.log");
    let one = site.worker("one.log", "--registry here.toml");
    let client = site.collate("client.log", &format!("{} --model mine --registry here.toml", common::CUT));
    one.wait_for(" made ");
    let two = site.worker("two.log", "--registry there.toml");
    let (ok, log) = two.end();
    assert!(!ok && log.contains("fingerprint is") && log.contains("it leaves the work to others"), "{log}");
    assert!(!log.contains(" making "), "work was begun: {log}");
    let (ok, said) = client.end();
    assert!(ok, "{said}\n{}", one.log());
}

#[test]
fn a_worker_in_which_a_unit_shows_no_sign_of_life_leaves_it_to_others() {
    let site = Site::new(1);
    // One line, which is one document, whose tokens take long to find.
    fs::write(site.folder().join("my.txt"), "word ".repeat(3_000_000)).unwrap();
    let _scheduler = site.scheduler("scheduler.log");
    let worker = site.worker("one.log", "--stuck 1");
    let client = site.collate("client.log", "--shards 1");
    let (ok, log) = worker.end();
    assert!(!ok && log.contains("nothing has come of a unit for 1 s"), "{log}");
    assert!(log.contains("it leaves the work to others"), "{log}");
    // There are none.
    let (ok, said) = client.end();
    assert!(!ok && said.contains("all workers were lost"), "{said}");
}

#[test]
fn a_worker_of_another_version() {
    let site = Site::new(20);
    let _scheduler = site.scheduler("scheduler.log");
    let register = async |agent: &str| {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", site.port)).unwrap();
        let channel = endpoint.user_agent(agent.to_owned()).unwrap().connect().await.unwrap();
        let answer =
            SchedulerGrpcClient::new(channel).register_executor(RegisterExecutorParams { metadata: None }).await;
        answer.unwrap_err().message().to_owned()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let said = runtime.block_on(register("tdb-cluster-worker/0.0.7"));
    assert!(said.contains("tdb-cluster-worker of version 0.0.7; all must be of the same"), "{said}");
    let said = runtime.block_on(register("somebody"));
    assert!(said.contains("no part of tdb-cluster"), "{said}");
    // One of this version comes through to Ballista, which misses what is missing.
    let said = runtime.block_on(register(&format!("tdb-cluster-worker/{}", env!("CARGO_PKG_VERSION"))));
    assert!(said.contains("Missing metadata"), "{said}");
}

#[test]
fn a_worker_that_cannot_write_to_the_store() {
    let site = Site::new(20).with_store();
    let _scheduler = site.scheduler("scheduler.log");
    let worker = site.worker_with("one.log", "", &[(KEY, "bm8gc3VjaCBrZXk=")]);
    let (ok, said) = site.collate("client.log", CUT).end();
    assert!(!ok && said.contains("worker 127.0.0.1:") && said.contains("cannot be written to"), "{said}");
    assert!(!worker.log().contains(" making "), "work was begun: {}", worker.log());
}

#[test]
fn other_texts_duplicates_and_places_that_cannot_be_written_to() {
    let site = Site::new(20);
    let _scheduler = site.scheduler("scheduler.log");
    let worker = site.worker("one.log", "");
    let (ok, said) = site.collate("client.log", CUT).end();
    assert!(ok && said.contains("--registry"), "{said}\n{}", worker.log());

    // A summary that is there twice.
    let summaries = site.folder().join("out/summaries");
    let one = fs::read_dir(&summaries).unwrap().next().unwrap().unwrap().path();
    let copy = summaries.join("copy.summary");
    fs::copy(&one, &copy).unwrap();
    let (ok, said) = site.collate("client-twice.log", CUT).end();
    let both =
        [&one, &copy].iter().all(|path| said.contains(&path.file_name().unwrap().to_string_lossy().into_owned()));
    assert!(!ok && both && said.contains("would be counted twice"), "{said}");
    fs::remove_file(&copy).unwrap();

    // A text that has changed.
    let text = site.folder().join("my.txt");
    let before = fs::read_to_string(&text).unwrap();
    fs::write(&text, before.replace("Mary", "Anna")).unwrap();
    let (ok, said) = site.collate("client-text.log", CUT).end();
    assert!(!ok && said.contains("not of the same collation: content is"), "{said}");
    fs::write(&text, before).unwrap();

    let (ok, said) = site.collate("client-merge.log", "--shards 2 --merge").end();
    assert!(!ok && said.contains("for `tdb collate`"), "{said}");
    let line = format!("collate my.txt --out /proc/nothing {SETTINGS} {CUT}");
    let (ok, said) = site.client("client-nowhere.log", &line).end();
    assert!(!ok && said.contains("/proc/nothing"), "{said}");
    assert_eq!(worker.log().matches(" making ").count(), 2, "work was begun: {}", worker.log());
}

#[test]
fn nobody_at_the_schedulers_address() {
    let site = Site::new(20);
    let (ok, said) = site.collate("client.log", CUT).end();
    assert!(!ok && said.contains("no scheduler answers at 127.0.0.1:"), "{said}");
    let (ok, said) = site.worker("one.log", "--patience 0").end();
    assert!(!ok && said.contains("no scheduler answers at 127.0.0.1:"), "{said}");
}
