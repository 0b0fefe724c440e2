//! What it takes to speak KLAP stays where it is needed: alone in its program, for it looks at everything that is logged.
#![cfg(feature = "embedded-broker")]

mod support;

use std::time::Duration;

use kasa2mqtt::sim::behaviour::{Behaviour, Klap};
use serde_json::Value;
use support::bridge::{Bridge, Program};
use support::broker::AnyBroker;
use support::house::Way;
use support::log::Logged;
use support::soon;
use support::watcher::Watcher;
use tracing::Level;

/// Names and passwords, as they were made up here, and what would be a key to a session.
const SECRETS: &[&str] = &["me@example.org", "them@example.org", "Swordfish", "Marmalade", "TP_SESSIONID"];

fn is_clean(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

/// One plug of our account, one of another's, and one whose account nobody told us: switched, refused, and followed from
/// one protocol to the other, with everything logged that can be.
#[tokio::test]
async fn no_account_is_logged_or_published_and_a_plug_that_refuses_us_floods_no_log() {
    let log = Logged::start(Level::TRACE);
    let broker = AnyBroker::embedded().await;
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("#").await;
    let way = Way::Klap(Klap::Second);
    let plugs = way.plugs(&["HS110-G3", "HS100-G3", "HS100-G3"]).await;
    for (plug, account) in
        plugs.iter().zip(["me@example.org:Swordfish", "them@example.org:Marmalade", "nobody:knows"])
    {
        plug.behave(Behaviour { account: Some(account.into()), ..way.behaviour() }).await;
    }
    let mut config = way.config(Some(broker.address()), &plugs);
    config.poll.interval = Duration::from_secs(1);
    config.kasa.password = Some("Swordfish".into());
    config.plug[1].username = Some("them@example.org".into());
    config.plug[1].password = Some("Marmalade".into());
    config.plug[2].name = Some("refuses".into());
    is_clean(&format!("{config:?}"));
    let (bridge, page) = Bridge::with_page(config).await;
    for name in ["kasa/plug-0", "kasa/plug-1"] {
        watcher.hear(name, |_| true).await;
        watcher.publish(&format!("{name}/set"), "ON", false).await;
        watcher.hear(name, |payload| payload.contains(r#""state":"ON""#)).await;
    }
    plugs[0].speak(None).await;
    watcher.hear("kasa/bridge/event", |payload| payload.contains("protocol_changed")).await;
    watcher.publish("kasa/refuses/set", "ON", false).await;
    watcher.hear("kasa/refuses/result", |payload| payload.contains(r#""ok":false"#)).await;
    watcher.hear("kasa/refuses/availability", |payload| payload == "offline").await;
    for path in ["/api/state", "/metrics", "/health"] {
        is_clean(&support::web::get(page, path).await.body);
    }
    bridge.stop().await.unwrap();

    for heard in &watcher.log.borrow().heard {
        is_clean(&heard.payload);
    }
    let everything = log.lines(|line| line.contains("kasa2mqtt"));
    assert!(everything.len() > 20, "{everything:?}");
    log.lines(|_| true).iter().for_each(|line| is_clean(line));
    let of_plug = |line: &str| line.contains("refuses") || line.contains(&plugs[2].address().to_string());
    let loud = log.lines(|line| of_plug(line) && (line.contains("WARN") || line.contains("ERROR")));
    assert_eq!(loud.len(), 2, "that it wants an account, and that it is offline: {loud:#?}");
}

#[tokio::test]
async fn check_tells_of_accounts_and_never_which() {
    for arguments in [&["check"][..], &["check", "--json"]] {
        let mut command = tokio::process::Command::from(Program::command());
        command.args(arguments).kill_on_drop(true);
        command.env("KASA2MQTT_KASA__USERNAME", "me@example.org");
        command.env("KASA2MQTT_KASA__PASSWORD", "Swordfish");
        command.env(
            "KASA2MQTT_PLUG",
            r#"[{host="192.0.2.1", username="them@example.org", password="Marmalade"}]"#,
        );
        let output = soon("check", command.output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.matches("account").count() == 2, "{said}");
        is_clean(&said);
        is_clean(&String::from_utf8_lossy(&output.stderr));
        if arguments.len() > 1 {
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!((&said["account"], &said["plugs"][0]["account"]), (&true.into(), &true.into()));
        }
    }
}
