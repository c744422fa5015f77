//! A progress bar on standard error while a large input is read.
//!
//! Only where standard error is a terminal; nothing in a pipe, and nothing is left of it at the end. In goes a
//! reader whose length is known, out comes the same reader, counted. There is one bar at a time. What else goes to the
//! terminal meanwhile is written [`aside`]. Not here: what is read.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Read, Write};
use std::sync::Mutex;

/// Below that nobody waits long enough to ask.
const LEAST_BYTES: u64 = 4 << 20;
const TEMPLATE: &str = "{msg} {wide_bar} {percent:>3}% of {total_bytes}, {eta} left";

/// The bar that is on the terminal.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// A reader that moves the bar; when it is dropped the bar is gone.
struct Counted {
    input: Box<dyn Read + Send>,
    bar: ProgressBar,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.bar.inc(length as u64);
        Ok(length)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Ok(mut shown) = SHOWN.lock() {
            *shown = None;
        }
        self.bar.finish_and_clear();
    }
}

/// `input` of this many bytes, with a bar named `name` where one is wanted; without a known length, or short, as it was.
pub fn reader(name: &str, input: Box<dyn Read + Send>, length: Option<u64>) -> Box<dyn Read + Send> {
    match length {
        Some(length) if length >= LEAST_BYTES && io::stderr().is_terminal() => {
            let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr())
                .with_message(crate::output::plain(name));
            if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
                bar.set_style(style);
            }
            if let Ok(mut shown) = SHOWN.lock() {
                *shown = Some(bar.clone());
            }
            Box::new(Counted { input, bar })
        }
        Some(_) | None => input,
    }
}

/// Does what writes to the terminal while the bar is away.
pub fn aside<T>(write: impl FnOnce() -> T) -> T {
    let bar = SHOWN.lock().ok().and_then(|shown| shown.clone());
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// A line on standard error, which may be closed.
pub fn tell(line: &str) {
    aside(|| {
        let _ = writeln!(io::stderr(), "{line}");
    });
}
