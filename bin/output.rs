//! Records on standard output: one JSON object a line. A pipe that was closed ends the command quietly.

use crate::exit::Failure;
use crate::progress;
use serde_json::Value;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Standard output, buffered; flushed when it is finished.
pub struct Output(BufWriter<Stdout>);

/// On a terminal, a progress bar makes room for what is written.
struct Stdout {
    lock: StdoutLock<'static>,
    terminal: bool,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.terminal { progress::aside(|| self.lock.write(bytes)) } else { self.lock.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.terminal { progress::aside(|| self.lock.flush()) } else { self.lock.flush() }
    }
}

impl Output {
    pub fn new() -> Self {
        let lock = io::stdout().lock();
        let terminal = lock.is_terminal();
        Output(BufWriter::new(Stdout { lock, terminal }))
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

/// Nothing that moves a terminal's cursor.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
