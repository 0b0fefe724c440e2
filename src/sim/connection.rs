//! One TCP connection to a simulated plug: request in, reply out, with the habits and faults of its behaviour.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::behaviour::{Behaviour, Reply};
use super::host::{Ask, Life, ask};
use super::json::Json;
use super::plug::Way;

use crate::plug::cipher::{self, Body};

/// Ends with the connection, whoever ends it.
pub(super) async fn serve(stream: TcpStream, asks: mpsc::Sender<Ask>, mut life: watch::Receiver<Life>) {
    let number = life.borrow().number;
    let behaviour = life.clone();
    tokio::select! {
        biased;
        _ = life.wait_for(|life| life.is_deaf() || life.number != number) => {}
        // The other side may go whenever it likes.
        _ = converse(stream, &asks, &behaviour) => {}
    }
}

async fn converse(
    mut stream: TcpStream,
    asks: &mpsc::Sender<Ask>,
    life: &watch::Receiver<Life>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut header = [0; cipher::HEADER];
        stream.read_exact(&mut header).await?;
        let ignore_length = life.borrow().behaviour.ignore_length;
        let request = match cipher::body_length(header) {
            _ if ignore_length => until_complete(&mut stream).await?,
            Ok(Body::Bytes(length)) => {
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await?;
                cipher::decrypt(&mut body);
                body
            }
            _ => return Ok(()),
        };
        let Some(reply) = ask(asks, request, Way::Tcp).await else { continue };
        let behaviour = life.borrow().behaviour.clone();
        if !behaviour.delay.is_zero() {
            sleep(behaviour.delay).await;
        }
        if !write(&mut stream, &reply, &behaviour).await? {
            return Ok(());
        }
    }
}

/// A request that ends where its JSON does, as firmware of 2016 took it whatever its header said.
async fn until_complete(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        if stream.read_buf(&mut body).await? == 0 || body.len() > cipher::MAX_BODY {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut plain = body.clone();
        cipher::decrypt(&mut plain);
        if !Json::parse(&plain).is_err_and(|error| error.is_eof()) {
            return Ok(plain);
        }
    }
}

/// Sends a reply, or what becomes of it. False when the connection ends with it.
async fn write(stream: &mut TcpStream, reply: &str, behaviour: &Behaviour) -> io::Result<bool> {
    let mut wire = cipher::frame(reply.as_bytes());
    let half = wire.len() / 2;
    match behaviour.reply {
        Reply::Whole | Reply::Text | Reply::Nan | Reply::Large | Reply::Negative => {}
        Reply::ZeroLength => wire[..cipher::HEADER].fill(0),
        Reply::Silence | Reply::Lost => std::future::pending().await,
        Reply::Rubbish => wire = cipher::frame(b"\x00\xff not JSON {"),
        Reply::Deep => wire = cipher::frame("[".repeat(10_000).as_bytes()),
        Reply::Huge => wire[..cipher::HEADER].fill(0xff),
        Reply::Half | Reply::Reset => wire.truncate(half),
    }
    let size = if behaviour.fragment == 0 { wire.len() } else { behaviour.fragment };
    for piece in wire.chunks(size) {
        stream.write_all(piece).await?;
        // Gives a reader in this process the chance to see the piece alone.
        yield_now().await;
    }
    match behaviour.reply {
        Reply::Reset => stream.set_zero_linger().map(|()| false),
        Reply::ZeroLength | Reply::Half => Ok(false),
        _ => Ok(!behaviour.close),
    }
}
