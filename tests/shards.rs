//! Several bridges that share the plugs of one broker, through the whole program.
#![cfg(feature = "embedded-broker")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use kasa2mqtt::bridge::shard::Shard;
use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::config::Config;
use kasa2mqtt::plug::mac::Mac;
use kasa2mqtt::sim::server::Simulator;
use serde_json::{Value, json};
use support::bridge::{Bridge, Program};
use support::broker::AnyBroker;
use support::house::{self, plugs};
use support::watcher::Watcher;
use support::{port, soon};

against_both_brokers! {
    each_plug_has_one_shard_and_commands_one_result
    what_another_shard_left_is_taken_over_and_nothing_else_is_touched
    a_shard_is_added_and_taken_away_and_no_plug_is_missed
    a_shard_that_is_replaced_takes_up_where_it_was
    shards_that_count_differently_are_told_of_and_no_plug_has_two_masters
    two_shards_of_one_number_are_told_of
    requests_are_answered_by_whom_they_concern
    one_bridge_becomes_three_and_topics_stay
    what_every_shard_finds_one_serves
}

/// Between polls, where gaps are measured.
const INTERVAL: Duration = Duration::from_secs(2);

const PLUGS: usize = 12;

/// Of the plug of this number, as `support::house::plugs` makes it.
fn owner(number: usize, count: u32) -> u32 {
    let mac: Mac = id(number).parse().unwrap();
    (1..=count).find(|number| Shard { number: *number, count }.owns(mac)).unwrap()
}

/// Every shard knows every plug, by its host alone.
fn config(broker: &AnyBroker, plugs: &[Simulator], shard: &str) -> Config {
    let mut config = house::config(Some(broker.address()), plugs);
    config.shard = Some(shard.parse().unwrap());
    config.poll.interval = Duration::from_secs(1);
    config
}

async fn watch(broker: &AnyBroker) -> Watcher {
    let watcher = Watcher::connect(broker.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.subscribe("homeassistant/#").await;
    watcher
}

/// In shards the digits of the MAC are in each name that is made of an alias.
fn name(number: usize) -> String {
    format!("plug-{number}-5e00{:02x}", number + 1)
}

async fn online(watcher: &Watcher, from: usize) {
    for number in 0..PLUGS {
        watcher.hear_after(from, &format!("kasa/{}", name(number)), |state| state.contains("state")).await;
        watcher
            .hear_after(from, &format!("kasa/{}/availability", name(number)), |text| text == "online")
            .await;
    }
}

async fn retained(broker: &AnyBroker) -> BTreeMap<String, String> {
    let mut all = Watcher::retained(broker.address(), "kasa/#").await;
    all.extend(Watcher::retained(broker.address(), "homeassistant/#").await);
    all
}

/// MAC -> the shards that list it.
fn listed(retained: &BTreeMap<String, String>) -> BTreeMap<String, Vec<String>> {
    let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (topic, payload) in retained.iter().filter(|(topic, _)| topic.ends_with("/devices")) {
        for device in serde_json::from_str::<Vec<Value>>(payload).unwrap() {
            let id = device["id"].as_str().unwrap_or("unknown").to_string();
            listed.entry(id).or_default().push(topic.split('/').nth(2).unwrap().into());
        }
    }
    listed
}

/// Waits until every plug is listed by the shard that owns it, and by no other, and announced as its.
async fn settled(broker: &AnyBroker, count: u32) -> BTreeMap<String, String> {
    let is_so = async {
        loop {
            let retained = retained(broker).await;
            let listed = listed(&retained);
            let right = (0..PLUGS).all(|number| {
                let id = id(number);
                let shard = format!("shard-{}", owner(number, count));
                let config = retained.get(&format!("homeassistant/device/kasa_{id}/config"));
                let state = format!("kasa/bridge/{shard}/state");
                listed.get(&id) == Some(&vec![shard]) && config.is_some_and(|config| config.contains(&state))
            });
            if right && listed.len() == PLUGS {
                return retained;
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(30), is_so).await {
        Ok(retained) => retained,
        Err(_) => panic!("not settled: {:#?}", listed(&retained(broker).await)),
    }
}

/// One command for each plug; each is run once and answered once.
async fn command_all(watcher: &Watcher, plugs: &[Simulator], round: &str) {
    let before: Vec<u64> = plugs.iter().map(|plug| plug.counts().borrow().relay_commands).collect();
    let from = watcher.mark();
    for number in 0..PLUGS {
        let payload = json!({"state": "TOGGLE", "transaction": format!("{round}-{number}")}).to_string();
        watcher.publish(&format!("kasa/{}/set", name(number)), &payload, false).await;
    }
    for number in 0..PLUGS {
        let is_it = |result: &str| result.contains(&format!(r#""{round}-{number}""#));
        let topic = format!("kasa/{}/result", name(number));
        let result = watcher.hear_after(from, &topic, is_it).await;
        assert!(result.payload.contains(r#""ok":true"#), "{result:?}");
    }
    // A second one would be there before what is said after it.
    watcher.publish("kasa/end", round, false).await;
    watcher.hear_after(from, "kasa/end", |text| text == round).await;
    for (number, plug) in plugs.iter().enumerate() {
        let commands = plug.counts().borrow().relay_commands - before[number];
        assert_eq!(commands, 1, "plug {number} in {round}");
        let topic = format!("kasa/{}/result", name(number));
        let results = watcher
            .on(&topic)
            .iter()
            .filter(|result| result.contains(&format!(r#""{round}-{number}""#)))
            .count();
        assert_eq!(results, 1, "{topic}");
    }
}

async fn each_plug_has_one_shard_and_commands_one_result(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    let watcher = watch(&broker).await;
    let shards = ["1/3", "2/3", "3/3"].map(|shard| Bridge::start(config(&broker, &plugs, shard)));
    online(&watcher, 0).await;
    let retained = settled(&broker, 3).await;
    for number in 1..=3 {
        assert_eq!(retained[&format!("kasa/bridge/shard-{number}/state")], "online");
        let bridge: Value =
            serde_json::from_str(&retained[&format!("homeassistant/device/kasa_bridge_{number}/config")])
                .unwrap();
        assert_eq!(bridge["device"]["identifiers"], json!([format!("kasa_bridge_{number}")]));
        let info: Value =
            serde_json::from_str(&retained[&format!("kasa/bridge/shard-{number}/info")]).unwrap();
        assert_eq!(info["shard"], format!("{number}/3"));
        assert!((0..PLUGS).any(|plug| owner(plug, 3) == number), "a test without plugs for shard {number}");
    }
    assert!(!retained.keys().any(|topic| topic == "kasa/bridge/state" || topic == "kasa/bridge/devices"));
    for number in 0..3 {
        command_all(&watcher, &plugs, &format!("round {number}")).await;
    }
    // Whoever does not own a plug asked it once who it is; its shard keeps the connection.
    for plug in &plugs {
        assert_eq!(plug.counts().borrow().connections, 3);
    }
    for shard in shards {
        shard.stop().await.unwrap();
    }
    for number in 1..=3 {
        let topic = format!("kasa/bridge/shard-{number}/state");
        assert_eq!(Watcher::retained(broker.address(), &topic).await[&topic], "offline");
    }
}

/// A plug that has one owner of two shards, and the third of three.
fn moving() -> usize {
    (0..PLUGS).find(|number| owner(*number, 2) == 2 && owner(*number, 3) == 3).unwrap()
}

fn id(number: usize) -> String {
    mac(u16::try_from(number).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn what_another_shard_left_is_taken_over_and_nothing_else_is_touched(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    let watcher = watch(&broker).await;
    let shards = ["1/2", "2/2"].map(|shard| Bridge::start(config(&broker, &plugs, shard)));
    online(&watcher, 0).await;
    settled(&broker, 2).await;
    let rename = json!({"from": name(moving()), "to": "freezer"}).to_string();
    watcher.publish("kasa/bridge/request/device/rename", &rename, false).await;
    watcher.hear("kasa/bridge/response/device/rename", |answer| answer.contains(r#""ok""#)).await;
    watcher.hear("kasa/freezer", |state| state.contains("state")).await;
    // Two versions of a config are two seconds apart.
    let announcement = format!("homeassistant/device/kasa_{}/config", id(moving()));
    watcher.hear(&announcement, |config| config.contains("kasa/freezer")).await;
    watcher.hear(&format!("kasa/{}", name(moving())), str::is_empty).await;
    for shard in shards {
        shard.stop().await.unwrap();
    }
    let before = retained(&broker).await;
    let mut from = watcher.mark();
    let mut all = Vec::new();
    for number in [3, 1, 2] {
        all.push(Bridge::start(config(&broker, &plugs, &format!("{number}/3"))));
        watcher
            .hear_after(from, &format!("kasa/bridge/shard-{number}/state"), |state| state == "online")
            .await;
        for plug in (0..PLUGS).filter(|plug| owner(*plug, 3) == number) {
            let topic = format!("homeassistant/device/kasa_{}/config", id(plug));
            let is_its = |config: &str| config.contains(&format!("kasa/bridge/shard-{number}/state"));
            if owner(plug, 2) == number {
                watcher.hear_after(from, &topic, is_its).await;
            } else {
                watcher.hear(&topic, is_its).await;
            }
        }
        // Everything of the others is as it was.
        let now = retained(&broker).await;
        for plug in (0..PLUGS).filter(|plug| number == 3 && owner(*plug, 3) != 3) {
            let name = name(plug);
            for topic in [format!("kasa/{name}"), format!("kasa/{name}/availability")] {
                assert_eq!(now.get(&topic), before.get(&topic), "{topic}");
            }
            let topic = format!("homeassistant/device/kasa_{}/config", id(plug));
            assert_eq!(now.get(&topic), before.get(&topic), "{topic}");
        }
        from = watcher.mark();
    }
    let after = settled(&broker, 3).await;
    assert!(after.contains_key("kasa/freezer") && !after.contains_key(&format!("kasa/{}", name(moving()))));
    let names = |retained: &BTreeMap<String, String>| -> BTreeSet<String> {
        retained.keys().filter(|topic| !topic.contains("bridge")).cloned().collect()
    };
    assert_eq!(names(&after), names(&before), "the same topics and entities");
}

/// The longest time for which a plug was not asked anything, of all plugs.
fn gaps(plugs: &[Simulator]) -> tokio::task::JoinSet<Duration> {
    let mut gaps = tokio::task::JoinSet::new();
    for plug in plugs {
        let mut counts = plug.counts();
        gaps.spawn(async move {
            let (mut last, mut longest) = (std::time::Instant::now(), Duration::ZERO);
            // The simulator goes first, at the end of the test.
            while counts.changed().await.is_ok() {
                longest = longest.max(last.elapsed());
                last = std::time::Instant::now();
            }
            longest.max(last.elapsed())
        });
    }
    gaps
}

/// Once the plugs are gone.
async fn no_gap_is_long(gaps: tokio::task::JoinSet<Duration>) {
    let longest = gaps.join_all().await.into_iter().max().unwrap();
    println!("polled every {INTERVAL:?}, the longest gap was {longest:?}");
    assert!(longest <= 2 * INTERVAL, "{longest:?}");
}

/// Until each plug was asked twice more.
async fn polled(plugs: &[Simulator]) {
    let before: Vec<u64> = plugs.iter().map(|plug| plug.counts().borrow().requests).collect();
    for (plug, before) in plugs.iter().zip(before) {
        let mut counts = plug.counts();
        soon("two polls", counts.wait_for(|counts| counts.requests >= before + 2)).await.unwrap();
    }
}

async fn a_shard_is_added_and_taken_away_and_no_plug_is_missed(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    let watcher = watch(&broker).await;
    let start = |shard: &str| {
        let mut config = config(&broker, &plugs, shard);
        config.poll.interval = INTERVAL;
        Bridge::start(config)
    };
    let (one, two) = (start("1/2"), start("2/2"));
    online(&watcher, 0).await;
    settled(&broker, 2).await;
    let gaps = gaps(&plugs);
    command_all(&watcher, &plugs, "two").await;
    polled(&plugs).await;
    let announced = watcher.mark();

    // One more: first the new one, which takes nothing that somebody has.
    let three = start("3/3");
    watcher.hear("kasa/bridge/shard-3/event", |event| event.contains("shards_disagree")).await;
    watcher.hear("kasa/bridge/shard-1/event", |event| event.contains("shards_disagree")).await;
    command_all(&watcher, &plugs, "two and one").await;
    polled(&plugs).await;
    // Then the others, one after the other, each stopped and started with the new count.
    two.stop().await.unwrap();
    let mut two = Some(start("2/3"));
    let from = watcher.mark();
    watcher.hear_after(from, "kasa/bridge/shard-2/state", |state| state == "online").await;
    one.stop().await.unwrap();
    let mut one = Some(start("1/3"));
    settled(&broker, 3).await;
    command_all(&watcher, &plugs, "three").await;
    polled(&plugs).await;

    // One less: the new counts first, then the last one goes.
    for (number, shard) in [(1, &mut one), (2, &mut two)] {
        let from = watcher.mark();
        shard.take().unwrap().stop().await.unwrap();
        *shard = Some(start(&format!("{number}/2")));
        let topic = format!("kasa/bridge/shard-{number}/info");
        watcher.hear_after(from, &topic, |info| info.contains(&format!(r#""shard":"{number}/2""#))).await;
    }
    three.stop().await.unwrap();
    let after = settled(&broker, 2).await;
    command_all(&watcher, &plugs, "two again").await;
    // What the third said of itself is cleared by the first.
    soon("the third's topics to go", async {
        while retained(&broker)
            .await
            .keys()
            .any(|topic| topic.contains("shard-3") || topic.contains("bridge_3"))
        {}
    })
    .await;
    assert!(after.contains_key("kasa/bridge/shard-2/devices"));

    let heard = watcher.log.borrow().heard[announced..].to_vec();
    for number in 0..PLUGS {
        let (id, name) = (id(number), name(number));
        let mine = |topic: &str| {
            topic.contains(&id)
                || topic == format!("kasa/{name}")
                || topic.ends_with(&format!("{name}/availability"))
        };
        let gone = heard
            .iter()
            .find(|heard| mine(&heard.topic) && ["", "offline"].contains(&heard.payload.as_str()));
        assert_eq!(gone, None, "an entity was unavailable or gone");
    }
    drop((one, two, plugs));
    no_gap_is_long(gaps).await;
}

/// The real program, of which every plug is listed by its host alone.
fn program(broker: &AnyBroker, plugs: &[Simulator], shard: &str, interval: Duration) -> Program {
    let listed: Vec<String> = plugs.iter().map(|plug| format!("{{host=\"{}\"}}", plug.address())).collect();
    let mut command = Program::command();
    command.arg("run").env("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address()));
    command.env("KASA2MQTT_SHARD", shard).env("KASA2MQTT_PLUG", format!("[{}]", listed.join(",")));
    command.env("KASA2MQTT_POLL__INTERVAL", humantime::format_duration(interval).to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Program::spawn(&mut command)
}

async fn a_shard_that_is_replaced_takes_up_where_it_was(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    let watcher = watch(&broker).await;
    let one = program(&broker, &plugs, "1/2", INTERVAL);
    let two = program(&broker, &plugs, "2/2", INTERVAL);
    online(&watcher, 0).await;
    let before = settled(&broker, 2).await;
    let gaps = gaps(&plugs);
    command_all(&watcher, &plugs, "before").await;
    polled(&plugs).await;

    let (from, ran) = (watcher.mark(), plugs[moving()].counts().borrow().relay_commands);
    two.kill();
    watcher.hear_after(from, "kasa/bridge/shard-2/state", |state| state == "offline").await;
    // Nobody takes the place of the dead, and what is sent meanwhile is not obeyed later.
    watcher
        .publish(&format!("kasa/{}/set", name(moving())), r#"{"state":"TOGGLE","transaction":"lost"}"#, false)
        .await;
    let another = (0..PLUGS).find(|number| owner(*number, 2) == 1).unwrap();
    watcher
        .publish(&format!("kasa/{}/set", name(another)), r#"{"state":"TOGGLE","transaction":"heard"}"#, false)
        .await;
    watcher
        .hear_after(from, &format!("kasa/{}/result", name(another)), |result| result.contains("heard"))
        .await;
    let two = program(&broker, &plugs, "2/2", INTERVAL);
    watcher.hear_after(from, "kasa/bridge/shard-2/state", |state| state == "online").await;
    polled(&plugs).await;
    assert_eq!(plugs[moving()].counts().borrow().relay_commands, ran, "run late");
    let after = settled(&broker, 2).await;
    command_all(&watcher, &plugs, "after").await;

    // What a plug says of itself may have changed; which topics and entities there are may not.
    let of_plugs = |retained: &BTreeMap<String, String>| -> BTreeMap<String, Option<String>> {
        let is_lasting = |topic: &str| topic.ends_with("/config") || topic.ends_with("/availability");
        let of_plugs = retained.iter().filter(|(topic, _)| !topic.contains("bridge"));
        of_plugs
            .map(|(topic, payload)| (topic.clone(), Some(payload.clone()).filter(|_| is_lasting(topic))))
            .collect()
    };
    assert_eq!(of_plugs(&after), of_plugs(&before), "the same topics and entities");
    drop((one, two, plugs));
    no_gap_is_long(gaps).await;
}

async fn shards_that_count_differently_are_told_of_and_no_plug_has_two_masters(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    let watcher = watch(&broker).await;
    // Somebody wrote 3 where it is 2: between them they have every plug that either claims.
    let first = Bridge::start(config(&broker, &plugs, "1/2"));
    let both: Vec<usize> =
        (0..PLUGS).filter(|number| owner(*number, 2) == 1 && owner(*number, 3) == 2).collect();
    assert!(both.is_empty(), "those that go from the first to the second do not exist: {both:?}");
    // 3/3 has taken from both.
    let third = Bridge::start(config(&broker, &plugs, "3/3"));
    let both: Vec<String> =
        (0..PLUGS).filter(|number| owner(*number, 2) == 1 && owner(*number, 3) == 3).map(id).collect();
    assert!(!both.is_empty());
    for (teller, other) in [("1/2", "3/3"), ("3/3", "1/2")] {
        let topic = format!("kasa/bridge/shard-{}/event", &teller[..1]);
        let event = watcher.hear(&topic, |event| event.contains("shards_disagree")).await;
        let event: Value = serde_json::from_str(&event.payload).unwrap();
        assert_eq!((&event["shard"], &event["other"]), (&json!(teller), &json!(other)), "{event}");
        // Plugs are named as soon as they are known.
        let event =
            watcher.hear(&topic, |event| event.contains("shards_disagree") && !event.contains("[]")).await;
        let event: Value = serde_json::from_str(&event.payload).unwrap();
        let ids = event["ids"].as_array().unwrap();
        assert_eq!(event["plugs"], ids.len());
        assert!(ids.iter().all(|id| both.contains(&id.as_str().unwrap().to_string())), "{event} of {both:?}");
    }
    // Whoever counts fewer has them; each plug is listed once.
    soon("one master for each", async {
        loop {
            let listed = listed(&retained(&broker).await);
            if both.iter().all(|id| listed.get(id).is_some_and(|shards| shards == &["shard-1"])) {
                return;
            }
        }
    })
    .await;
    for (number, plug) in plugs.iter().enumerate().filter(|(number, _)| both.contains(&id(*number))) {
        let before = plug.counts().borrow().relay_commands;
        let from = watcher.mark();
        let topic = format!("kasa/{}", name(number));
        watcher.publish(&format!("{topic}/set"), r#"{"state":"TOGGLE","transaction":"both"}"#, false).await;
        watcher.hear_after(from, &format!("{topic}/result"), |result| result.contains("both")).await;
        watcher.publish("kasa/end", &topic, false).await;
        watcher.hear_after(from, "kasa/end", |text| text == topic).await;
        assert_eq!(plug.counts().borrow().relay_commands - before, 1);
        assert_eq!(watcher.on(&format!("{topic}/result")).len(), 1);
    }
    // The mistake is corrected by taking the first away: the other has them now.
    first.stop().await.unwrap();
    soon("the other", async {
        loop {
            let listed = listed(&retained(&broker).await);
            let has =
                |id: &String| listed.get(id).is_some_and(|shards| shards.contains(&"shard-3".to_string()));
            if both.iter().all(has) {
                return;
            }
        }
    })
    .await;
    third.stop().await.unwrap();
}

async fn two_shards_of_one_number_are_told_of(broker: AnyBroker) {
    let watcher = watch(&broker).await;
    let _first = Bridge::start(config(&broker, &[], "2/3"));
    watcher.hear("kasa/bridge/shard-2/state", |state| state == "online").await;
    let _second = Bridge::start(config(&broker, &[], "2/3"));
    let rival = watcher.hear("kasa/bridge/shard-2/event", |event| event.contains(r#""rival""#)).await;
    let other = |event: &str| event.contains(r#""rival""#) && event != rival.payload;
    watcher.hear("kasa/bridge/shard-2/event", other).await;
}

async fn requests_are_answered_by_whom_they_concern(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    let watcher = watch(&broker).await;
    let mut shards = ["1/2", "2/2"].map(|shard| Bridge::start(config(&broker, &plugs, shard)));
    online(&watcher, 0).await;
    settled(&broker, 2).await;
    // What all are asked each answers for itself.
    watcher.publish("kasa/bridge/request/health_check", r#"{"transaction":1}"#, false).await;
    let mut known = 0;
    for number in 1..=2 {
        let topic = format!("kasa/bridge/shard-{number}/response/health_check");
        let answer = watcher.hear(&topic, |_| true).await;
        known += serde_json::from_str::<Value>(&answer.payload).unwrap()["data"]["known"].as_u64().unwrap();
    }
    assert_eq!(known, PLUGS as u64);
    // What one plug is about one shard answers.
    let common = "kasa/bridge/response/device/";
    let cases = [
        ("refresh", json!({"id": name(0), "transaction": "a"}), true),
        ("refresh", json!({"id": id(moving()), "transaction": "b"}), true),
        ("remove", json!({"id": name(1), "transaction": "c"}), false),
        ("remove", json!({"id": "00000000abcd", "transaction": "d"}), false),
        ("remove", json!({"transaction": "e"}), false),
        ("raw", json!({"id": name(2), "request": {"time": {"get_time": {}}}, "transaction": "f"}), false),
    ];
    for (request, payload, ok) in &cases {
        watcher.publish(&format!("kasa/bridge/request/device/{request}"), &payload.to_string(), false).await;
        let is_it = |answer: &str| answer.contains(&payload["transaction"].to_string());
        let answer = watcher.hear(&format!("{common}{request}"), is_it).await;
        assert_eq!(answer.payload.contains(r#""status":"ok""#), *ok, "{answer:?}");
    }
    watcher.publish("kasa/end", "", false).await;
    watcher.hear("kasa/end", |_| true).await;
    let answers: usize =
        ["refresh", "remove", "raw"].iter().map(|what| watcher.on(&format!("{common}{what}")).len()).sum();
    assert_eq!(answers, cases.len());
    // And one of them alone.
    watcher.publish("kasa/bridge/shard-2/request/restart", "{}", false).await;
    watcher.hear("kasa/bridge/shard-2/response/restart", |_| true).await;
    assert_eq!(shards[1].ended().await.unwrap(), kasa2mqtt::app::Ended::Restart);
    assert!(watcher.on("kasa/bridge/shard-1/response/restart").is_empty());
}

async fn one_bridge_becomes_three_and_topics_stay(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    let watcher = watch(&broker).await;
    let single = Bridge::start(house::config(Some(broker.address()), &plugs));
    for number in 0..PLUGS {
        watcher.hear(&format!("kasa/plug-{number}"), |state| state.contains("state")).await;
    }
    watcher.hear("kasa/bridge/devices", |list| list.matches(r#""online""#).count() == PLUGS).await;
    single.stop().await.unwrap();
    let before = retained(&broker).await;
    let _shards = ["1/3", "2/3", "3/3"].map(|shard| Bridge::start(config(&broker, &plugs, shard)));
    let after = settled(&broker, 3).await;
    let plugs_topics = |retained: &BTreeMap<String, String>| -> Vec<String> {
        retained.keys().filter(|topic| !topic.contains("bridge")).cloned().collect()
    };
    assert_eq!(plugs_topics(&after), plugs_topics(&before));
    soon("what the single bridge left to go", async {
        loop {
            let left = retained(&broker).await;
            let of_single = [
                "kasa/bridge/state",
                "kasa/bridge/info",
                "kasa/bridge/devices",
                "kasa/bridge/health",
                "homeassistant/device/kasa_bridge/config",
            ];
            if !of_single.iter().any(|topic| left.contains_key(*topic)) {
                return;
            }
        }
    })
    .await;
}

/// A search of listed targets on loopback, by each of the shards.
async fn what_every_shard_finds_one_serves(broker: AnyBroker) {
    let plugs = plugs(&["HS100-G3"; PLUGS]).await;
    let watcher = watch(&broker).await;
    let targets: Vec<_> = plugs.iter().map(|plug| plug.address().to_string().parse().unwrap()).collect();
    let start = |shard: &str| {
        let mut config = config(&broker, &[], shard);
        config.scan.enabled = true;
        config.scan.targets.clone_from(&targets);
        Bridge::start(config)
    };
    let _shards = ["1/2", "2/2"].map(start);
    online(&watcher, 0).await;
    let retained = settled(&broker, 2).await;
    for number in 1..=2 {
        let health = format!("kasa/bridge/shard-{number}/health");
        watcher.hear(&health, |health| health.contains(&format!(r#""found":{PLUGS}"#))).await;
        let devices = &retained[&format!("kasa/bridge/shard-{number}/devices")];
        assert!(devices.contains(r#""discovered_via":"scan""#));
    }
    command_all(&watcher, &plugs, "found").await;
    // Both have asked everybody, by UDP; only the owner has come.
    for (number, plug) in plugs.iter().enumerate() {
        assert_eq!(plug.counts().borrow().connections, 1, "plug {number}");
    }
}

#[tokio::test]
async fn the_log_names_shards_that_count_differently() {
    /// Of two shards the first has it, of three the last.
    const CLAIMED: &str = "50c7bf010203";
    let nobody = port::unused();
    let broker = AnyBroker::embedded().await;
    let start = |shard: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec \"$0\" run 2>&1", env!("CARGO_BIN_EXE_kasa2mqtt")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).env("KASA2MQTT_SCAN__ENABLED", "false");
        command
            .env("KASA2MQTT_MQTT__URL", format!("mqtt://{}", broker.address()))
            .env("KASA2MQTT_SHARD", shard)
            .env("KASA2MQTT_PLUG", format!("[{{host=\"{nobody}\",mac=\"{CLAIMED}\"}}]"));
        let mut program = Program::spawn(&mut command);
        tokio::task::spawn_blocking(move || {
            let line = program.read_until(|line| {
                line.contains("another shard counts differently") && line.contains(CLAIMED)
            });
            program.drain();
            (line, program)
        })
    };
    // Whoever was heard first stays until both have spoken.
    let (one, other) = (start("1/2"), start("3/3"));
    let both = soon("a word in each log", async { (one.await.unwrap(), other.await.unwrap()) }).await;
    let ((one, _first), (other, _second)) = both;
    for (line, own, named) in [(one, "1/2", "3/3"), (other, "3/3", "1/2")] {
        assert!(line.contains(own) && line.contains(named), "{line}");
    }
}
