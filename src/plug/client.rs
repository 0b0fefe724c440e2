//! One conversation over any byte stream: a framed request out, one framed reply in.
//!
//! Generic over its stream, so that tests run it through a pipe of a few bytes. It knows no deadline but is told one:
//! a conversation that was given up in the middle must not be used again, because the late reply would be taken for
//! the answer to the next question. [`Client`] refuses to be used again after any failure.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::cipher::{self, Body, HEADER, MAX_BODY};
use super::error::Error;

/// Room for a whole reply of nearly every plug (sysinfo is 554 to 1165 bytes, protocol.md 1.2).
const USUAL_REPLY: usize = 1280;

/// One connection to a plug.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
    usable: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Speaks over `stream`.
    pub fn new(stream: S) -> Client<S> {
        Client { stream, usable: true }
    }

    /// The stream underneath.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Whether the last conversation ended well, so that another may follow.
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// Sends `request` (plain JSON) and returns the reply's plain bytes, all within `deadline`.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Closed`], [`Error::Broken`] or [`Error::TooLong`]; the client is then spent.
    pub async fn exchange(&mut self, request: &[u8], deadline: Duration) -> Result<Vec<u8>, Error> {
        if !self.usable {
            return Err(Error::Closed);
        }
        // Until the reply is whole; also when this future is dropped half-way.
        self.usable = false;
        let converse = async {
            // One write for header and body: two packets would wait for each other (Nagle, delayed ACK).
            self.stream.write_all(&cipher::frame(request)).await?;
            self.reply().await
        };
        let reply = timeout(deadline, converse).await.map_err(|_| Error::Timeout(deadline))??;
        Ok(reply)
    }

    async fn reply(&mut self) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::with_capacity(USUAL_REPLY);
        while buffer.len() < HEADER {
            self.read_some(&mut buffer).await?;
        }
        let header = buffer[..HEADER].try_into().expect("a header's length of bytes");
        let mut body = buffer.split_off(HEADER);
        match cipher::body_length(header)? {
            Body::Bytes(length) => {
                body.reserve_exact(length.saturating_sub(body.len()));
                while body.len() < length {
                    self.read_some(&mut body).await?;
                }
                // Whatever came after the reply belongs to no question of ours: leave the stream to nobody.
                self.usable = body.len() == length;
                body.truncate(length);
            }
            Body::UntilClose => {
                let room = (MAX_BODY + 1).saturating_sub(body.len()) as u64;
                (&mut self.stream).take(room).read_to_end(&mut body).await?;
                if body.len() > MAX_BODY {
                    return Err(Error::Malformed("no length announced and no end in sight".into()));
                }
                if body.is_empty() {
                    return Err(Error::Closed);
                }
            }
        }
        cipher::decrypt(&mut body);
        Ok(body)
    }

    async fn read_some(&mut self, buffer: &mut Vec<u8>) -> Result<(), Error> {
        match self.stream.read_buf(buffer).await? {
            0 => Err(Error::Closed),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Plays a plug that reads one request and then sends `wire` in pieces of `piece` bytes.
    async fn converse(wire: Vec<u8>, piece: usize, close: bool) -> (Result<Vec<u8>, Error>, bool) {
        let (ours, theirs) = duplex(piece);
        let plug = tokio::spawn(plug(theirs, wire, close));
        let mut client = Client::new(ours);
        let result = client.exchange(b"{}", SECOND).await;
        plug.abort();
        (result, client.is_usable())
    }

    async fn plug(mut stream: DuplexStream, wire: Vec<u8>, close: bool) {
        let mut request = [0; HEADER + 2];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request[..HEADER], [0, 0, 0, 2]);
        let _ = stream.write_all(&wire).await;
        if !close {
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test]
    async fn a_reply_in_one_byte_pieces_is_whole() {
        let (reply, usable) = converse(cipher::frame(b"{\"a\":1}"), 1, false).await;
        assert_eq!(reply.unwrap(), b"{\"a\":1}");
        assert!(usable);
    }

    #[tokio::test]
    async fn a_zero_header_means_until_close() {
        let mut wire = vec![0, 0, 0, 0];
        wire.extend(cipher::encrypt(b"{\"a\":1}"));
        let (reply, usable) = converse(wire, 3, true).await;
        assert_eq!(reply.unwrap(), b"{\"a\":1}");
        assert!(!usable, "the plug has closed");
    }

    #[tokio::test(start_paused = true)]
    async fn every_unfinished_reply_ends_the_conversation() {
        let whole = cipher::frame(b"{\"a\":1}");
        for length in 0..whole.len() {
            let (reply, usable) = converse(whole[..length].to_vec(), 64, true).await;
            assert_eq!(reply, Err(Error::Closed), "closed after {length} bytes");
            assert!(!usable);
            let (reply, usable) = converse(whole[..length].to_vec(), 64, false).await;
            assert_eq!(reply, Err(Error::Timeout(SECOND)), "silent after {length} bytes");
            assert!(!usable);
        }
    }

    #[tokio::test]
    async fn an_absurd_length_is_refused_before_anything_is_read() {
        let (reply, _) = converse(vec![0xff; 4], 64, false).await;
        assert!(matches!(reply, Err(Error::TooLong(_))));
        let mut endless = vec![0; 4];
        endless.extend(vec![1; MAX_BODY + 100]);
        let (reply, _) = converse(endless, 4096, false).await;
        assert!(matches!(reply, Err(Error::Malformed(_))));
    }

    #[tokio::test]
    async fn bytes_after_the_reply_are_never_taken_for_the_next_one() {
        let mut wire = cipher::frame(b"{\"a\":1}");
        wire.extend([0, 0, 0]);
        let (reply, usable) = converse(wire, 64, false).await;
        assert_eq!(reply.unwrap(), b"{\"a\":1}");
        assert!(!usable);
    }

    proptest! {
        #[test]
        fn any_reply_survives_any_fragmentation(plain in prop::collection::vec(any::<u8>(), 1..4000), piece in 1usize..2000) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let (reply, usable) = runtime.block_on(converse(cipher::frame(&plain), piece, false));
            prop_assert_eq!(reply.unwrap(), plain);
            prop_assert!(usable);
        }
    }
}
