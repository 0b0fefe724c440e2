//! The alerts and the dashboard of `deploy/`: they ask for what the bridge says, Prometheus understands them, alerts fire
//! when they are to, and every panel has something to show.
#![cfg(feature = "embedded-broker")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hyper::Method;
use kasa2mqtt::sim::server::{Behaviour, Simulator};
use serde_json::Value;
use support::bridge::Bridge;
use support::broker::AnyBroker;
use support::house::{config, plugs};
use support::machine::must;
use support::output::Talking;
use support::peers::cache;
use support::web::{ask, get};
use support::{port, soon};

const RULES: &str = "deploy/prometheus/kasa2mqtt.rules.yml";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(file(path)).unwrap()).unwrap()
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(file("deploy/grafana/kasa2mqtt.json")).unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("expected text: {value}")).to_string()
}

/// Each alert's name and expression.
fn alerts() -> Vec<(String, String)> {
    let rules = yaml(RULES);
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    rules.iter().map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

/// What each panel asks, as Grafana fills in its variables, with the panel's title.
fn questions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (text(&panel["title"]), text(&target["expr"])))
    });
    let annotations = annotations.iter().map(|one| (text(&one["name"]), text(&one["expr"])));
    let fill = |expression: String| {
        let variables = [("$__rate_interval", "10s"), ("$__range", "1h"), ("$job", ".*"), ("$plug", ".*")];
        variables.iter().fold(expression, |filled, (name, value)| filled.replace(name, value))
    };
    targets.chain(annotations).map(|(title, expression)| (title, fill(expression))).collect()
}

/// The bridge's metrics that an expression names.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = expression.split(|letter: char| !is_part(letter));
    words.filter(|word| word.starts_with("kasa_") || word.starts_with("process_")).map(String::from).collect()
}

/// The labels by which an expression chooses or groups.
fn labels_in(expression: &str) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for selector in expression.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()) {
        labels
            .extend(selector.split(',').map(|matcher| matcher.split(['=', '!']).next().unwrap().to_string()));
    }
    for word in ["by (", "on ("] {
        for list in expression.split(word).skip(1).map(|rest| rest.split(')').next().unwrap()) {
            labels.extend(list.split(',').map(|label| label.trim().to_string()));
        }
    }
    labels
}

/// A bridge with a meter, a strip, a plug that does not answer; and its page, once all of it shows in the metrics.
async fn house() -> (Vec<Simulator>, AnyBroker, Bridge, SocketAddr) {
    let plugs = plugs(&["HS110-G3", "HS300", "HS100-G2"]).await;
    plugs[2].behave(Behaviour { refuse: true, ..Behaviour::default() }).await;
    let broker = AnyBroker::embedded().await;
    let mut config = config(Some(broker.address()), &plugs);
    config.poll.interval = Duration::from_secs(1);
    let (bridge, page) = Bridge::with_page(config).await;
    let complete = async {
        loop {
            let metrics = get(page, "/metrics").await.body;
            let has = |series: &str| metrics.lines().any(|line| line.starts_with(series));
            if has(r#"kasa_outlet_power_watts{plug="plug-0""#)
                && has(r#"kasa_outlet_energy_joules_total{plug="plug-1",outlet="6"}"#)
                && has("kasa_broker_connected 1")
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all metrics", complete).await;
    (plugs, broker, bridge, page)
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_what_the_bridge_says() {
    let (_plugs, _broker, _bridge, page) = house().await;
    let metrics = get(page, "/metrics").await.body;
    let names: BTreeSet<&str> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let (alerts, questions) = (alerts(), questions());
    assert!(
        alerts.len() >= 10 && questions.len() >= 20,
        "{} alerts, {} questions",
        alerts.len(),
        questions.len()
    );
    let mut named = BTreeSet::new();
    for (whose, expression) in alerts.iter().chain(&questions) {
        let asked = metrics_in(expression);
        assert!(!asked.is_empty() || expression.starts_with("up{"), "{whose}: {expression}");
        for metric in &asked {
            assert!(names.contains(metric.as_str()), "{whose}: there is no {metric}");
        }
        for label in labels_in(expression) {
            // Prometheus itself says where it has a sample from.
            let is_said =
                metrics.contains(&format!("{{{label}=\"")) || metrics.contains(&format!(",{label}=\""));
            assert!(
                is_said || ["job", "instance"].contains(&label.as_str()),
                "{whose}: there is no label {label}"
            );
        }
        named.extend(asked);
    }
    // The page of metrics is not longer than anybody needs: but for these, all of it is shown or watched.
    let unused: Vec<_> = names.iter().filter(|name| !named.contains(**name)).collect();
    assert_eq!(unused, [&"kasa_outlet_current_amperes", &"kasa_outlet_energy_today_joules"]);
    // The variables of the dashboard, too.
    for variable in dashboard()["templating"]["list"].as_array().unwrap() {
        let query = variable["definition"].as_str().unwrap_or_default();
        assert!(metrics_in(query).iter().all(|name| names.contains(name.as_str())), "{query}");
    }
    // A kind of error that is watched is one that is counted.
    for kind in alerts.iter().flat_map(|(_, expression)| expression.split("kind=\"").skip(1)) {
        let kind = kind.split('"').next().unwrap();
        assert!(metrics.contains(&format!("kind=\"{kind}\"")), "{kind}");
    }
}

#[test]
fn the_dashboard_is_one() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{panel}");
        for (x, y) in (place("x")..place("x") + place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y)))
        {
            assert!(taken.insert((x, place("y") + y)), "{} lies on another", panel["title"]);
        }
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert!(letters.insert(text(&target["refId"])), "{panel}");
            // Whatever Prometheus the reader has.
            assert_eq!(target["datasource"]["uid"], "${datasource}");
        }
        assert_eq!(letters.is_empty(), panel["type"] == "row", "{panel}");
    }
    // All jobs are all bridges, not everything that Prometheus knows.
    let job = &dashboard["templating"]["list"][1];
    assert!(job["name"] == "job" && job.get("allValue").is_none(), "{job}");
    let variables: Vec<String> =
        dashboard["templating"]["list"].as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
    assert_eq!(variables, ["datasource", "job", "plug"]);
}

/// Every alert's job is the one that the example scrapes, and a test of promtool's makes it fire.
#[test]
fn every_alert_is_tested() {
    let scrape = yaml("deploy/prometheus/scrape.yml");
    assert_eq!(scrape["scrape_configs"][0]["job_name"], "kasa2mqtt");
    assert_eq!(file("deploy/prometheus").join(text(&scrape["rule_files"][0])), file(RULES));
    let tests = fs::read_to_string(file("tests/prometheus/kasa2mqtt.test.yml")).unwrap();
    for (name, expression) in alerts() {
        assert!(expression.contains("job=\"kasa2mqtt\""), "{name}");
        let fires = [format!(r#"{{alertname="{name}""#), format!("alertname: {name}\n")];
        assert!(fires.iter().any(|fires| tests.contains(fires)), "{name} fires in no test");
    }
}

#[test]
#[ignore = "needs promtool: tests/run"]
fn alerts_fire_when_they_are_to_and_not_before() {
    let promtool = || Command::new(cache("prometheus/usr/bin/promtool"));
    let checked = must(promtool().args(["check", "rules"]).arg(file(RULES)));
    assert!(checked.contains(&format!("{} rules found", alerts().len())), "{checked}");
    must(promtool().args(["test", "rules"]).arg(file("tests/prometheus/kasa2mqtt.test.yml")));
}

/// What a Prometheus answers, once it has an answer that is not empty.
async fn answered(prometheus: SocketAddr, whose: &str, expression: &str) -> Value {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let path = format!("/api/v1/query?query={encoded}");
    soon(&format!("{whose}: {expression}"), async {
        loop {
            let answer = ask(prometheus, Method::GET, &path, &[], "").await.json();
            assert_eq!(answer["status"], "success", "{whose}: {expression}: {answer}");
            let result = &answer["data"]["result"];
            if result.as_array().is_some_and(|series| !series.is_empty()) {
                return result.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs prometheus: tests/run"]
async fn a_prometheus_reads_the_bridge_and_every_panel_has_something_to_show() {
    let (_plugs, mut broker, _bridge, page) = house().await;
    let folder = tempfile::tempdir().unwrap();
    // The example, but faster.
    let example = fs::read_to_string(file("deploy/prometheus/scrape.yml")).unwrap();
    let mine = example
        .replace("192.168.1.10:8099", &page.to_string())
        .replace("scrape_interval: 15s", "scrape_interval: 1s");
    assert!(mine.contains(&page.to_string()) && mine.contains(": 1s"), "{mine}");
    let configuration = folder.path().join("prometheus.yml");
    fs::write(&configuration, format!("global: {{ evaluation_interval: 1s }}\n{mine}")).unwrap();
    fs::copy(file(RULES), folder.path().join("kasa2mqtt.rules.yml")).unwrap();
    let address = port::unused();
    let mut command = Command::new(cache("prometheus/usr/bin/prometheus"));
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    let mut prometheus = Talking::start("prometheus", &mut command);
    prometheus.says("it is ready", |line| line.contains("ready to receive web requests"));

    let up = answered(address, "the scrape", r#"up{job="kasa2mqtt"} == 1"#).await;
    assert_eq!(up.as_array().unwrap().len(), 1, "{up}");
    for (title, expression) in questions() {
        // A bridge that has started once has no second start.
        if title != "starts of the bridge" {
            answered(address, &title, &expression).await;
        }
    }
    let lost = r#"count by (alertname, plug) (ALERTS{alertname="KasaPlugOffline"})"#;
    answered(address, "a plug that does not answer", lost).await;
    broker.kill().await;
    answered(address, "a broker that is away", r#"ALERTS{alertname="KasaBrokerLost"}"#).await;
    let rules = get(address, "/api/v1/rules").await.json();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), alerts().len());
    assert!(rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");
}
