//! Requests in, answers out: every connection, its limits, and what each path is.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Ask;
use super::access::{Access, HEALTH, Peer, Refusal};
use super::metrics;
use super::painter::Question;
use super::patience::Patient;

/// Connections at the same time; whoever comes then is hung up on.
const CONNECTIONS: usize = 64;

/// Those of this machine beyond that: a health check gets through, however many browsers there are.
const OWN_CONNECTIONS: usize = 8;

/// Whoever guesses tokens has to wait for each answer.
const WRONG_TOKEN: Duration = Duration::from_millis(500);

/// Time for the head of a request, for its body, and for each part of the answer to be taken.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest body of a request.
const LARGEST_BODY: usize = 4096;

/// Time for the core to say that it is there.
const CORE_ANSWERS: Duration = Duration::from_secs(5);

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// With every answer.
const HEADERS: [(HeaderName, &str); 4] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
];

#[derive(Clone)]
struct Desk {
    access: Access,
    painter: mpsc::Sender<Question>,
    core: mpsc::Sender<Ask>,
}

/// Places for connections.
struct Rooms {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

impl Rooms {
    fn new() -> Rooms {
        Rooms { all: Arc::new(Semaphore::new(CONNECTIONS)), own: Arc::new(Semaphore::new(OWN_CONNECTIONS)) }
    }

    /// A place, as long as it is not dropped.
    fn place(&self, peer: Peer) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.all).try_acquire_owned().ok();
        let own = || Arc::clone(&self.own).try_acquire_owned().ok().filter(|_| peer.is_loopback());
        place.or_else(own)
    }
}

/// Serves for ever.
pub async fn run(
    listener: std::net::TcpListener,
    access: Access,
    painter: mpsc::Sender<Question>,
    core: mpsc::Sender<Ask>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "the status page cannot listen"),
    };
    let router = router(Desk { access, painter, core });
    let rooms = Rooms::new();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(own) = stream.local_addr() else { continue };
                let peer = Peer::new(address.ip(), own.ip());
                let Some(place) = rooms.place(peer) else {
                    debug!(%address, "too many connections to the status page");
                    continue;
                };
                let router = router.clone().layer(Extension(peer));
                let _ = stream.set_nodelay(true);
                tokio::spawn(async move {
                    serve(stream, router).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, mostly: nobody tells when there are some again.
                debug!(%error, "a connection to the status page was not accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, router: Router) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    let stream = TokioIo::new(Patient::new(stream, PATIENCE));
    // The other side may go whenever it likes.
    let _ = builder.serve_connection(stream, TowerToHyperService::new(router)).await;
}

fn router(desk: Desk) -> Router {
    let page =
        |kind: &'static str, text: &'static str| get(move || async move { ([(CONTENT_TYPE, kind)], text) });
    Router::new()
        .route("/", page("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/page.js", page("text/javascript; charset=utf-8", include_str!("page/page.js")))
        .route("/page.css", page("text/css; charset=utf-8", include_str!("page/page.css")))
        .route("/api/state", get(state))
        .route("/api/events", get(events))
        .route("/api/set", post(set))
        .route("/metrics", get(metrics))
        .route(HEALTH, get(health))
        .layer(middleware::from_fn_with_state(desk.clone(), guard))
        .with_state(desk)
}

/// Before every path: who may speak at all; after it: what browsers are told with every answer.
async fn guard(
    State(desk): State<Desk>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match desk.access.admit(peer, request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => refuse(StatusCode::FORBIDDEN, why),
    };
    let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

async fn state(State(desk): State<Desk>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Response {
    let rights = desk.access.rights(peer, &headers);
    match ask(&desk.painter, |answer| Question::State(rights, answer)).await {
        Some(Some(state)) => (json_type(), state).into_response(),
        Some(None) => busy(),
        None => ending(),
    }
}

async fn events(State(desk): State<Desk>, Extension(peer): Extension<Peer>, headers: HeaderMap) -> Response {
    let rights = desk.access.rights(peer, &headers);
    match ask(&desk.painter, |answer| Question::Listen(rights, answer)).await {
        Some(Some(events)) => {
            // Proxies that buffer would hold events back.
            let headers =
                [(CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
            (headers, Body::new(Events(events))).into_response()
        }
        Some(None) => busy(),
        None => ending(),
    }
}

async fn metrics(State(desk): State<Desk>) -> Response {
    match ask(&desk.painter, Question::Metrics).await {
        Some(Some(text)) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Some(None) => busy(),
        None => ending(),
    }
}

/// Asks the core itself, for only that tells whether it turns.
async fn health(State(desk): State<Desk>) -> Response {
    let answer = timeout(CORE_ANSWERS, ask(&desk.core, Ask::Whole)).await.ok().flatten();
    let connected = answer.is_some_and(|whole| whole.connected);
    let body = json!({
        "healthy": connected,
        "core": {"running": answer.is_some()},
        "broker": {"connected": connected, "sessions": answer.map(|whole| whole.sessions)},
        "version": env!("CARGO_PKG_VERSION"),
    });
    let status = if connected { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, json_type(), body.to_string()).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    id: String,
    outlet: u8,
    state: To,
}

#[derive(Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum To {
    On,
    Off,
    Toggle,
}

async fn set(State(desk): State<Desk>, Extension(peer): Extension<Peer>, request: Request) -> Response {
    match desk.access.control(peer, request.headers()) {
        Ok(()) => {}
        Err(Refusal::Token) => {
            sleep(WRONG_TOKEN).await;
            return refuse(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
        }
        Err(Refusal::Forbidden(why)) => return refuse(StatusCode::FORBIDDEN, why),
    }
    let received = Instant::now();
    let Set { id, outlet, state } = match read(request).await {
        Ok(set) => set,
        Err((status, why)) => return refuse(status, &why),
    };
    let payload = match state {
        To::On => "ON",
        To::Off => "OFF",
        To::Toggle => "TOGGLE",
    };
    match ask(&desk.core, |result| Ask::Set { plug: id, outlet, payload, received, result }).await {
        Some(Some(result)) => (json_type(), result).into_response(),
        Some(None) => refuse(StatusCode::NOT_FOUND, "no such plug or outlet"),
        None => ending(),
    }
}

async fn read(request: Request) -> Result<Set, (StatusCode, String)> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    // A page of another origin cannot say this without asking first.
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err((BAD, "expected Content-Type: application/json".into()));
    }
    let body = timeout(PATIENCE, to_bytes(request.into_body(), LARGEST_BODY)).await;
    let body = body.map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the body did not come".into()))?;
    let body =
        body.map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or broken off".into()))?;
    serde_json::from_slice(&body).map_err(|error| (BAD, error.to_string()))
}

/// Asks, and waits for the answer; `None` when nobody answers any more.
async fn ask<Q, A>(to: &mpsc::Sender<Q>, question: impl FnOnce(oneshot::Sender<A>) -> Q) -> Option<A> {
    let (sender, receiver) = oneshot::channel();
    to.send(question(sender)).await.ok()?;
    receiver.await.ok()
}

fn json_type() -> [(HeaderName, &'static str); 1] {
    [(CONTENT_TYPE, "application/json")]
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, json_type(), json!({"error": why}).to_string()).into_response()
}

fn busy() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "too many browsers, or too slow ones, are served already")
}

fn ending() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the bridge is stopping")
}

/// Events as they come.
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use crate::http::settings::Settings;

    use super::*;

    /// A connection of this machine, and the ends of what the server asks.
    fn connection() -> (DuplexStream, mpsc::Receiver<Question>, mpsc::Receiver<Ask>) {
        let (painter, questions) = mpsc::channel(1);
        let (core, asks) = mpsc::channel(1);
        let access = Access::of(&Settings::default()).unwrap();
        let here = "127.0.0.1".parse().unwrap();
        let router = router(Desk { access, painter, core }).layer(Extension(Peer::new(here, here)));
        let (near, far) = duplex(4096);
        tokio::spawn(serve(near, router));
        (far, questions, asks)
    }

    #[test]
    fn a_health_check_of_this_machine_finds_a_place_when_strangers_have_all() {
        let rooms = Rooms::new();
        let peer = |address: &str| Peer::new(address.parse().unwrap(), "192.0.2.1".parse().unwrap());
        let strangers: Vec<_> = (0..CONNECTIONS).map(|_| rooms.place(peer("192.0.2.7")).unwrap()).collect();
        assert!(rooms.place(peer("192.0.2.8")).is_none());
        let own: Vec<_> = (0..OWN_CONNECTIONS).map(|_| rooms.place(peer("127.0.0.1")).unwrap()).collect();
        assert!(rooms.place(peer("127.0.0.1")).is_none());
        drop((strangers, own));
        assert!(rooms.place(peer("192.0.2.8")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_hung_up_on() {
        let command = "POST /api/set HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let body = format!("{command}content-length: 10\r\n\r\n{{");
        let page = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        for (said, answered) in [("", ""), ("GET / HT", ""), (command, ""), (&body, "408"), (page, "200")] {
            let (mut stream, _questions, _asks) = connection();
            stream.write_all(said.as_bytes()).await.unwrap();
            let began = tokio::time::Instant::now();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let answer = String::from_utf8(answer).unwrap();
            // Some servers say why they hang up.
            let status = answer.split(' ').nth(1).unwrap_or_default();
            assert!(status == answered || (answered.is_empty() && status == "408"), "{said}: {answer}");
            let waited = began.elapsed();
            assert!(waited >= PATIENCE && waited < PATIENCE * 3, "{said}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_core_that_stands_still_is_not_healthy() {
        let (mut stream, _questions, _asks) = connection();
        stream.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).to_string();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(r#""running":false"#), "{answer}");
    }
}
