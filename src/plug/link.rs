//! The way to one plug: connects when needed, keeps the connection while the plug allows it.
//!
//! This is where a second transport (KLAP) will choose between connections; nothing above sees which one is in use.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::Client;
use super::error::Error;
use super::reply::Reply;
use super::room::{Room, Seat};

/// So many connections in a row that ended after one reply show a plug's habit.
const PROOF_OF_HABIT: u32 = 3;

/// A plug's way: at most one connection, at most one request on it.
#[derive(Debug)]
pub struct Link {
    host: String,
    port: u16,
    deadline: Duration,
    connection: Option<Connection>,
    room: Arc<Room>,
    /// Replies on this connection.
    replies: u32,
    /// Connections in a row that ended after one reply.
    brief: u32,
}

#[derive(Debug)]
struct Connection {
    client: Client<TcpStream>,
    _seat: Seat,
}

impl Link {
    /// A way to `host` (address or name) that gives every connect and every exchange `deadline`, and connects when
    /// there is `room`.
    pub fn new(host: &str, port: u16, deadline: Duration, room: Arc<Room>) -> Link {
        Link { host: host.into(), port, deadline, connection: None, room, replies: 0, brief: 0 }
    }

    /// Whether a connection is open, as far as can be told without asking the plug.
    pub fn is_open(&mut self) -> bool {
        // A plug that closed while idle, or talks unasked, is noticed here and not by the next request.
        if self.connection.as_ref().is_some_and(|open| !is_silent(open.client.stream())) {
            self.lost();
        }
        self.connection.is_some()
    }

    /// Whether the plug ends each connection after one reply, as many do. One that ended so is no proof: the plug may
    /// have gone.
    pub fn closes_after_each_reply(&self) -> bool {
        self.brief >= PROOF_OF_HABIT
    }

    fn lost(&mut self) {
        self.connection = None;
        self.brief = if self.replies == 1 { self.brief.saturating_add(1) } else { 0 };
    }

    /// Goes to another address from now on.
    pub fn move_to(&mut self, host: &str, port: u16) {
        self.connection = None;
        (self.host, self.port) = (host.into(), port);
    }

    /// Gives up the connection.
    pub fn close(&mut self) {
        self.connection = None;
    }

    /// Nothing more is to be said for now: gives up the connection if others need the room.
    pub fn rest(&mut self) {
        if self.connection.is_some() && self.room.is_crowded() {
            self.close();
        }
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

    async fn try_exchange(&mut self, request: &[u8]) -> Result<Reply, Error> {
        // Taken, and put back only when all went well: a failure, or this future dropped, closes the connection.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.replies = 0;
                self.connect().await?
            }
        };
        let body = connection.client.exchange(request, self.deadline).await?;
        let reply = Reply::parse(&body)?;
        self.replies = self.replies.saturating_add(1);
        if self.replies > 1 {
            self.brief = 0;
        }
        match connection.client.is_usable() {
            true => self.connection = Some(connection),
            // The firmware of 2016 says by a length of zero that it closes.
            false => self.lost(),
        }
        Ok(reply)
    }

    async fn connect(&self) -> Result<Connection, Error> {
        // Waiting for others is not the plug's fault, so it has no deadline.
        let seat = self.room.enter().await;
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = timeout(self.deadline, connecting)
            .await
            .map_err(|_| Error::Timeout(self.deadline))?
            .map_err(|error| Error::Connect(error.to_string()))?;
        // Requests are single writes that wait for nothing.
        stream.set_nodelay(true)?;
        Ok(Connection { client: Client::new(stream), _seat: seat })
    }
}

fn is_silent(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1]) {
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        Ok(_) => false,
    }
}
