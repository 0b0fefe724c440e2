//! The status page in a real browser. `tests/run` installs chromium, and playwright-core to drive it; the tests
//! themselves are in tests/browser.

mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

#[cfg(feature = "embedded-broker")]
use {
    kasa2mqtt::cli::simulate::mac,
    kasa2mqtt::sim::model::Model,
    kasa2mqtt::sim::plug::SimPlug,
    kasa2mqtt::sim::server::{Behaviour, Simulator},
    support::bridge::Program,
    support::house::FREE,
    support::port,
};

use support::peers::cache;
use tokio::io::{AsyncBufReadExt, BufReader};

/// For a whole script, on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(300);

fn page(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a script of tests; node ends with this future, and chromium with node. `asked` is called when the script asks for
/// it.
async fn browse(script: &str, url: Option<SocketAddr>, mut asked: impl AsyncFnMut()) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(script);
    let mut command = tokio::process::Command::new("node");
    command.arg(path).env("NODE_PATH", cache("npm/node_modules")).kill_on_drop(true);
    command.envs(url.map(|url| ("KASA2MQTT_PAGE", format!("http://{url}/"))));
    command.stdout(Stdio::piped());
    let mut said = String::new();
    let run = async {
        let mut node = command.spawn().expect("node: tests/run installs it");
        let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            println!("{line}");
            said.extend([&line, "\n"]);
            if line == "PRESS THE BUTTON" {
                asked().await;
            }
        }
        node.wait().await.unwrap()
    };
    let status = tokio::time::timeout(DEADLINE, run).await.unwrap_or_else(|_| panic!("{script} did not end"));
    assert!(status.success(), "{script}: {said}");
    let passed =
        said.lines().find_map(|line| line.trim_start_matches(['#', 'ℹ']).trim().strip_prefix("pass "));
    assert!(passed.is_some_and(|count| count != "0"), "{script} ran no test: {said}");
}

/// What the network names cannot become markup, and the page asks for nothing that its policy forbids.
#[test]
fn the_page_makes_no_markup_of_text() {
    let script = page("page.js");
    assert!(script.contains("textContent"), "this test reads something else");
    let makers = ["innerHTML", "outerHTML", "insertAdjacentHTML", "setHTML", "document.write"];
    let parsers = ["DOMParser", "createContextualFragment", "srcdoc", "eval(", "Function(", "javascript:"];
    for word in makers.iter().chain(&parsers) {
        assert!(!script.contains(word), "page.js names {word}");
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let html = page("index.html");
    assert!(html.contains(r#"src="page.js""#) && html.contains(r#"href="page.css""#));
    // The icon is a picture of its own, and names the standard that it follows.
    let markup: String = html.lines().filter(|line| !line.contains(r#"rel="icon""#)).collect();
    let handlers = ["onload", "onerror", "onclick", "onsubmit", "oninput"];
    for word in ["style=", "<style", "<script>", "=\"/", "http:", "https:"].iter().chain(&handlers) {
        assert!(!markup.contains(word), "index.html has {word}");
    }
    let script = page("page.js");
    for word in ["http://", "https://", "\"/", "`/", "import "] {
        assert!(!script.contains(word), "page.js names {word}");
    }
    let style = page("page.css");
    for word in ["url(", "@import"] {
        assert!(!style.contains(word), "page.css names {word}");
    }
}

#[tokio::test]
#[ignore = "needs chromium: tests/run"]
async fn the_page_in_a_browser() {
    // One after the other: the second measures how smooth the page is.
    for script in ["page.test.js", "crowd.test.js", "picture.test.js"] {
        browse(script, None, async || {}).await;
    }
}

/// The program itself, its page on a port of its own.
#[cfg(feature = "embedded-broker")]
fn program(plugs: &[Simulator], interval: &str) -> (Program, SocketAddr) {
    let hosts: Vec<String> = plugs.iter().map(|plug| format!("{{host=\"{}\"}}", plug.address())).collect();
    let (page, broker) = (port::unused(), port::unused());
    let mut command = Program::command();
    command.arg("run").env("KASA2MQTT_PLUG", format!("[{}]", hosts.join(",")));
    command.env("KASA2MQTT_BROKER__LISTEN", broker.to_string()).env("KASA2MQTT_POLL__INTERVAL", interval);
    command.env("KASA2MQTT_HTTP__LISTEN", page.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    (Program::spawn(&mut command), page)
}

#[cfg(feature = "embedded-broker")]
async fn is_there(page: SocketAddr) {
    support::soon("the page", async {
        while tokio::net::TcpStream::connect(page).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[cfg(feature = "embedded-broker")]
#[tokio::test]
#[ignore = "needs chromium: tests/run"]
async fn the_program_itself_in_a_browser() {
    let mut plugs = support::house::plugs(&["HS110-G3", "HS300"]).await;
    let hostile = r#"<img src=x onerror=document.title="x">"#;
    for (number, alias) in [(7, hostile), (8, "never heard of")] {
        let plug = SimPlug::new(Model::named("HS100-G2").unwrap(), alias, mac(number));
        plugs.push(Simulator::start(plug, FREE).await.unwrap());
    }
    plugs[3].behave(Behaviour { refuse: true, ..Behaviour::default() }).await;
    let (program, page) = program(&plugs, "1s");
    is_there(page).await;
    browse("real.test.js", Some(page), async || plugs[0].press(true).await).await;
    // The page's own switches moved the relays, and each of them once.
    let commands = async |plug: &Simulator, outlet: usize| {
        let seen = &plug.look().await;
        (seen.outlets()[outlet].relay(), seen.outlets()[outlet].commands())
    };
    assert_eq!(commands(&plugs[0], 0).await, (false, 1));
    assert_eq!(commands(&plugs[1], 2).await, (true, 1));
    assert_eq!(commands(&plugs[1], 0).await, (false, 0));
    program.signal("TERM");
    assert!(program.ended().await.success());
}

#[cfg(feature = "embedded-broker")]
#[tokio::test]
#[ignore = "needs chromium: tests/run"]
async fn five_hundred_plugs_of_the_program_in_a_browser() {
    let plugs = support::house::plugs(&["HS110-G3"; 500]).await;
    for plug in &plugs {
        plug.press(true).await;
    }
    let (_program, page) = program(&plugs, "2s");
    is_there(page).await;
    browse("real_crowd.test.js", Some(page), async || {}).await;
}
