//! Passwords from the configuration or from files of their own.

use std::fs;
use std::io;
use std::path::Path;

use secrecy::SecretString;

/// The password, from wherever it is. A file is read now, so that a changed one is used without a restart; the line end
/// that editors leave is not part of it.
///
/// # Errors
/// The file cannot be read; `key` names it.
pub fn read(
    key: &str,
    inline: Option<&SecretString>,
    file: Option<&Path>,
) -> io::Result<Option<SecretString>> {
    let Some(path) = file else { return Ok(inline.cloned()) };
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{key}: {}: {error}", path.display())))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Some(text.strip_suffix('\r').unwrap_or(text).into()))
}
