//! Tasks of an array job that are killed, begun twice or do not fit together: the results are the bytes of one run, what
//! was finished is not made again, and what cannot become one collation is refused. `tdb-cluster` has such tests of its
//! own, which take longer to compile than all of these (docs/cluster.md).

#![allow(clippy::unwrap_used)] // a test that cannot go on says where

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tdb_testkit::namesakes;
use tdb_testkit::stores::Azurite;
use tdb_tests::collating::{Container, SETTINGS, Variables, command, done, results, said, tdb, write_text};

const PATIENCE: Duration = Duration::from_secs(120);

/// Two shards, and a unit for each of the four layers.
const CUT: &str = "--layers-at-once 1 --threads 1";
const UNITS: usize = 4;

/// A folder with a text, and where results go: below it, or in a store.
struct Site {
    folder: tempfile::TempDir,
    store: Option<(Azurite, Container)>,
}

impl Site {
    fn in_a_folder(documents: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_text(folder.path(), documents).unwrap();
        Self { folder, store: None }
    }

    fn in_a_store(documents: usize) -> Self {
        let azurite = Azurite::start().unwrap();
        let container = Container::new(&azurite).unwrap();
        Self { store: Some((azurite, container)), ..Self::in_a_folder(documents) }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn out(&self) -> String {
        match &self.store {
            Some(_) => format!("az://{}/{}/out", Azurite::ACCOUNT, Container::NAME),
            None => "out".to_owned(),
        }
    }

    fn variables(&self) -> Variables {
        self.store.iter().flat_map(|(azurite, _)| with_key(azurite, Azurite::KEY)).collect()
    }

    fn line(&self, rest: &str) -> String {
        format!("collate my.txt --out {} {SETTINGS} {CUT} {rest}", self.out())
    }

    fn tdb(&self, rest: &str) -> (bool, String) {
        tdb(self.folder(), &self.variables(), &self.line(rest)).unwrap()
    }

    fn spawn(&self, rest: &str) -> Child {
        let mut command = command("tdb", self.folder(), &self.variables()).unwrap();
        command.args(self.line(rest).split_whitespace()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The names of all files of the results.
    fn names(&self) -> Vec<String> {
        let Some((_, container)) = &self.store else {
            let (mut names, mut open) = (Vec::new(), vec![self.folder().join("out")]);
            while let Some(next) = open.pop() {
                // Parts of files come and go.
                for path in fs::read_dir(next).into_iter().flatten().flatten().map(|entry| entry.path()) {
                    match path.is_dir() {
                        true => open.push(path),
                        false => names.push(path.strip_prefix(self.folder()).unwrap().display().to_string()),
                    }
                }
            }
            return names;
        };
        container.list().unwrap()
    }

    fn content(&self, name: &str) -> Vec<u8> {
        match &self.store {
            Some((_, container)) => container.get(name).unwrap(),
            None => fs::read(self.folder().join(name)).unwrap(),
        }
    }

    /// The summaries of a shard, by name.
    fn finished(&self, shard: usize) -> BTreeMap<String, Vec<u8>> {
        let start = format!("out/summaries/shard-{shard:05}-");
        let names = self.names().into_iter().filter(|name| name.starts_with(&start) && name.ends_with(".summary"));
        names.map(|name| (name.clone(), self.content(&name))).collect()
    }

    /// The summaries of a shard after its task was killed: what it had sent whole, a store still writes down.
    fn left(&self, shard: usize) -> BTreeMap<String, Vec<u8>> {
        loop {
            let before = self.finished(shard);
            if self.store.is_none() {
                return before;
            }
            std::thread::sleep(Duration::from_secs(1));
            if self.finished(shard).len() == before.len() {
                return before;
            }
        }
    }
}

fn with_key(azurite: &Azurite, key: &str) -> Variables {
    vec![("AZURE_STORAGE_ENDPOINT", azurite.endpoint()), ("AZURE_STORAGE_ACCOUNT_KEY", key.to_owned())]
}

/// Sends SIGKILL when something is reached.
fn kill_when(task: &mut Child, what: &str, reached: impl Fn() -> bool) {
    let begin = Instant::now();
    while !reached() {
        assert!(task.try_wait().unwrap().is_none(), "it ended before {what}");
        assert!(begin.elapsed() < PATIENCE, "it never came to {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    task.kill().unwrap();
    assert!(!task.wait().unwrap().success(), "it ended before it was killed");
}

/// How many units a task says that it made and found.
fn counts(task: Child) -> (usize, usize) {
    let (ok, text) = said(task.wait_with_output().unwrap());
    assert!(ok, "{text}");
    let line = text.lines().find(|line| line.contains(" work units made, ")).unwrap().to_owned();
    let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

fn killed_and_begun_again(site: &Site) {
    done(site.folder(), &Vec::new(), &format!("collate my.txt --out alone {SETTINGS}")).unwrap();
    let (ok, text) = site.tdb("--shards 2 --dry-run --machines 2");
    assert!(ok && text.contains("8 work units, 0 of them finished") && text.contains("on 2 like it"), "{text}");

    // One of two tasks is killed while it makes its second unit.
    let [mut task, other] = [0, 1].map(|shard| site.spawn(&format!("--shard {shard}/2")));
    kill_when(&mut task, "a unit", || !site.finished(0).is_empty());
    assert_eq!(counts(other), (UNITS, 0));
    let before = site.left(0);
    assert!((1..UNITS).contains(&before.len()), "it was not killed within a unit: {:?}", before.keys());
    let (ok, text) = site.tdb("--shards 2 --merge");
    assert!(!ok && text.contains("these shards are missing: 0/2"), "{text}");

    // It is begun again, twice at once. Each makes what is missing, and of twins one stays.
    let twins = [0, 1].map(|_| site.spawn("--shard 0/2")).map(counts);
    println!("of {UNITS} units {} were finished when it was killed; twins made {twins:?}", before.len());
    assert!(twins.iter().all(|(made, found)| made + found == UNITS && *found >= before.len()), "{twins:?}");
    assert_eq!(twins[0].0 + twins[1].0, UNITS - before.len(), "{twins:?}");
    let after = site.finished(0);
    assert!(after.len() == UNITS && before.iter().all(|(name, content)| after[name] == *content));

    // The merge is killed when it has written a part.
    let mut merge = site.spawn("--shards 2 --merge");
    kill_when(&mut merge, "records", || site.names().iter().any(|name| name.ends_with(".records")));
    assert!(!site.names().contains(&"out/registry.toml".to_owned()), "the kill came too late to show anything");
    let (ok, text) = site.tdb("--shards 2 --merge");
    assert!(ok, "{text}");
    let alone = results(&site.folder().join("alone")).unwrap();
    let mut names: Vec<String> = alone.iter().map(|(name, _)| format!("out/{name}")).collect();
    alone.iter().for_each(|(name, content)| assert!(site.content(&format!("out/{name}")) == *content, "{name}"));
    names.extend([0, 1].iter().flat_map(|shard| site.finished(*shard).into_keys()));
    let others: Vec<_> = site.names().into_iter().filter(|name| !names.contains(name)).collect();
    assert!(others.is_empty(), "something was left behind: {others:?}");

    // A summary that is there twice.
    let (unit, content) = site.finished(1).pop_first().unwrap();
    match &site.store {
        Some((azurite, _)) => azurite.put(Container::NAME, "out/summaries/copy.summary", &content).unwrap(),
        None => fs::write(site.folder().join("out/summaries/copy.summary"), &content).unwrap(),
    }
    for rest in ["--shards 2 --merge", "--shard 0/2"] {
        let (ok, text) = site.tdb(rest);
        let both = [unit.rsplit('/').next().unwrap(), "copy.summary"].iter().all(|name| text.contains(name));
        assert!(!ok && both && text.contains("which would be counted twice"), "{text}");
    }
}

#[test]
fn tasks_are_killed_and_begun_again_in_a_folder() {
    killed_and_begun_again(&Site::in_a_folder(240));
}

#[test]
fn tasks_are_killed_and_begun_again_in_a_store() {
    killed_and_begun_again(&Site::in_a_store(240));
}

#[test]
fn a_store_with_a_wrong_key_and_a_folder_that_cannot_be_made_are_refused_before_anything_is_computed() {
    let site = Site::in_a_store(20);
    let (azurite, _) = site.store.as_ref().unwrap();
    let (ok, text) = tdb(site.folder(), &with_key(azurite, "bm8gc3VjaCBrZXk="), &site.line("--shard 0/2")).unwrap();
    assert!(!ok && text.contains("/out cannot be written to"), "{text}");
    assert!(!text.contains("shard 0 of 2"), "work was begun: {text}");
    let line = format!("collate my.txt --out /proc/nothing {SETTINGS} --shard 0/2");
    let (ok, text) = tdb(site.folder(), &Vec::new(), &line).unwrap();
    assert!(!ok && text.contains("/proc/nothing"), "{text}");
    assert!(!text.contains("shard 0 of 2"), "work was begun: {text}");
}

#[test]
fn a_task_with_another_model_of_the_same_name_is_refused() {
    let site = Site::in_a_folder(20);
    namesakes::write(site.folder()).unwrap();
    let (ok, text) = site.tdb("--model mine --registry here.toml --shard 0/2");
    assert!(ok, "{text}");
    let (ok, text) = site.tdb("--model mine --registry there.toml --shard 1/2");
    let unit = site.finished(0).into_keys().next().unwrap();
    assert!(!ok && text.contains("not of the same collation: fingerprint is"), "{text}");
    assert!(text.contains(unit.rsplit('/').next().unwrap()), "{text}");
    assert!(site.finished(1).is_empty(), "work was begun");
}

/// Each finds an empty folder when it begins.
#[test]
fn two_collations_that_begin_at_once_in_one_folder_are_not_mixed() {
    let site = Site::in_a_folder(120);
    let tasks = ["--k 5", "--k 6"].map(|k| {
        let mut command = command("tdb", site.folder(), &Vec::new()).unwrap();
        let line = format!("collate my.txt --out out --random 4 --tokens 20 {CUT} {k} --shard 0/2");
        command.args(line.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let ended = tasks.map(|task| said(task.wait_with_output().unwrap()));
    let refused: Vec<&String> = ended.iter().filter(|(ok, _)| !ok).map(|(_, text)| text).collect();
    assert!(!refused.is_empty(), "{ended:?}");
    for text in refused {
        assert!(text.contains("not of the same collation: sizes is"), "{text}");
    }
    let units = site.finished(0).len();
    assert!(units <= UNITS + 1, "{units} units were made in one folder: {ended:?}");
}

#[test]
fn a_text_that_is_changed_while_it_is_collated_is_told() {
    let site = Site::in_a_folder(240);
    let task = site.spawn("--shard 0/2");
    let begin = Instant::now();
    while site.finished(0).is_empty() {
        assert!(begin.elapsed() < PATIENCE, "no unit was made");
        std::thread::sleep(Duration::from_millis(2));
    }
    // The same length, and another date.
    let path = site.folder().join("my.txt");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("Mary", "Anna")).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() + PATIENCE).unwrap();
    let (ok, said) = said(task.wait_with_output().unwrap());
    assert!(!ok && said.contains("my.txt: was changed while it was collated"), "{said}");
    assert!(site.finished(0).len() < UNITS);
}
