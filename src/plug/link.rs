//! The way to one plug: connects when needed, keeps the connection while the plug allows it.
//!
//! This is where a second transport (KLAP) will choose between connections; nothing above sees which one is in use.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::Client;
use super::error::Error;
use super::reply::Reply;

/// So many connections in a row that ended after one reply show a plug's habit.
const PROOF_OF_HABIT: u32 = 3;

/// A plug's way: at most one connection, at most one request on it.
#[derive(Debug)]
pub struct Link {
    host: String,
    port: u16,
    deadline: Duration,
    client: Option<Client<TcpStream>>,
    /// Whoever is at the other end of this connection has said who it is.
    vouched: bool,
    /// Replies on this connection.
    replies: u32,
    /// Connections in a row that ended after one reply.
    brief: u32,
}

impl Link {
    /// A way to `host` (address or name) that gives every connect and every exchange `deadline`.
    pub fn new(host: &str, port: u16, deadline: Duration) -> Link {
        Link { host: host.into(), port, deadline, client: None, vouched: false, replies: 0, brief: 0 }
    }

    /// Whether a connection is open, as far as can be told without asking the plug.
    pub fn is_open(&mut self) -> bool {
        // A plug that closed while idle, or talks unasked, is noticed here and not by the next request.
        if self.client.as_ref().is_some_and(|client| !is_silent(client.stream())) {
            self.lost();
        }
        self.client.is_some()
    }

    /// Whether a connection is open at whose other end the plug has said who it is.
    pub fn is_vouched_for(&mut self) -> bool {
        self.is_open() && self.vouched
    }

    /// On the connection that is open now, if one is, the right plug has answered.
    pub fn vouch(&mut self) {
        self.vouched = self.client.is_some();
    }

    /// Whether the plug ends each connection after one reply, as many do. One that ended so is no proof: the plug may
    /// have gone.
    pub fn closes_after_each_reply(&self) -> bool {
        self.brief >= PROOF_OF_HABIT
    }

    fn lost(&mut self) {
        self.client = None;
        self.brief = if self.replies == 1 { self.brief.saturating_add(1) } else { 0 };
    }

    /// Goes to another address from now on.
    pub fn move_to(&mut self, host: &str, port: u16) {
        self.client = None;
        (self.host, self.port) = (host.into(), port);
    }

    /// Gives up the connection.
    pub fn close(&mut self) {
        self.client = None;
    }

    /// One request, one reply. On a connection that was used before, an end of the connection is taken for the plug's
    /// habit of closing idle ones: the request is sent once more on a new one, if `repeatable`.
    pub async fn exchange(&mut self, request: &[u8], repeatable: bool) -> Result<Reply, Error> {
        let reused = self.is_open();
        match self.try_exchange(request).await {
            Err(error) if reused && error.is_lost_connection() => {
                self.lost();
                if repeatable { self.try_exchange(request).await } else { Err(error) }
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
        let outcome = self.try_exchange(request).await;
        if outcome.as_ref().is_err_and(Error::is_lost_connection) {
            self.lost();
        }
        outcome
    }

    async fn try_exchange(&mut self, request: &[u8]) -> Result<Reply, Error> {
        // Taken, and put back only when all went well: a failure, or this future dropped, closes the connection.
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                (self.replies, self.vouched) = (0, false);
                self.connect().await?
            }
        };
        let body = client.exchange(request, self.deadline).await?;
        let reply = Reply::parse(&body)?;
        self.replies = self.replies.saturating_add(1);
        if self.replies > 1 {
            self.brief = 0;
        }
        match client.is_usable() {
            true => self.client = Some(client),
            // The firmware of 2016 says by a length of zero that it closes.
            false => self.lost(),
        }
        Ok(reply)
    }

    async fn connect(&self) -> Result<Client<TcpStream>, Error> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = timeout(self.deadline, connecting)
            .await
            .map_err(|_| Error::Timeout(self.deadline))?
            .map_err(|error| Error::Connect(error.to_string()))?;
        // Requests are single writes that wait for nothing.
        stream.set_nodelay(true)?;
        Ok(Client::new(stream))
    }
}

fn is_silent(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1]) {
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        Ok(_) => false,
    }
}
