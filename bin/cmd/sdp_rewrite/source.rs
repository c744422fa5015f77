//! Files and standard input, cut into items.
//!
//! In: paths. Out: each piece with the name of its file. Constant memory: what was handed out is forgotten before more is read.
//! Not here: what is done with a piece.

use crate::exit::{Code, Failure};
use sipbox_core::inputs::{Item, Piece, Place, Reason, Splitter};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// Bytes of one read.
const READ: usize = 65_536;

/// As a message names it.
pub fn name(path: &Path) -> String {
    if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() }
}

/// With a progress bar where one is wanted.
fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    let size = |metadata: std::io::Result<Metadata>| metadata.ok().filter(Metadata::is_file).map(|m| m.len());
    let (input, length): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
        let stdin = std::io::stdin();
        // A file that the shell put there has a length.
        let file = stdin.as_fd().try_clone_to_owned().map(File::from);
        let length = file.ok().and_then(|file| size(file.metadata()));
        (Box::new(stdin), length)
    } else {
        let file = File::open(path).map_err(|error| cannot_read(path, &error))?;
        let length = size(file.metadata());
        (Box::new(file), length)
    };
    Ok(crate::progress::reader(&name(path), input, length))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::NotFound | ErrorKind::IsADirectory => Code::NoInput,
        _ => Code::Io,
    };
    Failure::new(code, format!("{}: {error}; give a file, or nothing for standard input", name(path)))
}

/// What is done with the pieces of all files.
pub trait Sink {
    fn piece(&mut self, file: &str, piece: &Piece<'_>) -> Result<(), Failure>;

    /// More is waited for: what was made so far should be seen.
    fn idle(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Reads all files, or standard input where there are none. One that cannot be opened is told, and the others are read all the
/// same unless that is `strict`; what comes back is the first one's failure, for the end.
pub fn each(paths: &[PathBuf], strict: bool, sink: &mut dyn Sink) -> Result<Option<Failure>, Failure> {
    let standard = [PathBuf::from("-")];
    let mut first = None;
    for path in if paths.is_empty() { &standard } else { paths } {
        match open(path) {
            Ok(reader) => one(path, reader, sink)?,
            Err(failure) if strict => return Err(failure),
            Err(failure) => {
                crate::progress::tell(&format!("sipbox sdp-rewrite: {}", failure.message));
                first.get_or_insert(Failure { message: String::new(), ..failure });
            }
        }
    }
    Ok(first)
}

fn one(path: &Path, mut reader: Box<dyn Read>, sink: &mut dyn Sink) -> Result<(), Failure> {
    let file = name(path);
    let mut splitter = Splitter::new();
    let mut empty = true;
    loop {
        splitter.compact();
        let came = loop {
            match reader.read(splitter.room(READ)) {
                Ok(came) => break came,
                Err(error) if error.kind() == ErrorKind::Interrupted => splitter.filled(READ, 0),
                Err(error) => return Err(cannot_read(path, &error)),
            }
        };
        splitter.filled(READ, came);
        if came == 0 {
            splitter.end();
        }
        while let Some(piece) = splitter.next() {
            empty = false;
            sink.piece(&file, &piece)?;
        }
        if came == 0 {
            break;
        }
        sink.idle()?;
    }
    if empty {
        sink.piece(&file, &Piece::Fault(Place { number: 1, at: 0, line: 1 }, Reason::Unknown))?;
    }
    Ok(())
}

/// The first item of a file, and what `of` makes of it.
pub fn first<T>(path: &Path, of: impl FnMut(&Item<'_>) -> Result<T, String>) -> Result<T, Failure> {
    struct First<F, T> {
        of: F,
        found: Option<T>,
    }
    impl<F: FnMut(&Item<'_>) -> Result<T, String>, T> Sink for First<F, T> {
        fn piece(&mut self, file: &str, piece: &Piece<'_>) -> Result<(), Failure> {
            let (place, reason) = match piece {
                Piece::Fault(place, reason) => (place, reason.to_string()),
                Piece::Item(item) => match (self.of)(item) {
                    Ok(found) => {
                        self.found = Some(found);
                        // Ends the reading; nobody sees it.
                        return Err(Failure::closed_pipe());
                    }
                    Err(reason) => (&item.place, reason),
                },
            };
            Err(Failure::new(Code::Data, format!("{file}:{}: {reason}", place.line)))
        }
    }
    let mut first = First { of, found: None };
    let result = one(path, open(path)?, &mut first);
    match (first.found, result) {
        (Some(found), _) => Ok(found),
        (None, Err(failure)) => Err(failure),
        (None, Ok(())) => Err(Failure::new(Code::Data, format!("{}: no SDP in it", name(path)))),
    }
}
