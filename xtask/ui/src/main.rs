//! `xtask-ui MODULE.wasm STATIC-FOLDER DIST-FOLDER full|plain`: makes the folder that the server embeds.
//!
//! The module gets its JavaScript, every file but `index.html` gets a name with a hash of its content (so that it may
//! be cached for ever), the references to it are adapted, and `full` drops comments, shortens names and writes `.br`
//! and `.gz` beside each file.

mod imports;
mod order;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use brotli::enc::backward_references::BrotliEncoderMode;
use wasm_bindgen_cli_support::Bindgen;

/// File name to content.
type Files = BTreeMap<String, Vec<u8>>;

const PAGE: &str = "index.html";
/// What the page calls the module: `/tdb_ui.js` and `/tdb_ui_bg.wasm`.
const MODULE: &str = "tdb_ui";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [module, assets, dist, mode] = args.as_slice() else {
        bail!("xtask-ui MODULE.wasm STATIC-FOLDER DIST-FOLDER full|plain");
    };
    let compress = match mode.as_str() {
        "full" => true,
        "plain" => false,
        other => bail!("{other}: neither full nor plain"),
    };
    let mut files = read_folder(Path::new(assets))?;
    files.extend(bind(Path::new(module), !compress)?);
    if compress {
        for (name, content) in &mut files {
            if name.ends_with(".js") || name.ends_with(".css") {
                *content = without_comments(&String::from_utf8_lossy(content)).into_bytes();
            }
        }
        shorten_imports(&mut files)?;
        let module = format!("{MODULE}_bg.wasm");
        let ordered = order::ordered(files.get(&module).with_context(|| format!("{module} was not made"))?)?;
        files.insert(module, ordered);
    }
    let mut files = with_hashed_names(files)?;
    if compress {
        files.extend(compressed(&files)?);
    }
    write(&files, Path::new(dist))
}

fn read_folder(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(path.is_file(), "{}: only files belong here", path.display());
        files.insert(name, fs::read(&path).with_context(|| format!("{}", path.display()))?);
    }
    Ok(files)
}

/// The module as browsers load it, and its JavaScript.
fn bind(module: &Path, debug: bool) -> Result<Files> {
    let out = module.with_extension("bound");
    let _ = fs::remove_dir_all(&out);
    Bindgen::new()
        .input_path(module)
        .out_name(MODULE)
        .web(true)?
        .typescript(false)
        .debug(debug)
        .keep_debug(debug)
        .remove_name_section(!debug)
        .generate(&out)
        .with_context(|| format!("{}", module.display()))?;
    let mut files = Files::new();
    collect(&out, &out, &mut files)?;
    fs::remove_dir_all(&out)?;
    Ok(files)
}

/// Gives module and script short names for each other's parts.
fn shorten_imports(files: &mut Files) -> Result<()> {
    let (module, script) = (format!("{MODULE}_bg.wasm"), format!("{MODULE}.js"));
    let of = |name: &str| files.get(name).with_context(|| format!("{name} was not made"));
    let short = imports::shorten(of(&module)?, &String::from_utf8_lossy(of(&script)?))?;
    files.insert(module, short.0);
    files.insert(script, short.1.into_bytes());
    Ok(())
}

/// All files below `folder`, named from `root`.
fn collect(root: &Path, folder: &Path, files: &mut Files) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else {
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            files.insert(name, fs::read(&path)?);
        }
    }
    Ok(())
}

/// Renames `name.ext` to `name-<hash>.ext` wherever some text file refers to `/name.ext` in quotes. Style sheets and
/// scripts come before the page, so that a changed picture renames what refers to it, too.
fn with_hashed_names(mut files: Files) -> Result<Files> {
    let mut page = files.remove(PAGE).with_context(|| format!("{PAGE} is missing among the static files"))?;
    // What refers to others comes last.
    let rank = |name: &str| match Path::new(name).extension().and_then(|e| e.to_str()) {
        Some("css") => 1,
        Some("js") => 2,
        _ => 0,
    };
    let mut order: Vec<String> = files.keys().cloned().collect();
    order.sort_by_key(|name| (rank(name), name.clone()));
    let mut renamed: Vec<(String, String)> = Vec::new();
    let mut out = Files::new();
    for name in order {
        let mut content = files.remove(&name).unwrap_or_default();
        // Snippets are imported by their relative path, which names their content already.
        if name.contains('/') {
            out.insert(name, content);
            continue;
        }
        if rank(&name) > 0 {
            content = replaced(content, &renamed);
        }
        let (stem, extension) =
            name.rsplit_once('.').with_context(|| format!("{name}: a name without an extension"))?;
        let new = format!("{stem}-{:016x}.{extension}", hash(&content));
        renamed.push((name.clone(), new.clone()));
        out.insert(new, content);
    }
    page = replaced(page, &renamed);
    let text = String::from_utf8_lossy(&page);
    for needed in [format!("{MODULE}-"), format!("{MODULE}_bg-")] {
        ensure!(text.contains(&needed), "{PAGE} does not refer to /{MODULE}.js and /{MODULE}_bg.wasm");
    }
    for reference in text.split(['"', '\'']).filter(|t| t.starts_with('/') && t.len() > 1 && t.contains('.')) {
        ensure!(out.contains_key(&reference[1..]), "{PAGE} refers to {reference}, which is not among the files");
    }
    out.insert(PAGE.into(), page);
    Ok(out)
}

fn replaced(content: Vec<u8>, renamed: &[(String, String)]) -> Vec<u8> {
    let Ok(mut text) = String::from_utf8(content.clone()) else { return content };
    for (old, new) in renamed {
        for (open, close) in [("\"/", "\""), ("'/", "'"), ("(/", ")")] {
            text = text.replace(&format!("{open}{old}{close}"), &format!("{open}{new}{close}"));
        }
    }
    text.into_bytes()
}

/// Scripts and style sheets without indentation and without comments that fill whole lines.
fn without_comments(text: &str) -> String {
    let mut in_comment = false;
    let mut keep = |line: &str| {
        let begins = line.starts_with("/*") && (line.ends_with("*/") || !line.contains("*/"));
        let is_comment = in_comment || begins || line.starts_with("//");
        in_comment = (in_comment || begins) && !line.contains("*/");
        !line.is_empty() && !is_comment
    };
    text.lines().map(str::trim).filter(|line| keep(line)).map(|line| format!("{line}\n")).collect()
}

/// FNV-1a, 64 bits: tells contents apart, and needs no more than that.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3))
}

fn compressed(files: &Files) -> Result<Files> {
    let mut out = Files::new();
    for (name, content) in files {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(content)?;
        out.insert(format!("{name}.gz"), gz.finish()?);
        let mut br = Vec::new();
        let size_hint = content.len();
        let mut params = brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 22, size_hint, ..Default::default() };
        if name.ends_with(".wasm") {
            // In instructions the upper bits of a byte tell best what follows: a hundredth smaller than by the
            // encoder's own choice.
            params.mode = BrotliEncoderMode::BROTLI_FORCE_MSB_PRIOR;
        }
        brotli::BrotliCompress(&mut content.as_slice(), &mut br, &params)?;
        out.insert(format!("{name}.br"), br);
    }
    Ok(out)
}

/// Replaces the folder's content. The page comes last: until then an earlier build's page finds its own files or none.
fn write(files: &Files, dist: &Path) -> Result<()> {
    fs::create_dir_all(dist)?;
    let stale: Vec<PathBuf> = fs::read_dir(dist)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    let (page, others): (Vec<_>, Vec<_>) = files.iter().partition(|(name, _)| name.starts_with(PAGE));
    for (name, content) in others.into_iter().chain(page) {
        let path = dist.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    for path in stale.iter().filter(|p| p.is_file()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !files.contains_key(&name) {
            fs::remove_file(path)?;
        }
    }
    for (name, content) in files.iter().filter(|(name, _)| name.ends_with(".wasm") || name.ends_with(".wasm.br")) {
        println!("{name}: {} kB", content.len().div_ceil(1000));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_contents_through_references() {
        let build = |picture: &str| {
            let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
            let page = r#"<link href="/a.css"><script src="/tdb_ui.js"></script> "/tdb_ui_bg.wasm""#;
            let files = [
                file("a.css", "b { background: url(/p.svg) }"),
                file("p.svg", picture),
                file("tdb_ui.js", "1"),
                file("tdb_ui_bg.wasm", "2"),
                file(PAGE, page),
            ];
            with_hashed_names(files.into()).unwrap()
        };
        let (one, two) = (build("x"), build("y"));
        assert_eq!(one.len(), 5);
        let page = |files: &Files| String::from_utf8(files[PAGE].clone()).unwrap();
        for name in one.keys().filter(|n| *n != PAGE && !n.ends_with(".svg")) {
            assert!(page(&one).contains(&format!("\"/{name}\"")), "{name} in {}", page(&one));
        }
        assert_ne!(page(&one), page(&two), "the style sheet's name depends on the picture that it names");
    }

    #[test]
    fn a_page_that_refers_to_a_missing_file_is_an_error() {
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        let page = r#""/tdb_ui.js" "/tdb_ui_bg.wasm" "/gone.css""#;
        let files = [file("tdb_ui.js", "1"), file("tdb_ui_bg.wasm", "2"), file(PAGE, page)];
        let error = with_hashed_names(files.into()).unwrap_err();
        assert!(error.to_string().contains("/gone.css"), "{error}");
    }
}
