//! What an error of the client means: for a person, and for the pause before the next try.

use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError, TlsError, mqttbytes};
use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::{self, CertificateError};
use tracing::{error, warn};

use super::connection::{End, NotBegun};
use super::settings::BrokerUrl;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For a person.
    pub text: String,
    /// Trying again soon makes no sense: somebody has to change something first.
    pub needs_a_person: bool,
}

impl Failure {
    /// The network's fault; it passes.
    pub fn passing(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), needs_a_person: false }
    }

    /// Tells a person.
    pub fn complain(&self, broker: &BrokerUrl) {
        match self.needs_a_person {
            true => error!(%broker, "no connection to the broker: {}", self.text),
            false => warn!(%broker, "no connection to the broker: {}; trying again", self.text),
        }
    }

    fn lasting(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), needs_a_person: true }
    }
}

impl From<NotBegun> for Failure {
    fn from(error: NotBegun) -> Failure {
        let text = error.to_string();
        match error {
            NotBegun::Configuration(_) => Failure::lasting(text),
            NotBegun::Resolve { .. } => Failure::passing(text),
        }
    }
}

impl From<End> for Failure {
    fn from(end: End) -> Failure {
        match end {
            End::Client(error) => error.into(),
            End::StoodStill(pause) => Failure::passing(format!(
                "this program stood still for {} s, so that commands may be old",
                pause.as_secs()
            )),
        }
    }
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Failure {
        use ConnectReturnCode as Code;
        match error {
            ConnectionError::ConnectionRefused(code) => match code {
                Code::NotAuthorized | Code::BadUserNamePassword => Failure::lasting(
                    "the broker refuses us: check mqtt.username and mqtt.password (or mqtt.password_file)",
                ),
                Code::BadClientId => {
                    Failure::lasting("the broker refuses our client id: check mqtt.client_id")
                }
                Code::RefusedProtocolVersion => Failure::lasting("the broker does not speak MQTT 3.1.1"),
                _ => Failure::passing("the broker is not available"),
            },
            ConnectionError::Tls(error) => tls(&error),
            ConnectionError::NotConnAck(_) => {
                Failure::lasting("what answers is not an MQTT broker: check the port in mqtt.url")
            }
            ConnectionError::NetworkTimeout => Failure::passing("no answer from the broker"),
            ConnectionError::FlushTimeout => Failure::passing("the broker does not read"),
            ConnectionError::Io(error) => Failure::passing(error.to_string()),
            ConnectionError::MqttState(error) => state(&error),
            ConnectionError::RequestsDone => Failure::passing("the client ended"),
        }
    }
}

fn tls(error: &TlsError) -> Failure {
    match error {
        TlsError::Io(error) => match certificate_problem(error) {
            Some(problem) => Failure::lasting(format!("TLS: {problem}")),
            // A reset or an early end during the handshake: usually TLS spoken to a port that does not.
            None => Failure::passing(format!("TLS: {error}")),
        },
        error => Failure::lasting(format!("TLS: {error}")),
    }
}

fn state(error: &StateError) -> Failure {
    match error {
        StateError::ConnectionAborted => Failure::passing("the broker closed the connection"),
        StateError::AwaitPingResp => Failure::passing("the broker does not answer any more"),
        // With TLS 1.3 the broker's verdict on our certificate comes after the handshake, inside of this.
        StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)) => {
            match certificate_problem(error) {
                Some(problem) => Failure::lasting(format!("TLS: {problem}")),
                None => Failure::passing(error.to_string()),
            }
        }
        error => Failure::passing(error.to_string()),
    }
}

/// The rustls error inside an I/O error, if it is one that will be the same next time, in words that will be, too: rustls
/// itself tells the time of each try.
fn certificate_problem(error: &std::io::Error) -> Option<String> {
    let date = |time: &UnixTime| format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            Some(format!("invalid peer certificate: certificate expired at {}", date(not_after)))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            Some(format!("invalid peer certificate: certificate not valid before {}", date(not_before)))
        }
        error @ (rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn the_same_certificate_is_the_same_failure_at_every_try() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let tried = |problem: fn(UnixTime) -> CertificateError, now| {
            let error = rustls::Error::InvalidCertificate(problem(at(now)));
            tls(&TlsError::Io(io::Error::new(io::ErrorKind::InvalidData, error)))
        };
        const NEW_YEAR: Duration = Duration::from_secs(1_577_836_800);
        let not_after =
            |time| CertificateError::ExpiredContext { time, not_after: UnixTime::since_unix_epoch(NEW_YEAR) };
        let not_before = |time| CertificateError::NotValidYetContext {
            time,
            not_before: UnixTime::since_unix_epoch(NEW_YEAR),
        };
        for (problem, words) in [
            (not_after as fn(_) -> _, "certificate expired at 2020-01-01T00:00:00Z"),
            (not_before, "certificate not valid before 2020-01-01T00:00:00Z"),
        ] {
            let told = tried(problem, 10);
            assert!(told.needs_a_person && told.text.contains(words), "{told:?}");
            assert_eq!(told, tried(problem, 20));
        }
    }
}
