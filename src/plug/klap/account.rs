//! The account that a plug was set up with, and the accounts that plugs have which were not.

use std::io;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::auth::{Auth, Version};
use crate::secret;

/// Accounts that firmware has built in, in the order in which they are tried (protocol.md 7). Plugs that have an account
/// were seen to alternate between theirs and these.
const BUILT_IN: [(&str, &str); 3] =
    [("kasa@tp-link.net", "kasaSetup"), ("test@tp-link.net", "test"), ("", "")];

/// `[kasa]`: the account of the Kasa app. Its name is a secret, too.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Account {
    /// E-mail address, as it was written when the account was made.
    pub username: Option<SecretString>,
    /// Password.
    pub password: Option<SecretString>,
    /// File that holds the password; read at each handshake.
    pub password_file: Option<PathBuf>,
}

impl Account {
    /// Whether there is one.
    pub fn is_given(&self) -> bool {
        self.username.is_some()
    }

    /// What a plug may know: this account, then those that are built in; for each, both versions.
    ///
    /// # Errors
    /// The password's file cannot be read.
    pub fn auths(&self) -> io::Result<Vec<Auth>> {
        let password = secret::read("password_file", self.password.as_ref(), self.password_file.as_deref())?;
        let own = self.username.as_ref().map(|username| {
            (username.expose_secret(), password.as_ref().map_or("", |password| password.expose_secret()))
        });
        let both = |(username, password): (&str, &str)| {
            [Version::V1, Version::V2]
                .map(|version| Auth::new(version, username.as_bytes(), password.as_bytes()))
        };
        Ok(own.into_iter().chain(BUILT_IN).flat_map(both).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_account_comes_first() {
        let account =
            Account { username: Some("a@b.c".into()), password: Some("secret".into()), ..Account::default() };
        let auths = account.auths().unwrap();
        assert_eq!(auths.len(), 8);
        assert!(auths[0] == Auth::new(Version::V1, b"a@b.c", b"secret"));
        assert!(auths[1] == Auth::new(Version::V2, b"a@b.c", b"secret"));
        assert!(auths[2] == Auth::new(Version::V1, b"kasa@tp-link.net", b"kasaSetup"));
        assert!(auths[7] == Auth::new(Version::V2, b"", b""));
        assert!(Account::default().auths().unwrap() == auths[2..]);
    }

    #[test]
    fn a_changed_file_is_another_password() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let account = Account {
            username: Some("a@b.c".into()),
            password_file: Some(file.clone()),
            ..Account::default()
        };
        assert!(account.auths().unwrap_err().to_string().contains("password"));
        std::fs::write(&file, "wrong\n").unwrap();
        let before = account.auths().unwrap();
        std::fs::write(&file, "secret\n").unwrap();
        let now = account.auths().unwrap();
        assert!(before != now && now[0] == Auth::new(Version::V1, b"a@b.c", b"secret"));
    }

    #[test]
    fn neither_name_nor_password_is_shown() {
        let account = Account {
            username: Some("a@b.c".into()),
            password: Some("hunter2".into()),
            ..Account::default()
        };
        let shown = format!("{account:?}");
        assert!(!shown.contains("a@b.c") && !shown.contains("hunter2"), "{shown}");
    }
}
