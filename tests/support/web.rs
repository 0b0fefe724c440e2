//! A browser without eyes: requests to the status page, and its events.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::soon;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks on a connection of its own; `headers` take the place of those that a browser would send.
pub async fn ask(
    page: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let response = soon(path, send(page, method, path, headers, body)).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = soon("the body", response.into_body().collect()).await.unwrap().to_bytes();
    Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn send(
    page: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Incoming> {
    let stream = TcpStream::connect(page).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    let defaults = [(HOST, page.to_string()), (CONTENT_TYPE, "application/json".into())];
    for (name, value) in defaults {
        if !headers.iter().any(|(given, _)| *given == name.as_str()) {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(Full::new(Bytes::from(body.to_string()))).unwrap()).await.unwrap()
}

pub async fn get(page: SocketAddr, path: &str) -> Answer {
    ask(page, Method::GET, path, &[], "").await
}

/// A command, as the page sends it.
pub async fn set(page: SocketAddr, headers: &[(&str, &str)], command: &Value) -> Answer {
    ask(page, Method::POST, "/api/set", headers, &command.to_string()).await
}

/// The events of `/api/events`.
pub struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    pub async fn listen(page: SocketAddr) -> Events {
        let response = soon("events", send(page, Method::GET, "/api/events", &[], "")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Events { body: response.into_body(), text: String::new() }
    }

    /// The next one; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name| event.lines().find_map(|line| line.strip_prefix(name));
                let found = field("event: ").zip(field("data: "));
                let found = found.map(|(name, data)| (name.to_string(), serde_json::from_str(data).unwrap()));
                self.text = rest.to_string();
                if found.is_some() {
                    return found;
                }
            }
            let frame = self.body.frame().await?.ok()?;
            self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
    }

    /// The next one of this name that fits.
    pub async fn hear(&mut self, name: &str, mut fits: impl FnMut(&Value) -> bool) -> Value {
        let what = format!("event {name}");
        let found = soon(&what, async {
            loop {
                match self.next().await {
                    Some((heard, data)) if heard == name && fits(&data) => return data,
                    Some(_) => {}
                    None => panic!("the events ended before {name}"),
                }
            }
        });
        found.await
    }
}
