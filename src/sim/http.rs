//! One HTTP connection to a simulated plug that speaks KLAP, with the habits and faults of its behaviour.

use std::convert::Infallible;
use std::future::pending;
use std::io;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, COOKIE, SERVER, SET_COOKIE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::behaviour::Reply;
use super::host::{Ask, Life};
use super::klap::{Answer, Post};
use crate::plug::cipher::MAX_BODY;

/// Ends with the connection, whoever ends it.
pub(super) async fn serve(stream: TcpStream, asks: mpsc::Sender<Ask>, mut life: watch::Receiver<Life>) {
    let number = life.borrow().number;
    let behaviour = life.clone();
    let answer = service_fn(|request| answer(request, &asks, &behaviour));
    let mut builder = http1::Builder::new();
    let connection = builder.auto_date_header(false).serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        biased;
        _ = life.wait_for(|life| life.is_deaf() || life.number != number) => {}
        // The other side may go whenever it likes.
        _ = connection => {}
    }
}

/// An error ends the connection.
async fn answer(
    request: Request<Incoming>,
    asks: &mpsc::Sender<Ask>,
    life: &watch::Receiver<Life>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(io::Error::other)?;
    let sequence = head.uri.query().and_then(|query| query.strip_prefix("seq=")?.parse().ok());
    let cookie = head.headers.get(COOKIE).and_then(|cookie| cookie.to_str().ok()).map(String::from);
    let path = head.uri.path().to_owned();
    let is_request = sequence.is_some();
    let post = Post { path, sequence, cookie, body: body.to_bytes().into() };
    let (sender, receiver) = oneshot::channel();
    let _ = asks.send(Ask::Post(post, sender)).await;
    let Ok(Some(answer)) = receiver.await else { return Ok(never().await) };
    let behaviour = life.borrow().behaviour.clone();
    if !behaviour.delay.is_zero() {
        sleep(behaviour.delay).await;
    }
    let Answer { status, cookie, mut body } = answer;
    if is_request {
        match behaviour.reply {
            Reply::Whole | Reply::Rubbish | Reply::Deep => {}
            // Done to the reply itself.
            Reply::Text | Reply::Nan | Reply::Large | Reply::Negative => {}
            Reply::ZeroLength => body.clear(),
            Reply::Silence | Reply::Lost => return Ok(never().await),
            Reply::Huge => body.resize(MAX_BODY + 1, 0),
            Reply::Half => body.truncate(body.len() / 2 + 1),
            Reply::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
    let mut response =
        Response::builder().status(status).header(SERVER, "SHIP 2.0").header(CONTENT_TYPE, "text/html");
    if let Some(cookie) = cookie {
        response = response.header(SET_COOKIE, cookie);
    }
    if behaviour.close {
        response = response.header(CONNECTION, "close");
    }
    response.body(Full::from(body)).map_err(io::Error::other)
}

async fn never<T>() -> T {
    let never: Infallible = pending().await;
    match never {}
}
