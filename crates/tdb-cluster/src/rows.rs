//! What a task is given and what it gives back.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};

/// A work unit, or what was made of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The range of layers; units of the same one go to the same merging task.
    pub layers: String,
    /// Name of the summary's file.
    pub name: String,
    /// The summary's, in hexadecimal.
    pub checksum: String,
    pub bytes: u64,
}

/// The column that says which task merges a row.
pub const LAYERS: &str = "layers";

/// The columns.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8, false);
        let bytes = Field::new("bytes", DataType::UInt64, false);
        Arc::new(Schema::new(vec![text(LAYERS), text("name"), text("checksum"), bytes]))
    });
    SCHEMA.clone()
}

/// Rows as a table.
///
/// # Errors
/// Never, as long as the columns are those of [`schema`].
pub fn batch(rows: &[Row]) -> Result<RecordBatch> {
    let text = |get: fn(&Row) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(get))) };
    let columns = vec![
        text(|row| &row.layers),
        text(|row| &row.name),
        text(|row| &row.checksum),
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.bytes))) as ArrayRef,
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// A table as rows.
///
/// # Errors
/// If it has other columns.
pub fn read(batch: &RecordBatch) -> Result<Vec<Row>> {
    let other = || DataFusionError::Internal("a task was given other columns than names and checksums".to_owned());
    let text = |at: usize| batch.column(at).as_any().downcast_ref::<StringArray>().ok_or_else(other);
    if batch.num_columns() != schema().fields().len() {
        return Err(other());
    }
    let (layers, name, checksum) = (text(0)?, text(1)?, text(2)?);
    let bytes = batch.column(3).as_any().downcast_ref::<UInt64Array>().ok_or_else(other)?;
    let row = |i: usize| Row {
        layers: layers.value(i).to_owned(),
        name: name.value(i).to_owned(),
        checksum: checksum.value(i).to_owned(),
        bytes: bytes.value(i),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}
