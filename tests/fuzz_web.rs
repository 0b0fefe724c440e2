//! Hostile input to what speaks HTTP: the status page, asked by anybody, and the Supervisor's answer, which decides which
//! broker is used. Nothing may panic or hang, nobody may switch who may not, and no secret comes out.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, FORWARDED, HOST, HeaderMap, HeaderValue, ORIGIN};
use kasa2mqtt::config::supervisor::Supervisor;
use kasa2mqtt::http::access::{Access, Peer};
use kasa2mqtt::http::settings::Settings;
use support::bridge::Bridge;
use support::fuzz::{feed, feed_some, inputs, seeds};
use support::house::{config, plugs};
use support::{soon, web};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const TOKEN: &str = "correct horse battery";

/// Inputs that each need a connection or two: a hundredth, and not none.
fn connections() -> u32 {
    (inputs() / 100).max(30)
}

#[test]
fn headers() {
    let open = Access::of(&Settings::default()).unwrap();
    let closed = Access::of(&Settings { token: Some(TOKEN.into()), ..Settings::default() }).unwrap();
    let here = Peer::new([127, 0, 0, 1].into(), [127, 0, 0, 1].into());
    let there = Peer::new([192, 0, 2, 7].into(), [192, 0, 2, 1].into());
    let given = [
        "localhost:8099",
        "[::1]:8099",
        "127.0.0.1",
        "http://localhost:8099",
        "https://evil.example",
        "localhost.evil.example",
        "null",
        "Bearer correct horse battery",
        "for=192.0.2.7",
    ];
    feed(seeds(&given), |bytes| {
        let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
        for header in [HOST, ORIGIN, AUTHORIZATION, FORWARDED] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("localhost"));
            headers.insert(&header, value.clone());
            for peer in [here, there] {
                let (admitted, forwarded) = (open.admit(peer, "/api/set", &headers), header == FORWARDED);
                // From elsewhere nobody switches without a token; through a proxy neither.
                let may = open.control(peer, &headers).is_ok() && admitted.is_ok();
                assert!(!may || (peer.is_loopback() && !forwarded), "{headers:?}");
                assert_eq!(open.rights(peer, &headers).may_control, open.control(peer, &headers).is_ok());
                let knows =
                    headers.get(AUTHORIZATION).is_some_and(|value| value == &format!("Bearer {TOKEN}")[..]);
                assert_eq!(closed.control(peer, &headers).is_ok(), knows, "{headers:?}");
            }
            // Under a foreign name, or from a foreign page, nobody is answered.
            let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
            if (header == HOST || header == ORIGIN) && text.ends_with("evil.example") {
                assert!(open.admit(here, "/api/state", &headers).is_err(), "{headers:?}");
            }
        }
    });
}

/// Sends bytes, and reads what is answered until the end.
async fn say(page: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(page).await.unwrap();
    // Whoever has enough of it hangs up.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // What is a whole request is answered meanwhile; our end ends what is not.
    let _ = timeout(Duration::from_millis(50), stream.read_to_end(&mut answer)).await;
    let _ = stream.shutdown().await;
    let _ = soon("an end", stream.read_to_end(&mut answer)).await;
    answer
}

#[test]
fn requests_to_the_status_page() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let plugs = plugs(&["HS100-G3"]).await;
        let mut config = config(None, &plugs);
        config.http.token = Some(TOKEN.into());
        let (_bridge, page) = Bridge::with_page(config).await;
        soon("polls", plugs[0].counts().wait_for(|counts| counts.requests > 1)).await.unwrap();
        let body = format!(r#"{{"id":"{}","outlet":0,"state":"ON"}}"#, plugs[0].mac().replace(':', "").to_lowercase());
        let post = format!(
            "POST /api/set HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nauthorization: Bearer wrong\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let chunked = "POST /api/set HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"id\"\r\n0\r\n\r\n";
        let requests = [&post, &get("/"), &get("/api/state"), &get("/metrics"), &get("/health"), chunked];
        let said = requests.map(|request: &str| request);
        tokio::task::block_in_place(|| {
            feed_some(connections(), seeds(&said), |bytes| {
                let answer = tokio::runtime::Handle::current().block_on(say(page, bytes));
                assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
                assert!(!answer.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()));
            });
        });
        assert_eq!(web::get(page, "/").await.status, 200);
        assert_eq!(plugs[0].counts().borrow().relay_commands, 0, "nobody knew the token");
    });
}

#[test]
fn what_the_supervisor_says() {
    let folder = tempfile::tempdir().unwrap();
    let options = folder.path().join("options.json");
    std::fs::write(&options, "{}").unwrap();
    let body = r#"{"result":"ok","data":{"host":"core-mosquitto","port":1883,"ssl":false,"username":"addons","password":"x"}}"#;
    let reply = |body: &str| {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let replies =
        [&reply(body), &reply("{}"), "HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"];
    let replies: [&str; 4] = replies.map(|reply: &str| reply);
    feed_some(connections(), seeds(&replies), |bytes| {
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let bytes = bytes.to_vec();
            let said = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&bytes).await;
            });
            let supervisor = Supervisor::new(options.clone(), address, TOKEN.into());
            if let Err(problem) = soon("the Supervisor", supervisor.ask()).await {
                assert!(problem.contains("Supervisor") && !problem.contains(TOKEN), "{problem}");
            }
            soon("its end", said).await.unwrap();
        });
    });
    // A reply that never ends is waited for no longer than the rest.
    let begin = std::time::Instant::now();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let supervisor = Supervisor::new(options.clone(), address, TOKEN.into());
        assert!(soon("the Supervisor", supervisor.ask()).await.unwrap_err().contains("no answer"));
    });
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}
