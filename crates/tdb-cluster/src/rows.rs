//! What a task is given.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::error::{DataFusionError, Result};

/// A work unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Name of the summary's file.
    pub name: String,
    /// The summary's, in hexadecimal; empty where it is not made yet.
    pub checksum: String,
}

/// The columns.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![text("name"), text("checksum")]))
    });
    SCHEMA.clone()
}

/// Rows as a table.
///
/// # Errors
/// Never, as long as the columns are those of [`schema`].
pub fn batch(rows: &[Row]) -> Result<RecordBatch> {
    let text = |get: fn(&Row) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(get))) };
    let columns = vec![text(|row| &row.name), text(|row| &row.checksum)];
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
    let (name, checksum) = (text(0)?, text(1)?);
    let row = |i: usize| Row { name: name.value(i).to_owned(), checksum: checksum.value(i).to_owned() };
    Ok((0..batch.num_rows()).map(row).collect())
}
