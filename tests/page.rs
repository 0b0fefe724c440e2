//! The status page in a real browser. `tests/run` installs chromium, and playwright-core to drive it; the tests
//! themselves are in tests/browser.

mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use support::peers::cache;

/// For a whole script, on a machine that has other things to do.
const DEADLINE: Duration = Duration::from_secs(300);

fn page(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/page").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a script of tests; node ends with this future, and chromium with node.
async fn browse(script: &str, url: Option<&str>) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/browser").join(script);
    let mut command = tokio::process::Command::new("node");
    command.arg(path).env("NODE_PATH", cache("npm/node_modules")).kill_on_drop(true);
    command.envs(url.map(|url| ("KASA2MQTT_PAGE", url)));
    let output: Output = tokio::time::timeout(DEADLINE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{script} did not end"))
        .expect("node: tests/run installs it");
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success(), "{script}: {said}{}", String::from_utf8_lossy(&output.stderr));
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
        browse(script, None).await;
    }
}
