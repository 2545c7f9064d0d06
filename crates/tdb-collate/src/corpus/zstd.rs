//! Text that is packed with zstd: frames one after the other, as `zstd`, `pzstd` and `cat` make them.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, copy, sink};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Unpacks all frames of a source.
pub(super) struct Frames<R> {
    source: BufReader<R>,
    /// The frame that is being read.
    frame: Option<FrameDecoder>,
}

impl<R: Read> Frames<R> {
    pub fn new(source: R) -> Self {
        Self { source: BufReader::with_capacity(1 << 17, source), frame: None }
    }

    /// The next frame that holds text, if there is one.
    fn next_frame(&mut self) -> Result<Option<FrameDecoder>> {
        while !self.source.fill_buf()?.is_empty() {
            let mut frame = FrameDecoder::new();
            match frame.init(&mut self.source) {
                Ok(()) => return Ok(Some(frame)),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let length = u64::from(length);
                    if copy(&mut self.source.by_ref().take(length), &mut sink())? < length {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(damaged(&error)),
            }
        }
        Ok(None)
    }
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            let frame = match &mut self.frame {
                Some(frame) => frame,
                None => match self.next_frame()? {
                    Some(frame) => self.frame.insert(frame),
                    None => return Ok(0),
                },
            };
            while frame.can_collect() < into.len() && !frame.is_finished() {
                let more = BlockDecodingStrategy::UptoBytes(into.len() - frame.can_collect());
                frame.decode_blocks(&mut self.source, more).map_err(|error| damaged(&error))?;
            }
            let read = frame.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            if frame.get_checksum_from_data().is_some_and(|sum| Some(sum) != frame.get_calculated_checksum()) {
                return Err(damaged(&"its checksum is another"));
            }
            self.frame = None;
        }
    }
}

fn damaged(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidData, format!("damaged zstd: {error}"))
}
