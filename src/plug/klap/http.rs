//! HTTP 1.1 with one server: one connection, kept while the server allows it, and one request on it at a time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, COOKIE, HOST, HeaderValue, SET_COOKIE};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::plug::cipher::{MAX_BODY, TooLong};
use crate::plug::error::Error;

/// Longer than any session's cookie, in bytes.
const LONGEST_COOKIE: usize = 512;

/// A server, and the connection to it if there is one.
#[derive(Debug)]
pub struct Http {
    host: String,
    port: u16,
    deadline: Duration,
    connection: Option<Connection>,
}

/// A connection works only while `driver` is polled.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// As in `200`.
    pub status: u16,
    /// The first cookie that was set, with its attributes.
    pub cookie: Option<String>,
    /// At most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
}

impl Http {
    /// A server at `host` (address or name) that is given `deadline` for each connect and each request.
    pub fn new(host: &str, port: u16, deadline: Duration) -> Http {
        Http { host: host.into(), port, deadline, connection: None }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens the connection, if there is none.
    ///
    /// # Errors
    /// [`Error::Connect`] or [`Error::Timeout`].
    pub async fn connect(&mut self) -> Result<(), Error> {
        if let Some(connection) = &mut self.connection
            && connection.is_open().await
        {
            return Ok(());
        }
        self.connection = None;
        let connecting = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = timeout(self.deadline, connecting)
            .await
            .map_err(|_| Error::Timeout(self.deadline))?
            .map_err(|error: std::io::Error| Error::Connect(error.to_string()))?;
        // Names of headers as browsers write them: who knows how well firmware reads.
        let mut builder = http1::Builder::new();
        builder.title_case_headers(true).max_buf_size(MAX_BODY);
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(failure)?;
        self.connection = Some(Connection { sender, driver: Box::pin(driver) });
        Ok(())
    }

    /// One request, one answer. The connection is given up unless all went well.
    ///
    /// # Errors
    /// The server could not be reached, or did not answer in HTTP, in time or in bounds.
    pub async fn post(
        &mut self,
        target: &str,
        cookie: Option<&HeaderValue>,
        body: Vec<u8>,
    ) -> Result<Answer, Error> {
        self.connect().await?;
        let mut request = Request::post(target)
            .header(HOST, self.authority())
            .header(CONTENT_TYPE, "application/octet-stream");
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Full::from(body)).map_err(|error| Error::Broken(error.to_string()))?;
        // Put back only when all went well; also when this future is dropped.
        let mut connection = self.connection.take().ok_or(Error::Closed)?;
        let answer = timeout(self.deadline, connection.exchange(request))
            .await
            .map_err(|_| Error::Timeout(self.deadline))??;
        self.connection = Some(connection);
        Ok(answer)
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

impl Connection {
    /// Whether the other side has left it open.
    async fn is_open(&mut self) -> bool {
        let driver = &mut self.driver;
        !self.sender.is_closed()
            && poll_fn(|context| Poll::Ready(driver.as_mut().poll(context).is_pending())).await
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let sender = &mut self.sender;
        let mut exchange = pin!(async { read(sender.send_request(request).await.map_err(failure)?).await });
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            // The connection has ended; what was read before is still there.
            _ = &mut self.driver => exchange.await,
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, Error> {
    let announced = response.body().size_hint().lower();
    if announced > MAX_BODY as u64 {
        return Err(TooLong(announced.try_into().unwrap_or(u32::MAX)).into());
    }
    let status = response.status().as_u16();
    let cookie = response.headers().get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
    let cookie = cookie.filter(|cookie| cookie.len() <= LONGEST_COOKIE).map(String::from);
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => failure(*error),
        Err(_) => Error::Malformed("no end in sight".into()),
    })?;
    Ok(Answer { status, cookie, body: body.to_bytes().into() })
}

fn failure(error: hyper::Error) -> Error {
    if error.is_parse() {
        return Error::Malformed(format!("not HTTP: {error}"));
    }
    match error.is_closed() || error.is_canceled() || error.is_incomplete_message() {
        true => Error::Closed,
        false => Error::Broken(error.to_string()),
    }
}
