//! What can go wrong with a plug, and whether trying again makes sense.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use super::cipher::TooLong;
use super::mac::Mac;

/// Why a plug did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection came about: refused, no route, unknown host name.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Nothing, or not everything, came within the deadline.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The plug closed the connection before its reply was whole.
    #[error("the plug closed the connection before its reply was whole")]
    Closed,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Broken(String),
    /// The frame header announced more than any plug has to say.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The reply is not what the protocol says; the text names the part.
    #[error("malformed reply: {0}")]
    Malformed(String),
    /// The plug understood and refused: its own `err_code` and `err_msg` (protocol.md 5).
    #[error("the plug refused: {message} (err_code {code})")]
    Refused {
        /// `err_code`, never 0.
        code: i64,
        /// `err_msg`, shortened and without control characters.
        message: String,
    },
    /// The plug has no such thing, or is no plug at all.
    #[error("unsupported: {0}")]
    Unsupported(Cow<'static, str>),
    /// Another plug answers at this address, so nothing was asked of it.
    #[error("another plug answers at this address: {found} instead of {expected}")]
    WrongPlug {
        /// The plug we look for.
        expected: Mac,
        /// The plug that answered.
        found: Mac,
    },
    /// The plug speaks KLAP and knows neither the configured account nor one that firmware has built in.
    #[error(
        "the plug wants the account that it was set up with: give its e-mail address and password, as in the Kasa app, \
         as kasa.username and kasa.password, or open port 9999 again, in the app by Me > Settings > Third-Party \
         Compatibility, off and on, and keep the plug from the internet, so that no update of the firmware closes it"
    )]
    Auth,
    /// The plug has ended the session, as it does when another client begins one. The request was not carried out.
    #[error("the plug ended the session")]
    Forgotten,
    /// The command waited too long to be run (`commands.ttl`).
    #[error("the command waited too long and was not run")]
    Stale,
    /// The plug failed a moment ago and was not asked again for this command.
    #[error("the plug is offline: {0}")]
    Resting(String),
}

impl Error {
    /// Whether the plug could not be talked to at all. False when it answered, however badly it liked the question.
    pub fn is_contact_failure(&self) -> bool {
        match self {
            Error::Connect(_)
            | Error::Timeout(_)
            | Error::Closed
            | Error::Broken(_)
            | Error::TooLong(_)
            | Error::Malformed(_)
            | Error::WrongPlug { .. }
            | Error::Auth
            | Error::Forgotten => true,
            Error::Refused { .. } | Error::Unsupported(_) | Error::Stale | Error::Resting(_) => false,
        }
    }

    /// Whether the plug says that it has no such module or method, and so never will (protocol.md 5).
    pub fn is_unknown_to_plug(&self) -> bool {
        matches!(self, Error::Refused { code: -1 | -2 | -2000 | -2001, .. })
    }

    /// Whether the plug has certainly not carried out what it was asked, so that it may be asked again.
    pub fn is_undone(&self) -> bool {
        matches!(self, Error::Forgotten)
    }

    /// Whether the connection ended under the request, as it does when a plug closes an idle connection
    /// (protocol.md 1.3): the one failure that a new connection cures at once.
    pub fn is_lost_connection(&self) -> bool {
        matches!(self, Error::Closed | Error::Broken(_) | Error::Forgotten)
    }
}

/// The plug has no such thing.
pub fn unsupported(what: impl Into<Cow<'static, str>>) -> Error {
    Error::Unsupported(what.into())
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::Closed,
            _ => Error::Broken(error.to_string()),
        }
    }
}
