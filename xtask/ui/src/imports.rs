//! Short names for what the module imports from its script.
//!
//! wasm-bindgen calls each import by what it does and a hash, which does not compress. A browser only needs module and
//! script to use the same names.

use anyhow::{Context, Result, ensure};

/// The section of a WebAssembly module that lists its imports.
const IMPORTS: u8 = 2;

/// Module and script with short names, counted through.
pub fn shorten(module: &[u8], script: &str) -> Result<(Vec<u8>, String)> {
    let mut script = script.to_owned();
    let mut out = module.get(..8).context("the module is cut off")?.to_vec();
    let mut rest = &module[8..];
    while let Some((id, after)) = rest.split_first() {
        let (size, content) = number(after)?;
        let end = after.len() - content.len() + size;
        let content = content.get(..size).context("the module is cut off")?;
        if *id == IMPORTS {
            let renamed = rename(content, &mut script)?;
            out.push(IMPORTS);
            put(&mut out, renamed.len());
            out.extend(renamed);
        } else {
            out.extend(&rest[..1 + end]);
        }
        rest = &after[end..];
    }
    Ok((out, script))
}

/// The section's content; the names that it had are replaced in the script, too.
fn rename(section: &[u8], script: &mut String) -> Result<Vec<u8>> {
    let (count, mut rest) = number(section)?;
    let mut out = Vec::new();
    put(&mut out, count);
    for import in 0..count {
        let (module, after) = text(rest)?;
        let (name, after) = text(after)?;
        let (kind, after) = after.split_first().context("the module is cut off")?;
        ensure!(*kind == 0, "{name} is an import, but no function");
        let (function, after) = number(after)?;
        let (old, new) = (format!("\n{name}: "), format!("\ni{import}: "));
        ensure!(script.matches(&old).count() == 1, "the script does not define {name} once");
        *script = script.replace(&old, &new);
        for text in [module, new.trim().trim_end_matches(':')] {
            put(&mut out, text.len());
            out.extend(text.as_bytes());
        }
        out.push(*kind);
        put(&mut out, function);
        rest = after;
    }
    ensure!(rest.is_empty(), "the list of imports goes on after its end");
    Ok(out)
}

/// An unsigned number in LEB128, and what follows it.
fn number(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut out = 0;
    for (i, byte) in bytes.iter().enumerate().take(5) {
        out |= usize::from(byte & 127) << (7 * i);
        if *byte < 128 {
            return Ok((out, &bytes[i + 1..]));
        }
    }
    anyhow::bail!("the module is cut off, or a number in it is too long")
}

fn text(bytes: &[u8]) -> Result<(&str, &[u8])> {
    let (size, rest) = number(bytes)?;
    let (text, rest) = rest.split_at_checked(size).context("the module is cut off")?;
    Ok((std::str::from_utf8(text)?, rest))
}

fn put(out: &mut Vec<u8>, mut number: usize) {
    while number >= 128 {
        out.push(number as u8 | 128);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with a section of types, these imports of functions, and a section after them.
    fn module(names: &[&str]) -> Vec<u8> {
        let mut section = Vec::new();
        put(&mut section, names.len());
        for name in names {
            for text in ["./m.js", name] {
                put(&mut section, text.len());
                section.extend(text.as_bytes());
            }
            section.extend([0, 7]);
        }
        let mut out = b"\0asm\x01\0\0\0\x01\x01\x00".to_vec();
        out.push(IMPORTS);
        put(&mut out, section.len());
        out.extend(section);
        out.extend([3, 2, 1, 7]);
        out
    }

    #[test]
    fn both_sides_get_the_same_short_names() {
        let long = "x".repeat(200);
        let script = format!("const import0 = {{\n__wbg_a_12: function() {{}},\n{long}: function() {{}},\n}};");
        let (made, script) = shorten(&module(&["__wbg_a_12", &long]), &script).unwrap();
        assert_eq!(made, module(&["i0", "i1"]));
        assert_eq!(script, "const import0 = {\ni0: function() {},\ni1: function() {},\n};");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |module: &[u8], script: &str| shorten(module, script).unwrap_err().to_string();
        assert!(refused(&module(&["a"]), "").contains("does not define a once"));
        let whole = module(&["a"]);
        assert!(refused(&whole[..whole.len() - 2], "\na: ").contains("cut off"));
    }
}
