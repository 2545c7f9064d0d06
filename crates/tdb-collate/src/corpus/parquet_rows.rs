//! Parquet: one document a row, its text in the column `text`.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, Repetition, Type as PhysicalType};
use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::{SerializedFileReader, SerializedPageReader};
use tdb_model::guarded::guarded;

use super::document::{Document, Documents, Trouble, of_entry};
use super::file::open_regular;
use super::zstd_pages::ZstdPages;
use crate::{Error, Result};

/// Rows that are read at a time.
const ROWS: usize = 64;

pub(super) fn open(path: &Path) -> Result<Documents> {
    let file = open_regular(path)?;
    let column = guarded("the Parquet reader", || Column::open(file)).and_then(|column| column);
    let column = column.map_err(|message| Error::content(path, message))?;
    let (texts, ready) = (VecDeque::new(), VecDeque::new());
    Ok(Box::new(Rows { path: path.to_owned(), column, row: 0, texts, ready, ended: false }))
}

/// The column `text` of a file.
struct Column {
    file: Arc<File>,
    metadata: Arc<ParquetMetaData>,
    /// Its place among the columns.
    index: usize,
    is_optional: bool,
    /// The next row group, and the one that is being read.
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
}

impl Column {
    fn open(file: File) -> Result<Self, String> {
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        let file = Arc::new(file);
        let again = file.try_clone().map_err(|error| error.to_string())?;
        let reader = SerializedFileReader::new(again).map_err(|error| format!("is not Parquet: {error}"))?;
        let metadata = Arc::new(reader.metadata().clone());
        check_places(&metadata, size)?;
        let schema = metadata.file_metadata().schema_descr();
        let found = schema.columns().iter().enumerate().find(|(_, c)| c.path().parts() == ["text"]);
        let Some((index, column)) = found else {
            let fields = schema.root_schema().get_fields();
            let names: Vec<_> = fields.iter().take(12).map(|f| f.name().to_owned()).collect();
            return Err(format!("has no column `text`; there are {}", names.join(", ")));
        };
        let repetition = column.self_type().get_basic_info().repetition();
        if column.physical_type() != PhysicalType::BYTE_ARRAY || repetition == Repetition::REPEATED {
            return Err(format!("its column `text` holds {}, not strings", column.physical_type()));
        }
        let is_optional = repetition == Repetition::OPTIONAL;
        Ok(Self { file, index, is_optional, group: 0, reader: None, metadata })
    }

    /// The texts of some more rows, `None` where there is none; empty at the end of the file.
    fn read(&mut self) -> Result<Vec<Option<ByteArray>>, ParquetError> {
        loop {
            let reader = match &mut self.reader {
                Some(reader) => reader,
                None if self.group == self.metadata.num_row_groups() => return Ok(Vec::new()),
                None => {
                    let reader = self.open_group()?;
                    self.group += 1;
                    self.reader.insert(reader)
                }
            };
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let (rows, ..) = reader.read_records(ROWS, Some(&mut levels), None, &mut values)?;
            if rows == 0 {
                self.reader = None;
                continue;
            }
            let mut values = values.into_iter();
            return Ok(match self.is_optional {
                false => values.map(Some).collect(),
                true => levels.iter().map(|level| if *level > 0 { values.next() } else { None }).collect(),
            });
        }
    }

    fn open_group(&self) -> Result<ColumnReaderImpl<ByteArrayType>, ParquetError> {
        let group = self.metadata.row_group(self.group);
        let column = group.column(self.index);
        let rows = usize::try_from(group.num_rows())?;
        let open = |column: &ColumnChunkMetaData| SerializedPageReader::new(self.file.clone(), column, rows, None);
        let pages: Box<dyn PageReader> = match column.compression() {
            Compression::ZSTD(_) => {
                // Read as they are, and unpacked here.
                let packed = column.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
                Box::new(ZstdPages::new(open(&packed)?))
            }
            _ => Box::new(open(column)?),
        };
        match get_column_reader(column.column_descr_ptr(), pages) {
            ColumnReader::ByteArrayColumnReader(reader) => Ok(reader),
            _ => Err(ParquetError::General("a column of bytes is read as something else".to_owned())),
        }
    }
}

/// That all columns lie within the file: the reader takes it for granted.
fn check_places(metadata: &ParquetMetaData, size: u64) -> Result<(), String> {
    for (group, columns) in metadata.row_groups().iter().enumerate() {
        for column in columns.columns() {
            let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
            let (start, length) = (u64::try_from(start).ok(), u64::try_from(column.compressed_size()).ok());
            let end = start.zip(length).and_then(|(start, length)| start.checked_add(length));
            if end.is_none_or(|end| end > size) {
                let name = column.column_path();
                return Err(format!("is damaged: column {name} of row group {group} lies outside the file"));
            }
        }
    }
    Ok(())
}

struct Rows {
    path: PathBuf,
    column: Column,
    /// Rows handed on so far.
    row: usize,
    texts: VecDeque<Option<ByteArray>>,
    ready: VecDeque<Document>,
    ended: bool,
}

impl Iterator for Rows {
    type Item = Result<Document, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(document) = self.ready.pop_front() {
                return Some(Ok(document));
            }
            if let Some(text) = self.texts.pop_front() {
                self.row += 1;
                let place = format!("row {}", self.row);
                // A row without text is an empty one.
                let Some(text) = text else { continue };
                match std::str::from_utf8(text.data()) {
                    Ok(text) => self.ready.extend(of_entry(text.to_owned(), &place)),
                    Err(problem) => return Some(Err(Trouble::skip(place, format!("`text` is not UTF-8: {problem}")))),
                }
                continue;
            }
            if self.ended {
                return None;
            }
            let read = guarded("the Parquet reader", || self.column.read());
            match read.and_then(|texts| texts.map_err(|problem| format!("cannot be read: {problem}"))) {
                Ok(texts) => {
                    self.ended = texts.is_empty();
                    self.texts.extend(texts);
                }
                // The reader does not say where the next row would be.
                Err(message) => {
                    self.ended = true;
                    let place = format!("after row {}", self.row);
                    return Some(Err(Trouble::Stop(Error::Text { path: self.path.clone(), place, message })));
                }
            }
        }
    }
}
