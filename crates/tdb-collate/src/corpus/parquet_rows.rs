//! Parquet: one document a row, its text in the column `text`.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, reader::RowIter};
use parquet::schema::types::Type;

use super::{Document, Documents};
use crate::{Error, Result};

pub(super) fn open(path: &Path) -> Result<Documents> {
    let file = File::open(path).map_err(Error::file(path))?;
    let bad = |error: parquet::errors::ParquetError| Error::content(path, format!("is not Parquet: {error}"));
    let reader = SerializedFileReader::new(file).map_err(bad)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let Some(column) = schema.get_fields().iter().find(|f| f.name() == "text" && f.is_primitive()).cloned() else {
        let names: Vec<_> = schema.get_fields().iter().take(12).map(|f| f.name().to_owned()).collect();
        return Err(Error::content(path, format!("has no column `text`; there are {}", names.join(", "))));
    };
    let projection = Type::group_type_builder(schema.name()).with_fields(vec![Arc::clone(&column)]).build();
    let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection.map_err(bad)?)).map_err(bad)?;
    let path = path.to_owned();
    let documents = rows.enumerate().filter_map(move |(row, found)| {
        let place = format!("row {}", row + 1);
        let error =
            |message: String| Some(Err(Error::Text { path: path.clone(), place: format!("row {}", row + 1), message }));
        let found = match found {
            Ok(found) => found,
            Err(problem) => return error(format!("cannot be read: {problem}")),
        };
        match found.get_column_iter().next().map(|(_, field)| field) {
            None | Some(Field::Null) => None,
            Some(Field::Str(text)) if text.is_empty() => None,
            Some(Field::Str(text)) => Some(Ok(Document { text: text.clone(), place })),
            Some(Field::Bytes(bytes)) => match std::str::from_utf8(bytes.data()) {
                Ok("") => None,
                Ok(text) => Some(Ok(Document { text: text.to_owned(), place })),
                Err(problem) => error(format!("`text` is not UTF-8: {problem}")),
            },
            Some(other) => error(format!("`text` is {other}, not a string")),
        }
    });
    Ok(Box::new(documents))
}
