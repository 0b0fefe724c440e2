//! What commands print. Who reads no further, as `head` does, has what they wanted; a full disk is an error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write, stderr, stdout};

/// Writes this and a line end to standard output.
///
/// # Errors
/// It cannot be written.
pub fn line(text: impl Display) -> io::Result<()> {
    all(format!("{text}\n").as_bytes())
}

/// Writes this to standard output.
///
/// # Errors
/// It cannot be written.
pub fn all(bytes: &[u8]) -> io::Result<()> {
    let mut output = stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Tells a person on standard error. Nobody is told when that fails, too.
pub fn complain(problem: impl Display) {
    let _ = writeln!(stderr(), "kasa2mqtt: {problem}");
}
