//! What the crates are built from: licences, sources and versions as `deny.toml` allows them, nothing that nobody uses,
//! and no crate of ours above its place in `docs/architecture.md`. Of the other workspace, `tdb-cluster`, what it has
//! beside this one's crates is known from its lock file and from a list of licences, so that no test downloads DataFusion.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tdb_tests::repository::{files, root};

/// What `cargo metadata` says.
struct Graph {
    packages: Vec<Value>,
    /// Package id to the ids of what it is built from.
    edges: BTreeMap<String, Vec<String>>,
    members: Vec<String>,
}

impl Graph {
    fn load(policy: &toml::Table) -> Result<Self> {
        let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        command.current_dir(root()).args(["metadata", "--format-version", "1", "--locked"]);
        for target in texts(&policy["graph"]["targets"]) {
            command.args(["--filter-platform", &target]);
        }
        let out = command.output()?;
        ensure!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
        let mut found: Value = serde_json::from_slice(&out.stdout)?;
        let nodes = found["resolve"]["nodes"].as_array().context("resolve.nodes")?;
        let edges = nodes.iter().map(|node| (text(&node["id"]), list(&node["dependencies"]))).collect();
        let members = list(&found["workspace_members"]);
        let Value::Array(packages) = found["packages"].take() else { anyhow::bail!("packages") };
        let packages = packages.into_iter().filter(|p| nodes_have(&edges, p)).collect();
        Ok(Self { packages, edges, members })
    }

    fn is_ours(&self, package: &Value) -> bool {
        self.members.contains(&text(&package["id"]))
    }

    /// Ids of all that our crates are built from, those in `without` aside.
    fn reached(&self, without: &[String]) -> BTreeSet<String> {
        let ours = self.packages.iter().filter(|p| self.is_ours(p) && !without.contains(&text(&p["name"])));
        let mut open: Vec<String> = ours.map(|p| text(&p["id"])).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id.clone()) {
                open.extend(self.edges.get(&id).into_iter().flatten().cloned());
            }
        }
        seen
    }
}

/// The folder of the other workspace.
const OTHER: &str = "crates/tdb-cluster";

/// A crate of a lock file.
struct Locked {
    name: String,
    version: String,
    /// None for one of ours.
    source: Option<String>,
}

/// The crates of a folder's lock file.
fn locked(folder: &str) -> Result<Vec<Locked>> {
    let path = root().join(folder).join("Cargo.lock");
    let lock: toml::Table = fs::read_to_string(&path).with_context(|| path.display().to_string())?.parse()?;
    let of = |package: &toml::Value| {
        let field = |name: &str| Some(package.get(name)?.as_str()?.to_owned());
        Some(Locked { name: field("name")?, version: field("version")?, source: field("source") })
    };
    lock["package"].as_array().into_iter().flatten().map(|p| of(p).context("a package without a name")).collect()
}

/// Those of the other workspace that this one lacks.
fn locked_there_alone() -> Result<Vec<Locked>> {
    let here: BTreeSet<(String, String)> = locked("")?.into_iter().map(|c| (c.name, c.version)).collect();
    let mut there = locked(OTHER)?;
    there.retain(|c| c.source.is_some() && !here.contains(&(c.name.clone(), c.version.clone())));
    Ok(there)
}

/// What a workspace's settings are for a profile, and for crates in it.
fn profile(folder: &str, name: &str) -> Result<([Option<toml::Value>; 2], toml::Table)> {
    let path = root().join(folder).join("Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(&path).with_context(|| path.display().to_string())?.parse()?;
    let profile = manifest["profile"].get(name).with_context(|| format!("{}: no profile {name}", path.display()))?;
    let packages = profile.get("package").and_then(toml::Value::as_table).cloned().unwrap_or_default();
    Ok((["opt-level", "lto"].map(|setting| profile.get(setting).cloned()), packages))
}

fn nodes_have(edges: &BTreeMap<String, Vec<String>>, package: &Value) -> bool {
    edges.contains_key(&text(&package["id"]))
}

fn policy() -> Result<toml::Table> {
    Ok(fs::read_to_string(root().join("deny.toml"))?.parse()?)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// The texts of a TOML list.
fn texts(value: &toml::Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str()).map(str::to_owned).collect()
}

/// The crates that a list of `{ crate = "name@version", reason = "…" }` names.
fn crates(value: Option<&toml::Value>) -> Vec<String> {
    let entries = value.and_then(toml::Value::as_array).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.get("crate")?.as_str()?.to_owned())).collect()
}

#[test]
fn every_licence_is_allowed() -> Result<()> {
    let policy = policy()?;
    let allowed = texts(&policy["licenses"]["allow"]);
    let graph = Graph::load(&policy)?;
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for package in &graph.packages {
        let license = text(&package["license"]);
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        match spdx_accepts(&license, &allowed, &mut used) {
            Ok(true) => {}
            Ok(false) => wrong.push(format!("{name}: {license:?}")),
            Err(error) => wrong.push(format!("{name}: {license:?}: {error}")),
        }
    }
    // The list names the crates that the lock file has, no more and no fewer.
    let list = format!("{OTHER}/licences.txt");
    let text = fs::read_to_string(root().join(&list))?;
    let mut listed = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        let [name, version, license] = [words.next(), words.next(), words.next()].map(Option::unwrap_or_default);
        listed.insert(format!("{name} {version}"));
        match spdx_accepts(license, &allowed, &mut used) {
            Ok(true) => {}
            Ok(false) => wrong.push(format!("{line} ({list})")),
            Err(error) => wrong.push(format!("{line} ({list}): {error}")),
        }
    }
    let there: BTreeSet<String> =
        locked_there_alone()?.iter().map(|found| format!("{} {}", found.name, found.version)).collect();
    let differ: Vec<_> = there.symmetric_difference(&listed).collect();
    ensure!(differ.is_empty(), "{list} and {OTHER}/Cargo.lock have not the same crates: {differ:?}");
    ensure!(wrong.is_empty(), "licences that deny.toml does not allow:\n{}", wrong.join("\n"));
    let idle: Vec<_> = allowed.iter().filter(|license| !used.contains(*license)).collect();
    ensure!(idle.is_empty(), "deny.toml allows licences that no crate has: {idle:?}");
    Ok(())
}

/// Whether some choice that an SPDX expression leaves is made of allowed licences alone; adds those that were met to `used`.
fn spdx_accepts(expression: &str, allowed: &[String], used: &mut BTreeSet<String>) -> Result<bool> {
    let spaced =
        expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ").replace(" WITH ", "\u{a0}WITH\u{a0}");
    let words: Vec<&str> = spaced.split([' ']).filter(|w| !w.is_empty()).collect();
    let mut at = 0;
    let accepted = alternatives(&words, &mut at, allowed, used)?;
    ensure!(at == words.len() && at > 0, "not an SPDX expression");
    Ok(accepted)
}

fn alternatives(words: &[&str], at: &mut usize, allowed: &[String], used: &mut BTreeSet<String>) -> Result<bool> {
    let mut accepted = conjunction(words, at, allowed, used)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        accepted |= conjunction(words, at, allowed, used)?;
    }
    Ok(accepted)
}

fn conjunction(words: &[&str], at: &mut usize, allowed: &[String], used: &mut BTreeSet<String>) -> Result<bool> {
    let mut accepted = license(words, at, allowed, used)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        accepted &= license(words, at, allowed, used)?;
    }
    Ok(accepted)
}

fn license(words: &[&str], at: &mut usize, allowed: &[String], used: &mut BTreeSet<String>) -> Result<bool> {
    let word = *words.get(*at).context("it ends too early")?;
    *at += 1;
    if word == "(" {
        let accepted = alternatives(words, at, allowed, used)?;
        ensure!(words.get(*at) == Some(&")"), "a parenthesis is not closed");
        *at += 1;
        return Ok(accepted);
    }
    let name = word.replace('\u{a0}', " ");
    let known = allowed.contains(&name);
    if known {
        used.insert(name);
    }
    Ok(known)
}

#[test]
fn spdx_expressions_are_understood() -> Result<()> {
    let allowed = ["MIT".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
    let accepts = |expression: &str| spdx_accepts(expression, &allowed, &mut BTreeSet::new());
    for fine in
        ["MIT", "GPL-3.0 OR MIT", "GPL-3.0/MIT", "Apache-2.0 WITH LLVM-exception AND MIT", "(GPL-3.0 OR MIT) AND MIT"]
    {
        assert!(accepts(fine)?, "{fine}");
    }
    for wrong in ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "MIT AND (GPL-3.0 OR ISC)"] {
        assert!(!accepts(wrong)?, "{wrong}");
    }
    assert!(accepts("").is_err() && accepts("MIT OR").is_err() && accepts("(MIT").is_err());
    Ok(())
}

#[test]
fn every_crate_is_ours_or_from_the_registry() -> Result<()> {
    let graph = Graph::load(&policy()?)?;
    for package in &graph.packages {
        let source = text(&package["source"]);
        let name = &package["name"];
        ensure!(graph.is_ours(package) || source.starts_with("registry+"), "{name} comes from {source:?}");
    }
    for Locked { name, source, .. } in locked(OTHER)? {
        let fine = source.as_ref().map_or(name.starts_with("tdb-"), |source| source.starts_with("registry+"));
        ensure!(fine, "{OTHER}: {name} comes from {source:?}");
    }
    Ok(())
}

/// Both must compute the same bytes, and a crate that is fetched for the one need not be fetched again for the other.
#[test]
fn both_workspaces_have_the_same_versions_of_what_both_have() -> Result<()> {
    let versions = |crates: Vec<Locked>| -> BTreeMap<String, BTreeSet<String>> {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for found in crates {
            versions.entry(found.name).or_default().insert(found.version);
        }
        versions
    };
    let (here, there) = (versions(locked("")?), versions(locked(OTHER)?));
    let both: Vec<_> = here.iter().filter_map(|(name, here)| Some((name, here, there.get(name)?))).collect();
    // Where there are several here, tdb-cluster need not have each.
    let differ: Vec<_> = both.iter().filter(|(_, here, there)| here.is_disjoint(there)).collect();
    ensure!(differ.is_empty() && both.len() > 300, "of {} crates, these differ: {differ:?}", both.len());
    Ok(())
}

#[test]
fn a_crate_comes_in_two_versions_only_for_a_reason() -> Result<()> {
    let policy = policy()?;
    let skipped: BTreeSet<String> = crates(policy["bans"].get("skip")).into_iter().collect();
    let trees = crates(policy["bans"].get("skip-tree"));
    let graph = Graph::load(&policy)?;
    let reached = graph.reached(&trees);
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in graph.packages.iter().filter(|p| reached.contains(&text(&p["id"]))) {
        versions.entry(text(&package["name"])).or_default().push(text(&package["version"]));
    }
    // Of the other workspace, those whose versions are not these already.
    let there: BTreeSet<String> = locked_there_alone()?.into_iter().map(|found| found.name).collect();
    let mut versions_there: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for found in locked(OTHER)?.into_iter().filter(|found| there.contains(&found.name)) {
        versions_there.entry(found.name).or_default().push(found.version);
    }
    let mut unneeded = skipped.clone();
    let mut wrong = Vec::new();
    for (name, versions) in versions.iter().chain(&versions_there).filter(|(_, versions)| versions.len() > 1) {
        let (known, other): (Vec<_>, Vec<_>) =
            versions.iter().map(|v| format!("{name}@{v}")).partition(|v| skipped.contains(v));
        known.iter().for_each(|v| {
            unneeded.remove(v);
        });
        if other.len() > 1 {
            wrong.push(other.join(", "));
        }
    }
    ensure!(
        wrong.is_empty(),
        "crates in several versions, without a reason in deny.toml's bans.skip:\n{}",
        wrong.join("\n")
    );
    ensure!(unneeded.is_empty(), "deny.toml's bans.skip has entries that are not needed: {unneeded:?}");
    Ok(())
}

#[test]
fn every_dependency_is_used() -> Result<()> {
    let graph = Graph::load(&policy()?)?;
    let mut wrong = Vec::new();
    let mut in_use = BTreeSet::new();
    for package in graph.packages.iter().filter(|p| graph.is_ours(p)) {
        let manifest = text(&package["manifest_path"]);
        let folder = Path::new(&manifest).parent().context("a manifest without a folder")?;
        let product = source_text(folder, &["src", "build.rs"])?;
        let tests = source_text(folder, &["src", "tests", "examples", "benches"])?;
        let ignored = list(&package["metadata"]["cargo-shear"]["ignored"]);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = text(&dependency["name"]);
            in_use.insert(name.clone());
            let identifier = dependency["rename"].as_str().unwrap_or(&name).replace('-', "_");
            let at = format!("{}: {name}", text(&package["name"]));
            let of_tests = dependency["kind"] == "dev";
            match (mentions(&product, &identifier), mentions(&tests, &identifier), of_tests) {
                _ if ignored.contains(&name) => {}
                (_, true, true) | (true, _, false) => {}
                (_, false, true) | (false, false, false) => wrong.push(format!("{at} is not used")),
                (false, true, false) => {
                    wrong.push(format!("{at} is used by tests alone: it belongs to dev-dependencies"))
                }
            }
        }
    }
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let shared = manifest["workspace"]["dependencies"].as_table().context("workspace.dependencies")?;
    let idle = shared.keys().filter(|name| !in_use.contains(*name));
    wrong.extend(idle.map(|name| format!("workspace.dependencies: {name} is not used")));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The same work takes both the same time: what they share is optimised alike, and only what `tdb-cluster` has alone is not.
#[test]
fn both_workspaces_optimise_alike() -> Result<()> {
    let there: BTreeSet<String> = locked(OTHER)?.into_iter().map(|found| found.name).collect();
    let alone: BTreeSet<String> = locked_there_alone()?.into_iter().map(|found| found.name).collect();
    let of = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
    for name in ["dev", "release"] {
        let (ours, theirs) = (profile("", name)?, profile(OTHER, name)?);
        ensure!(ours.0 == theirs.0, "{name}: opt-level and lto are {:?} here and {:?} in {OTHER}", ours.0, theirs.0);
        let shared = |set: &str| set == "*" || there.contains(&of(set));
        let wrong = ours.1.iter().filter(|(set, how)| shared(set) && theirs.1.get(*set) != Some(*how));
        let wrong: Vec<&String> = wrong.map(|(set, _)| set).collect();
        ensure!(wrong.is_empty(), "{name}: {OTHER}/Cargo.toml sets these otherwise or not at all: {wrong:?}");
        let more = theirs.1.keys().filter(|set| !ours.1.contains_key(*set) && !alone.contains(&of(set)));
        let more: Vec<&String> = more.collect();
        ensure!(more.is_empty(), "{name}: {OTHER}/Cargo.toml alone sets these: {more:?}");
    }
    Ok(())
}

/// The code in files and folders below `folder`, without comments.
fn source_text(folder: &Path, parts: &[&str]) -> Result<String> {
    let mut out = String::new();
    for part in parts.iter().map(|part| folder.join(part)).filter(|path| path.exists()) {
        for file in files(&part)?.iter().filter(|file| file.extension().is_some_and(|e| e == "rs")) {
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            code.for_each(|line| out.extend([line, "\n"]));
        }
    }
    Ok(out)
}

/// Whether an identifier occurs in a text as a whole.
fn mentions(text: &str, identifier: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(identifier).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + identifier.len()..]);
        !before.ends_with(part) && !after.starts_with(part)
    })
}

/// The invariants of `docs/architecture.md` about who may depend on what.
#[test]
fn no_crate_depends_upwards() -> Result<()> {
    let graph = Graph::load(&policy()?)?;
    let ours: BTreeMap<String, Vec<String>> = graph
        .packages
        .iter()
        .filter(|p| graph.is_ours(p))
        .map(|p| {
            let used = p["dependencies"].as_array().into_iter().flatten().filter(|d| d["kind"].is_null());
            (text(&p["name"]), used.map(|d| text(&d["name"])).collect())
        })
        .collect();
    let of = |name: &str| ours.get(name).with_context(|| format!("{name} is no crate of ours any more"));
    let own = |name: &str| -> Result<Vec<&str>> {
        Ok(of(name)?.iter().map(String::as_str).filter(|d| ours.contains_key(*d)).collect())
    };
    ensure!(own("tdb-api")?.is_empty() && own("tdb-model")?.is_empty() && own("tdb-testkit")?.is_empty());
    ensure!(own("tdb-ui")? == ["tdb-api"] && own("tdb-scalars")? == ["tdb-api", "tdb-model"]);
    for (who, what) in ours.iter().flat_map(|(who, used)| used.iter().map(move |what| (who.as_str(), what.as_str()))) {
        let allowed = match what {
            "axum" | "tower-http" => who == "tdb-server",
            "object_store" => who == "tdb-data",
            "tokio" | "reqwest" | "hyper" => {
                !["tdb-api", "tdb-model", "tdb-scalars", "tdb-train", "tdb-ui"].contains(&who)
            }
            _ => true,
        };
        ensure!(allowed, "{who} depends on {what}, which docs/architecture.md forbids");
    }
    Ok(())
}
