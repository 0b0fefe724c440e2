//! Passwords from the configuration or from files of their own.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use zeroize::Zeroizing;

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
    let Some(path) = file.map(located) else { return Ok(inline.cloned()) };
    let text = fs::read_to_string(&path)
        .map(Zeroizing::new)
        .map_err(|error| io::Error::new(error.kind(), format!("{key}: {}: {error}", path.display())))?;
    let text = text.strip_suffix('\n').unwrap_or(text.as_str());
    Ok(Some(text.strip_suffix('\r').unwrap_or(text).into()))
}

/// What stands before the name of a secret that systemd hands over (`LoadCredential=`).
const CREDENTIALS: &str = "${CREDENTIALS_DIRECTORY}/";

/// Where a secret's file is. A path that begins with `${CREDENTIALS_DIRECTORY}/` is below the folder that systemd made.
pub fn located(path: &Path) -> PathBuf {
    below(path, std::env::var_os("CREDENTIALS_DIRECTORY"))
}

fn below(path: &Path, credentials: Option<OsString>) -> PathBuf {
    let name = path.to_str().and_then(|path| path.strip_prefix(CREDENTIALS));
    match (name, credentials) {
        (Some(name), Some(folder)) => PathBuf::from(folder).join(name),
        // Without systemd the error names what was looked for.
        _ => path.into(),
    }
}

/// Whether everybody on this machine can read the file.
pub fn is_exposed(path: &Path) -> bool {
    const OTHERS_READ: u32 = 0o004;
    fs::metadata(located(path)).is_ok_and(|file| file.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_hands_over_is_found() {
        let located = |path: &str, folder: Option<&str>| below(Path::new(path), folder.map(OsString::from));
        let folder = Some("/run/credentials/kasa2mqtt.service");
        assert_eq!(
            located("${CREDENTIALS_DIRECTORY}/mqtt", folder),
            Path::new("/run/credentials/kasa2mqtt.service/mqtt")
        );
        assert_eq!(located("/run/secrets/mqtt", folder), Path::new("/run/secrets/mqtt"));
        let path = "${CREDENTIALS_DIRECTORY}/mqtt";
        assert_eq!(located(path, None), Path::new(path));
    }

    #[test]
    fn a_file_that_everybody_can_read_is_exposed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, is_so) in [(0o644, true), (0o604, true), (0o640, false), (0o600, false)] {
            fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_exposed(file.path()), is_so, "{mode:o}");
        }
        assert!(!is_exposed(Path::new("/nowhere")));
    }
}
