//! Who may connect to the embedded broker.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;

use mqtt5::broker::{AuthProvider, AuthResult};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{Error, Settings};
use crate::secret;

/// Everybody, or one user. There is no lock-out: the crate's counts by address, so that one badly configured program
/// on this machine would lock out the bridge.
pub struct Users(Option<(String, SecretString)>);

impl Users {
    /// As configured.
    ///
    /// # Errors
    /// A name without a password or the reverse, which must not end as "everybody"; or nobody named although others
    /// than this machine can connect.
    pub fn of(settings: &Settings) -> Result<Users, Error> {
        let password = secret::read(
            "broker.password_file",
            settings.password.as_ref(),
            settings.password_file.as_deref(),
        );
        match (&settings.username, password.map_err(Error::Password)?) {
            (None, None) if settings.listen.ip().is_loopback() => Ok(Users(None)),
            (None, None) => Err(Error::Anonymous(settings.listen)),
            (Some(name), Some(password)) if !name.is_empty() && !password.expose_secret().is_empty() => {
                Ok(Users(Some((name.clone(), password))))
            }
            _ => Err(Error::HalfUser),
        }
    }

    fn admits(&self, packet: &ConnectPacket) -> bool {
        let Some((name, password)) = &self.0 else { return true };
        let (Some(given_name), Some(given_password)) = (&packet.username, &packet.password) else {
            return false;
        };
        // How long the comparison takes must not tell how much of a guess was right.
        let is_name = name.as_bytes().ct_eq(given_name.as_bytes());
        let is_password = password.expose_secret().as_bytes().ct_eq(given_password);
        (is_name & is_password).into()
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl AuthProvider for Users {
    fn authenticate<'a>(
        &'a self,
        packet: &'a ConnectPacket,
        _: SocketAddr,
    ) -> Answer<'a, mqtt5::Result<AuthResult>> {
        let result = match self.admits(packet) {
            true => AuthResult::success(),
            false => AuthResult::fail(ReasonCode::BadUsernameOrPassword),
        };
        Box::pin(async { Ok(result) })
    }

    fn authorize_publish<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(async { true })
    }

    fn authorize_subscribe<'a>(&'a self, _: &str, _: Option<&'a str>, _: &'a str) -> Answer<'a, bool> {
        Box::pin(async { true })
    }
}
