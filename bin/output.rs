//! Records on standard output: one JSON object a line. A pipe that was closed ends the command quietly.

use crate::exit::Failure;
use serde_json::Value;
use std::io::{self, BufWriter, StdoutLock, Write};

/// Standard output, buffered; flushed when it is finished.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub fn new() -> Self {
        Output(BufWriter::new(io::stdout().lock()))
    }

    pub fn record(&mut self, record: &Value) -> Result<(), Failure> {
        writeln!(self.0, "{record}")?;
        Ok(())
    }

    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.0.write_all(text.as_bytes())?;
        Ok(())
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes)?;
        Ok(())
    }

    /// For streams: the reader sees the records up to here.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush()?;
        Ok(())
    }
}
