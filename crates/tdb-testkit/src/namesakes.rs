//! Two models of one name, as two machines may have them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes the embedded model into `here` below `at`, and one with slightly other weights into `there`. Registries beside
/// them, `here.toml` and `there.toml`, call each of them `mine`.
///
/// # Errors
/// If a file cannot be read or written.
pub fn write(at: &Path) -> Result<()> {
    let embedded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/embedded");
    for (name, changed) in [("here", false), ("there", true)] {
        let folder = at.join(name);
        fs::create_dir(&folder)?;
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(embedded.join(file), folder.join(file)).with_context(|| file.to_owned())?;
        }
        if changed {
            change(&folder.join("model.safetensors"))?;
        }
        let place = folder.display();
        let entry = format!("[[model]]\nname = 'mine'\ntitle = ''\nlocation = '{place}'\nlayout = 'hugging-face'\n");
        fs::write(at.join(format!("{name}.toml")), entry)?;
    }
    Ok(())
}

/// Changes each number of a file of tensors a little.
fn change(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let header = bytes.first_chunk().context("the file has no header")?;
    let begin = 8 + usize::try_from(u64::from_le_bytes(*header))?;
    let numbers = bytes.get_mut(begin..).context("the file has no numbers")?;
    numbers.chunks_exact_mut(4).for_each(|number| number[2] ^= 1);
    Ok(fs::write(path, bytes)?)
}
