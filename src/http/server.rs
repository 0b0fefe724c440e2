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
use tokio::sync::{Semaphore, mpsc, oneshot};
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
    let [room, own_room] = [CONNECTIONS, OWN_CONNECTIONS].map(|places| Arc::new(Semaphore::new(places)));
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Ok(own) = stream.local_addr() else { continue };
                let peer = Peer::new(address.ip(), own.ip());
                let place = Arc::clone(&room).try_acquire_owned();
                let place = place.or_else(|full| match peer.is_loopback() {
                    true => Arc::clone(&own_room).try_acquire_owned(),
                    false => Err(full),
                });
                let Ok(place) = place else {
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
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
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

async fn read(request: Request) -> Result<Set, String> {
    // A page of another origin cannot say this without asking first.
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err("expected Content-Type: application/json".into());
    }
    let body = timeout(PATIENCE, to_bytes(request.into_body(), LARGEST_BODY)).await;
    let body = body.map_err(|_| "the body did not come")?.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
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
