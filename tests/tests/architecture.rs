//! The invariants of `docs/architecture.md` that the sources show by themselves.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tdb_tests::repository::{files, root};

/// Every crate and the ones of ours that it may depend on.
const CRATES: [(&str, &[&str]); 11] = [
    ("tdb-api", &[]),
    ("tdb-model", &[]),
    ("tdb-testkit", &[]),
    ("tdb-ui", &["tdb-api"]),
    ("tdb-scalars", &["tdb-api", "tdb-model"]),
    ("tdb-data", &["tdb-api"]),
    ("tdb-explain", &["tdb-data"]),
    ("tdb-collate", &["tdb-data", "tdb-model"]),
    ("tdb-train", &["tdb-data", "tdb-model"]),
    ("tdb-server", &["tdb-api", "tdb-collate", "tdb-data", "tdb-explain", "tdb-model", "tdb-scalars", "tdb-train"]),
    ("tdb-cluster", &["tdb-collate", "tdb-data", "tdb-model", "tdb-server"]),
];

/// A library, and the crates that may depend on it.
const LIBRARIES: [(&str, &[&str]); 5] = [
    ("axum", &["tdb-server", "tdb-cluster"]),
    ("object_store", &["tdb-data"]),
    ("leptos", &["tdb-ui"]),
    ("tokio", &["tdb-data", "tdb-explain", "tdb-server", "tdb-cluster", "tdb-testkit"]),
    ("ballista-core", &["tdb-cluster"]),
];

/// The crates with the names in their `[dependencies]`: not in those of tests or of one platform.
fn manifests() -> Result<Vec<(String, BTreeSet<String>)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(root().join("crates"))? {
        let folder = entry?.path();
        let Ok(text) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let manifest: toml::Table = text.parse().with_context(|| folder.display().to_string())?;
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        let names = dependencies.into_iter().flat_map(toml::Table::keys).cloned().collect();
        all.push((folder.file_name().unwrap_or_default().to_string_lossy().into_owned(), names));
    }
    ensure!(all.len() > 5, "only {} crates were found", all.len());
    Ok(all)
}

/// The lines of code below a folder of `crates` that contain one of `words`; without the files `but`.
fn lines_with(folder: &str, but: &[&str], words: &[&str]) -> Result<Vec<String>> {
    let root = root().join("crates").join(folder);
    let sources: Vec<PathBuf> =
        files(&root)?.into_iter().filter(|f| f.extension().is_some_and(|e| e == "rs")).collect();
    ensure!(!sources.is_empty(), "{folder} has no sources");
    let mut found = Vec::new();
    for path in sources {
        let name = path.strip_prefix(&root)?.to_string_lossy().into_owned();
        if but.contains(&name.as_str()) {
            continue;
        }
        for (i, line) in fs::read_to_string(&path)?.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{folder}/{name}:{}: {}", i + 1, line.trim()));
            }
        }
    }
    Ok(found)
}

fn ensure_none(found: &[String]) -> Result<()> {
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

#[test]
fn crates_depend_on_those_below_them_alone() -> Result<()> {
    for (name, found) in manifests()? {
        let allowed = CRATES.iter().find(|(n, _)| *n == name);
        let (_, allowed) = allowed.with_context(|| format!("{name} is not in the table of crates above"))?;
        for ours in found.iter().filter(|d| d.starts_with("tdb-")) {
            ensure!(allowed.contains(&ours.as_str()), "{name} depends on {ours}");
        }
    }
    Ok(())
}

#[test]
fn each_outer_library_has_its_place() -> Result<()> {
    for (name, found) in manifests()? {
        for (library, places) in LIBRARIES {
            ensure!(!found.contains(library) || places.contains(&name.as_str()), "{name} depends on {library}");
        }
    }
    Ok(())
}

#[test]
fn model_and_scalars_are_not_async() -> Result<()> {
    for folder in ["tdb-model/src", "tdb-scalars/src", "tdb-api/src"] {
        ensure_none(&lines_with(folder, &[], &["async fn", "async move", ".await"])?)?;
    }
    Ok(())
}

#[test]
fn pages_read_no_untyped_json() -> Result<()> {
    let words = ["serde_json::Value", "use serde_json::", "json!"];
    ensure_none(&lines_with("tdb-ui/src", &["json.rs", "ui/json.rs"], &words)?)
}

#[test]
fn pages_talk_to_the_server_in_one_module() -> Result<()> {
    let words = ["fetch_with", "XmlHttpRequest", "WebSocket", "EventSource"];
    ensure_none(&lines_with("tdb-ui/src", &["client.rs"], &words)?)
}

#[test]
fn only_the_error_module_makes_statuses_of_errors() -> Result<()> {
    let words = ["StatusCode::BAD", "StatusCode::INTERNAL", "StatusCode::UNPROCESSABLE"];
    ensure_none(&lines_with("tdb-server/src", &["error.rs"], &words)?)
}

/// What rustfmt does not break: comments, strings, macros and, above all, views.
#[test]
fn lines_have_at_most_120_columns() -> Result<()> {
    let (mut lines, mut long) = (0, Vec::new());
    for folder in ["tdb-api/src", "tdb-server/src", "tdb-ui/src"] {
        let root = root().join("crates").join(folder);
        for path in files(&root)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
            for (i, line) in fs::read_to_string(&path)?.lines().enumerate() {
                lines += 1;
                if line.chars().count() > 120 {
                    long.push(format!("{}:{} has {} columns", path.display(), i + 1, line.chars().count()));
                }
            }
        }
    }
    ensure!(lines > 10_000, "only {lines} lines were found");
    ensure_none(&long)
}

#[test]
fn only_the_tokens_of_the_design_have_colours() -> Result<()> {
    let root = root().join("crates/tdb-ui/static");
    let hex = |text: &str| {
        let digits = text.chars().take_while(char::is_ascii_hexdigit).count();
        matches!(digits, 3 | 4 | 6 | 8) && !text[digits..].starts_with(|c: char| c.is_alphanumeric() || c == '-')
    };
    let has_colour =
        |line: &str| line.split('#').skip(1).any(hex) || ["rgb", "hsl", "oklch"].iter().any(|name| line.contains(name));
    let lines = |name: &str| -> Result<Vec<String>> {
        Ok(fs::read_to_string(root.join(name))?.lines().map(str::to_owned).collect())
    };
    ensure!(lines("tokens.css")?.iter().any(|line| has_colour(line)), "no colour is recognised");
    for name in ["base.css", "pages.css"] {
        let found: Vec<_> = lines(name)?.into_iter().filter(|line| has_colour(line)).collect();
        ensure_none(&found)?;
    }
    Ok(())
}

/// The framework's signals are compiled anew for each type of value; those of the pages' `signals.rs` hold one type.
#[test]
fn the_pages_follow_values_by_their_own_signals() -> Result<()> {
    let root = root().join("crates/tdb-ui/src");
    let mut users = 0;
    for path in files(&root)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        let name = path.strip_prefix(&root)?.to_string_lossy().into_owned();
        if name == "signals.rs" {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        let words: BTreeSet<&str> = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        let imports = code.split("use crate::signals::").nth(1).and_then(|rest| rest.split(';').next());
        let imports: BTreeSet<&str> = imports.unwrap_or_default().split(['{', '}', ',', ' ']).collect();
        for signal in ["RwSignal", "Memo", "Signal"].into_iter().filter(|signal| words.contains(signal)) {
            ensure!(imports.contains(signal), "{name} uses {signal} without importing crate::signals::{signal}");
            users += 1;
        }
        for signal in ["ReadSignal", "ArcRwSignal", "ArcMemo", "ArcSignal"] {
            ensure!(!words.contains(signal), "{name} uses the framework's {signal}");
        }
    }
    ensure!(users > 30, "only {users} uses were found");
    Ok(())
}

/// Where files of tests are modules of one program, a file that none of its modules names would never run.
#[test]
fn every_file_of_tests_runs() -> Result<()> {
    let root = root();
    let mut packages: Vec<PathBuf> = vec![root.join("tests")];
    for entry in fs::read_dir(root.join("crates"))? {
        packages.push(entry?.path());
    }
    let (mut merged, mut forgotten) = (0, Vec::new());
    for package in packages {
        let Ok(text) = fs::read_to_string(package.join("Cargo.toml")) else { continue };
        let manifest: toml::Table = text.parse().with_context(|| package.display().to_string())?;
        let autotests = manifest.get("package").and_then(|p| p.get("autotests")).and_then(toml::Value::as_bool);
        if autotests != Some(false) {
            continue;
        }
        merged += 1;
        let programs = manifest.get("test").and_then(toml::Value::as_array);
        let programs = programs.into_iter().flatten().filter_map(|test| test.get("name")?.as_str());
        let mut named: BTreeSet<String> = BTreeSet::new();
        for program in programs {
            let text = fs::read_to_string(package.join("tests").join(format!("{program}.rs")))?;
            let modules = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
            named.extend(modules.map(str::to_owned));
            named.insert(program.to_owned());
        }
        for entry in fs::read_dir(package.join("tests"))? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|e| e == "rs") && !named.contains(&name) {
                forgotten.push(path.display().to_string());
            }
        }
    }
    ensure!(merged > 4, "only {merged} crates have their tests in one program");
    ensure!(forgotten.is_empty(), "in no program of tests: {}", forgotten.join(", "));
    Ok(())
}
