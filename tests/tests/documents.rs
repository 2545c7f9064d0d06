//! What the documents refer to is there: files, headings in them, and the commands that they tell to type.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tdb_tests::repository::{files, root};

/// A document's path below the root, and its text.
fn documents() -> Result<Vec<(String, String)>> {
    let all = files(&root())?;
    let documents = all.iter().filter(|path| path.extension().is_some_and(|e| e == "md"));
    documents
        .map(|path| {
            let name = path.strip_prefix(root())?.to_string_lossy().into_owned();
            Ok((name, fs::read_to_string(path).with_context(|| path.display().to_string())?))
        })
        .collect()
}

/// The lines outside fenced code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !fence && !in_code
    })
}

/// What stands between `open` and `close`, every time.
fn between<'a>(text: &'a str, open: &'a str, close: char) -> impl Iterator<Item = &'a str> {
    text.split(open).skip(1).filter_map(move |rest| Some(rest.split_once(close)?.0))
}

/// A heading's name in a link, as forges make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    prose(text).filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// What is wrong with a link of a document, if something is.
fn problem(document: &str, link: &str) -> Option<String> {
    let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
    let folder = Path::new(document).parent().unwrap_or(Path::new(""));
    let target = if path.is_empty() { root().join(document) } else { root().join(folder).join(path) };
    if !target.exists() {
        return Some(format!("{document} links to {path}, which is not there"));
    }
    let heading = heading.filter(|_| target.extension().is_some_and(|e| e == "md"))?;
    let known = anchors(&fs::read_to_string(&target).unwrap_or_default());
    (!known.contains(heading)).then(|| format!("{document} links to {link}, which has no such heading"))
}

#[test]
fn links_lead_to_files_and_headings() -> Result<()> {
    let mut wrong = Vec::new();
    let mut followed = 0;
    for (document, text) in documents()? {
        for link in prose(&text).flat_map(|line| between(line, "](", ')')) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            wrong.extend(problem(&document, link));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(followed > 15, "only {followed} links were found");
    Ok(())
}

#[test]
fn paths_that_documents_name_are_there() -> Result<()> {
    const TOP: [&str; 7] = ["crates/", "datasets/", "docs/", "packaging/", "tests/", "xtask/", ".github/"];
    let mut wrong = Vec::new();
    for (document, text) in documents()? {
        for name in prose(&text).flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let path = name.split_once("::").map_or(name, |(path, _)| path);
            let fixed = TOP.iter().any(|top| path.starts_with(top)) && !path.contains(['{', '<', '*', ' ', '…']);
            // The pages are built, not written.
            let built = path.starts_with("crates/tdb-ui/dist");
            if fixed && !built && !root().join(path).exists() {
                wrong.push(format!("{document} names {path}, which is not there"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn commands_that_documents_tell_to_type_exist() -> Result<()> {
    let help = fs::read_to_string(root().join("xtask/src/main.rs"))?;
    let mut wrong = Vec::new();
    for (document, text) in documents()? {
        for rest in text.split("cargo xtask ").skip(1) {
            let command: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            if !help.contains(&format!("\"{command}\" => "))
                && !help.contains(&format!("\"{command}\" | "))
                && command != "help"
            {
                wrong.push(format!("{document} tells to type `cargo xtask {command}`, which is no command"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn headings_become_anchors_as_forges_make_them() {
    assert_eq!(anchor(" Explanations without a language model"), "explanations-without-a-language-model");
    assert_eq!(anchor("What `tdb` needs, and why?"), "what-tdb-needs-and-why");
}
