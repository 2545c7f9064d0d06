//! Writes `safetensors` files whose bytes depend on nothing but their content.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use half::f16;
use serde_json::{Map, Value as Json, json};

use super::error::CheckpointError;
use crate::matrix::Matrix;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats: exact, and mapped in place when read.
    F32,
    /// 16-bit floats: half the size, about three digits, converted when read.
    F16,
}

/// A tensor to write.
pub(crate) enum Numbers<'a> {
    Vector(&'a [f32]),
    Matrix(&'a Matrix),
}

impl Numbers<'_> {
    fn shape(&self) -> Vec<usize> {
        match self {
            Numbers::Vector(numbers) => vec![numbers.len()],
            Numbers::Matrix(matrix) => vec![matrix.rows(), matrix.cols()],
        }
    }

    fn write(&self, precision: Precision, out: &mut impl Write) -> std::io::Result<()> {
        match self {
            Numbers::Vector(numbers) => write_numbers(numbers, precision, out),
            Numbers::Matrix(matrix) => {
                let mut row = vec![0.0; matrix.cols()];
                for index in 0..matrix.rows() {
                    matrix.copy_row(index, &mut row);
                    write_numbers(&row, precision, out)?;
                }
                Ok(())
            }
        }
    }
}

fn write_numbers(numbers: &[f32], precision: Precision, out: &mut impl Write) -> std::io::Result<()> {
    for &number in numbers {
        match precision {
            Precision::F32 => out.write_all(&number.to_le_bytes())?,
            Precision::F16 => out.write_all(&f16::from_f32(number).to_le_bytes())?,
        }
    }
    Ok(())
}

/// Writes the file under another name first, so that a file of the right name is always whole. The folder is made if it
/// is missing.
pub(crate) fn write(
    path: &Path,
    metadata: &[(&str, String)],
    tensors: &[(&str, Numbers<'_>)],
    precision: Precision,
) -> Result<(), CheckpointError> {
    let (size, name) = match precision {
        Precision::F32 => (4, "F32"),
        Precision::F16 => (2, "F16"),
    };
    let mut header = Map::new();
    let texts: Map<String, Json> = metadata.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
    if !texts.is_empty() {
        header.insert("__metadata__".to_owned(), texts.into());
    }
    let mut at = 0;
    for (key, numbers) in tensors {
        let shape = numbers.shape();
        let end = at + size * shape.iter().product::<usize>();
        header.insert((*key).to_owned(), json!({"dtype": name, "shape": shape, "data_offsets": [at, end]}));
        at = end;
    }
    let mut header = Json::Object(header).to_string();
    // Numbers start at a multiple of eight, so that they can be mapped in place.
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    write_whole(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header.as_bytes())?;
        tensors.iter().try_for_each(|(_, numbers)| numbers.write(precision, out))
    })
}

/// Writes a JSON file, indented, in the same way.
pub(crate) fn write_json(path: &Path, value: &Json) -> Result<(), CheckpointError> {
    write_whole(path, |out| writeln!(out, "{value:#}"))
}

fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), CheckpointError> {
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let all = || {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&part)?);
        write(&mut out)?;
        out.flush()?;
        std::fs::rename(&part, path)
    };
    all().map_err(|source| {
        // The half-written file is of no use to anybody; that it cannot be removed either is no news.
        let _ = std::fs::remove_file(&part);
        CheckpointError::Write { file: path.to_owned(), source }
    })
}
