//! The two ways in which JSON travels to a plug and back.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::plug::client::Client;
use crate::plug::error::Error;
use crate::plug::klap::auth::Version;
use crate::plug::klap::session::Session;
use crate::plug::protocol::Protocol;

/// What is open to a plug.
#[derive(Debug)]
pub enum Transport {
    /// A connection to port 9999.
    Xor(Client<TcpStream>),
    /// A session, whatever becomes of the connections below it.
    Klap(Box<Session>),
}

impl Transport {
    /// Its name for people.
    pub fn protocol(&self) -> Protocol {
        match self {
            Transport::Xor(_) => Protocol::Xor,
            Transport::Klap(session) => match session.version() {
                Version::V1 => Protocol::Klap,
                Version::V2 => Protocol::Klap2,
            },
        }
    }

    /// Whether the last conversation ended well, so that another may follow.
    pub fn is_usable(&self) -> bool {
        match self {
            Transport::Xor(client) => client.is_usable(),
            Transport::Klap(_) => true,
        }
    }

    /// Whether it is of use still, as far as can be told without asking the plug.
    pub fn is_open(&self) -> bool {
        match self {
            // A plug that closed while idle, or talks unasked, is noticed here and not by the next request.
            Transport::Xor(client) => is_silent(client.stream()),
            Transport::Klap(session) => session.is_alive(),
        }
    }

    /// One request, one reply, plain.
    pub async fn exchange(&mut self, request: &[u8], deadline: Duration) -> Result<Vec<u8>, Error> {
        match self {
            Transport::Xor(client) => client.exchange(request, deadline).await,
            Transport::Klap(session) => {
                Box::pin(session.exchange(request)).await.map_err(|error| match error {
                    // A port that closed: the plug speaks XOR again, which a new contact finds out.
                    Error::Connect(text) => Error::Broken(text),
                    error => error,
                })
            }
        }
    }
}

fn is_silent(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1]) {
        Err(error) => error.kind() == ErrorKind::WouldBlock,
        Ok(_) => false,
    }
}
