//! The way to one plug: connects when needed, keeps the connection while the plug allows it.
//!
//! Which transport is used is decided at each contact: port 9999 first, and where that is closed, KLAP. Nothing above
//! sees which one it is, so that a plug whose firmware was updated, or whose owner opened the port again, is simply met
//! in its new way the next time.

mod announced;
mod transport;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::client::Client;
use super::error::{Error, unsupported};
use super::klap::account::{Account, auths};
use super::klap::auth::Auth;
use super::klap::http::Http;
use super::klap::parts::parts;
use super::klap::session::Session;
use super::protocol::Protocol;
use super::reply::Reply;
use super::room::{Room, Seat};
use announced::announced;
use transport::Transport;

/// A plug that knows none of our accounts is asked again after so much time, or when the account has changed.
const REFUSED: Duration = Duration::from_secs(300);

/// What it takes to reach a plug, beside its address.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The accounts that it may have been set up with, in case its firmware closed port 9999; the likeliest first.
    pub accounts: Arc<[Account]>,
    /// Where it listens then.
    pub ports: Ports,
    /// Where its connection finds room.
    pub room: Arc<Room>,
}

/// Where plugs listen that closed port 9999; tests have others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Where they say who they are, by UDP.
    pub discovery: u16,
    /// KLAP, by TCP, of a plug that does not say where.
    pub http: u16,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports { discovery: 20002, http: 80 }
    }
}

/// So many connections in a row that ended after one reply show a plug's habit.
const PROOF_OF_HABIT: u32 = 3;

/// A plug's way: at most one connection, at most one request on it.
#[derive(Debug)]
pub struct Link {
    host: String,
    port: u16,
    deadline: Duration,
    access: Access,
    open: Option<Open>,
    /// Whoever is at the other end of this connection has said who it is.
    vouched: bool,
    protocol: Protocol,
    /// Replies on this connection.
    replies: u32,
    /// Connections in a row that ended after one reply.
    brief: u32,
    /// The port where the plug spoke KLAP the last time.
    http: Option<u16>,
    /// Whether the plug answers no more than one module at a time.
    one_by_one: bool,
    /// The accounts that the plug does not know, and until when it is not asked about them again.
    refused: Option<(Instant, Vec<Auth>)>,
}

/// On which connection a request may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// On a new one, if need be.
    Anywhere,
    /// On the open one that is vouched for, and on no other.
    Here,
}

#[derive(Debug)]
struct Open {
    transport: Transport,
    _seat: Seat,
}

impl Link {
    /// A way to `host` (address or name) that gives every connect and every exchange `deadline`. `port` is that of XOR.
    pub fn new(host: &str, port: u16, deadline: Duration, access: Access) -> Link {
        Link {
            host: host.into(),
            port,
            deadline,
            access,
            open: None,
            vouched: false,
            protocol: Protocol::default(),
            replies: 0,
            brief: 0,
            http: None,
            one_by_one: false,
            refused: None,
        }
    }

    /// Whether a connection is open, as far as can be told without asking the plug.
    pub fn is_open(&mut self) -> bool {
        if self.open.as_ref().is_some_and(|open| !open.transport.is_open()) {
            self.lost();
        }
        self.open.is_some()
    }

    /// What was spoken last, for people to know.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether a connection is open at whose other end the plug has said who it is.
    pub fn is_vouched_for(&mut self) -> bool {
        self.is_open() && self.vouched
    }

    /// On the connection that is open now, if one is, the right plug has answered.
    pub fn vouch(&mut self) {
        self.vouched = self.open.is_some();
    }

    /// Whether the plug ends each connection after one reply, as many do. One that ended so is no proof: the plug may
    /// have gone.
    pub fn closes_after_each_reply(&self) -> bool {
        self.brief >= PROOF_OF_HABIT
    }

    fn lost(&mut self) {
        self.open = None;
        self.brief = if self.replies == 1 { self.brief.saturating_add(1) } else { 0 };
    }

    /// Goes to another address from now on.
    pub fn move_to(&mut self, host: &str, port: u16) {
        (self.open, self.http, self.refused) = (None, None, None);
        (self.host, self.port) = (host.into(), port);
    }

    /// Gives up the connection.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Nothing more is to be said for now: gives up the connection if others need the room.
    pub fn rest(&mut self) {
        if self.open.is_some() && self.access.room.is_crowded() {
            self.close();
        }
    }

    /// One request, one reply. On a connection that was used before, an end of the connection is taken for the plug's
    /// habit of closing idle ones: the request is sent once more on a new one, if `repeatable`.
    pub async fn exchange(&mut self, request: &[u8], repeatable: bool) -> Result<Reply, Error> {
        let (reused, one_by_one) = (self.is_open(), self.one_by_one);
        match self.try_exchange(request, Where::Anywhere).await {
            Err(error) if error.is_lost_connection() && (reused || self.one_by_one != one_by_one) => {
                self.lost();
                if repeatable { self.try_exchange(request, Where::Anywhere).await } else { Err(error) }
            }
            outcome => outcome,
        }
    }

    /// One request, one reply, on the connection that is [vouched for](Link::is_vouched_for) and on no other.
    ///
    /// # Errors
    /// [`Error::Closed`], with nothing sent, when there is none.
    pub async fn exchange_here(&mut self, request: &[u8]) -> Result<Reply, Error> {
        if !self.is_vouched_for() {
            return Err(Error::Closed);
        }
        let outcome = self.try_exchange(request, Where::Here).await;
        if outcome.as_ref().is_err_and(Error::is_lost_connection) {
            self.lost();
        }
        outcome
    }

    async fn try_exchange(&mut self, request: &[u8], place: Where) -> Result<Reply, Error> {
        let parts = if self.one_by_one { parts(request) } else { Vec::new() };
        if parts.is_empty() {
            return self.converse(request).await;
        }
        let mut replies = Vec::new();
        for part in parts {
            if place == Where::Here && !self.is_vouched_for() {
                return Err(Error::Closed);
            }
            replies.push(self.converse(&part).await?);
        }
        Ok(Reply::of_parts(replies))
    }

    async fn converse(&mut self, request: &[u8]) -> Result<Reply, Error> {
        // Taken, and put back only when all went well: a failure, or this future dropped, closes the connection.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                (self.replies, self.vouched) = (0, false);
                // Waiting for others is not the plug's fault, so it has no deadline.
                let seat = self.access.room.enter().await;
                Open { transport: self.contact().await?, _seat: seat }
            }
        };
        self.protocol = open.transport.protocol();
        let is_klap = self.protocol != Protocol::Xor;
        let body = open.transport.exchange(request, self.deadline).await.map_err(|error| match error {
            // HTML, odd lengths and the like are how firmware says that the session is gone, or that the request was too
            // much for it (protocol.md 7).
            Error::Malformed(text) if is_klap => {
                self.one_by_one |= !parts(request).is_empty();
                Error::Broken(text)
            }
            error => error,
        })?;
        let reply = Reply::parse(&body)?;
        self.replies = self.replies.saturating_add(1);
        if self.replies > 1 {
            self.brief = 0;
        }
        // A session that never outlives its first reply is begun anew for each request.
        match open.transport.is_usable() && !(is_klap && self.closes_after_each_reply()) {
            true => self.open = Some(open),
            // The firmware of 2016 says by a length of zero that it closes.
            false => self.lost(),
        }
        Ok(reply)
    }

    /// Connects, in whichever way the plug takes now.
    async fn contact(&mut self) -> Result<Transport, Error> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let connected =
            timeout(self.deadline, connecting).await.map_err(|_| Error::Timeout(self.deadline))?;
        match connected {
            Ok(stream) => {
                // Requests are single writes that wait for nothing.
                stream.set_nodelay(true)?;
                (self.one_by_one, self.refused) = (false, None);
                Ok(Transport::Xor(Client::new(stream)))
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // In a box, like all of KLAP: most plugs do not speak it, and each of them has a task.
                Box::pin(self.contact_klap(error)).await
            }
            Err(error) => Err(Error::Connect(error.to_string())),
        }
    }

    /// The plug is there, and `closed` is what its port 9999 said.
    async fn contact_klap(&mut self, closed: io::Error) -> Result<Transport, Error> {
        let auths = auths(&self.access.accounts).map_err(|error| Error::Connect(error.to_string()))?;
        if self.refused.as_ref().is_some_and(|(until, refused)| Instant::now() < *until && *refused == auths)
        {
            return Err(Error::Auth);
        }
        let closed = Error::Connect(closed.to_string());
        let port = match self.http.take() {
            Some(port) => port,
            None => match announced(&self.host, self.access.ports.discovery).await {
                Some(found) => match found.protocol {
                    Protocol::Klap | Protocol::Klap2 => found.address.port(),
                    Protocol::Xor => return Err(closed),
                    Protocol::Unsupported => return Err(unsupported("it speaks neither XOR nor KLAP")),
                },
                None => self.access.ports.http,
            },
        };
        let mut http = Http::new(&self.host, port, self.deadline);
        // Nothing listens there either: a plug that restarts, or no plug at all.
        http.connect().await.map_err(|_| closed)?;
        let outcome = Session::open(http, &auths).await;
        match &outcome {
            Ok(_) => (self.http, self.refused) = (Some(port), None),
            Err(Error::Auth) => {
                // Not all plugs of a house at the same moment.
                let pause = REFUSED.mul_f64(1.0 + fastrand::f64() / 5.0);
                self.refused = Some((Instant::now() + pause, auths));
            }
            Err(_) => {}
        }
        outcome.map(|session| Transport::Klap(Box::new(session)))
    }
}
