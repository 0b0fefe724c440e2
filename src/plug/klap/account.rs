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

    /// Its hashes, one for each version; none where there is no account.
    fn auths(&self) -> io::Result<Vec<Auth>> {
        let password = secret::read("password_file", self.password.as_ref(), self.password_file.as_deref())?;
        let Some(username) = &self.username else { return Ok(Vec::new()) };
        let password = password.as_ref().map_or("", |password| password.expose_secret());
        Ok(both(username.expose_secret(), password))
    }
}

/// What a plug may know: these accounts in their order, then those that are built in; for each, both versions.
///
/// # Errors
/// A password's file cannot be read.
pub fn auths(accounts: &[Account]) -> io::Result<Vec<Auth>> {
    let mut auths = Vec::new();
    for account in accounts {
        auths.extend(account.auths()?);
    }
    auths.extend(BUILT_IN.iter().flat_map(|(username, password)| both(username, password)));
    Ok(auths)
}

fn both(username: &str, password: &str) -> Vec<Auth> {
    [Version::V1, Version::V2]
        .map(|version| Auth::new(version, username.as_bytes(), password.as_bytes()))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(username: &str, password: &str) -> Account {
        Account { username: Some(username.into()), password: Some(password.into()), ..Account::default() }
    }

    #[test]
    fn the_plugs_own_account_comes_first_then_ours_then_those_that_are_built_in() {
        let auths = |accounts: &[Account]| super::auths(accounts).unwrap();
        let all = auths(&[account("them@b.c", "theirs"), account("a@b.c", "secret")]);
        let order = [
            ("them@b.c", "theirs"),
            ("a@b.c", "secret"),
            ("kasa@tp-link.net", "kasaSetup"),
            ("test@tp-link.net", "test"),
            ("", ""),
        ];
        let expected = order.into_iter().flat_map(|(username, password)| both(username, password));
        assert!(all == expected.collect::<Vec<_>>());
        assert!(all[0].version() == Version::V1 && all[1].version() == Version::V2);
        assert!(auths(&[account("a@b.c", "secret")]) == all[2..]);
        assert!(auths(&[]) == all[4..] && auths(&[Account::default()]) == all[4..]);
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
        let auths = || super::auths(std::slice::from_ref(&account));
        assert!(auths().unwrap_err().to_string().contains("password"));
        std::fs::write(&file, "wrong\n").unwrap();
        let before = auths().unwrap();
        std::fs::write(&file, "secret\n").unwrap();
        let now = auths().unwrap();
        assert!(before != now && now[0] == Auth::new(Version::V1, b"a@b.c", b"secret"));
    }

    #[test]
    fn neither_name_nor_password_is_shown() {
        let shown = format!("{:?}", account("a@b.c", "hunter2"));
        assert!(!shown.contains("a@b.c") && !shown.contains("hunter2"), "{shown}");
    }
}
