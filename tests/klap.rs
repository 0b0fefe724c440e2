//! Plugs that closed port 9999: both versions of KLAP against simulated plugs with the habits and faults of real ones.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::plug::command::{Action, Outlets, Switch};
use kasa2mqtt::plug::error::Error;
use kasa2mqtt::plug::klap::account::Account;
use kasa2mqtt::plug::link::{Access, Ports};
use kasa2mqtt::plug::owner::{Owner, Settings};
use kasa2mqtt::plug::reading::Reading;
use kasa2mqtt::plug::scan::found::Protocol;
use kasa2mqtt::sim::behaviour::{Behaviour, Klap, Reply};
use kasa2mqtt::sim::discovery::{Announcement, Discovery, Scheme};
use kasa2mqtt::sim::model::{MODELS, Model};
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use support::hours::{StandStill, pass, wall};
use support::house::{self, FREE};
use support::peers::python;
use support::soon;
use tokio::time::Instant;

const VERSIONS: [(Klap, Protocol); 2] = [(Klap::First, Protocol::Klap), (Klap::Second, Protocol::Klap2)];
const SELDOM: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn behaviour(klap: Klap) -> Behaviour {
    Behaviour { klap: Some(klap), account: Some("me@example.org:secret".into()), ..Behaviour::default() }
}

async fn plug(model: &str, behaviour: Behaviour) -> Simulator {
    let plug = SimPlug::new(Model::named(model).unwrap(), "Lamp", mac(0)).with(behaviour);
    Simulator::start(plug, FREE).await.unwrap()
}

fn is_strip(model: &str) -> bool {
    Model::named(model).unwrap().children > 0
}

/// Which nobody serves, however it is spoken to.
fn is_bulb(model: &str) -> bool {
    model.starts_with("KL")
}

fn account(password: &str) -> Account {
    Account { username: Some("me@example.org".into()), password: Some(password.into()), ..Account::default() }
}

/// The ports of one plug; where it does not say where its HTTP server is, nowhere.
fn ports(plug: &Simulator) -> Ports {
    Ports { discovery: plug.klap().unwrap().discovery.port(), http: 1 }
}

/// No answer here is late because of the plug, unless a test wants it to be.
fn patient(plug: &Simulator) -> Settings {
    Settings { timeout: Duration::from_secs(10), ..house::owner(plug.address(), SELDOM) }
}

fn settings(plug: &Simulator, account: Account) -> Settings {
    Settings {
        access: Access { accounts: [account].into(), ports: ports(plug), ..Access::default() },
        ..patient(plug)
    }
}

fn owner(plug: &Simulator) -> Owner {
    Owner::new(&settings(plug, account("secret")))
}

async fn read(owner: &mut Owner) -> Result<Arc<Reading>, Error> {
    soon("a reading", owner.read()).await
}

/// By the runtime's clock, which may stand still.
fn in_time() -> std::time::Instant {
    Instant::now().into_std() + support::DEADLINE
}

async fn switch(owner: &mut Owner, to: Switch) -> Result<(), Error> {
    let action = Action::Relay { outlets: Outlets::All, to };
    soon("an order", owner.obey(&[action], in_time())).await.outcome
}

#[tokio::test]
async fn both_versions_are_read_and_switched_in_one_session() {
    for (version, _) in VERSIONS {
        for model in MODELS.iter().map(|model| model.name).filter(|model| !is_strip(model) && !is_bulb(model))
        {
            let plug = plug(model, behaviour(version)).await;
            let mut owner = owner(&plug);
            for round in 0..10 {
                let reading = read(&mut owner).await.unwrap_or_else(|error| panic!("{model}: {error}"));
                assert_eq!(reading.has_meter(), Model::named(model).unwrap().meter);
                let to = if round % 2 == 0 { Switch::On } else { Switch::Off };
                switch(&mut owner, to).await.unwrap();
                assert_eq!(plug.look().await.relay(), to == Switch::On, "{model} {version:?}");
            }
            let counts = *plug.counts().borrow();
            assert_eq!((counts.handshakes, counts.relay_commands), (1, 10), "{model} {version:?}");
            assert_eq!(counts.connections, 1, "kept: {model} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_strip_is_switched_outlet_by_outlet() {
    for (version, _) in VERSIONS {
        for model in MODELS.iter().map(|model| model.name).filter(|model| is_strip(model)) {
            let strip = plug(model, behaviour(version)).await;
            let mut owner = owner(&strip);
            let count = read(&mut owner).await.unwrap().outlets.len();
            assert_eq!(count, usize::from(Model::named(model).unwrap().children), "{model}");
            let action = Action::Relay { outlets: Outlets::One(2), to: Switch::On };
            owner.obey(&[action], in_time()).await.outcome.unwrap();
            let on: Vec<bool> = strip.look().await.outlets().iter().map(|outlet| outlet.relay()).collect();
            assert_eq!(on.iter().filter(|on| **on).count(), 1, "{on:?}");
        }
    }
}

#[tokio::test]
async fn every_account_that_a_plug_may_know_is_tried() {
    for (version, _) in VERSIONS {
        for known in [None, Some("kasa@tp-link.net:kasaSetup"), Some("test@tp-link.net:test"), Some(":")] {
            let behaviour = Behaviour { account: known.map(String::from), ..behaviour(version) };
            let plug = plug("HS100-G3", behaviour).await;
            for account in [Account::default(), account("secret")] {
                let mut owner = Owner::new(&settings(&plug, account));
                assert!(read(&mut owner).await.is_ok(), "{version:?} {known:?}");
            }
            assert_eq!(plug.counts().borrow().handshakes, 2, "one each: {version:?} {known:?}");
        }
    }
}

#[tokio::test]
async fn a_plug_that_does_not_say_where_its_server_is_is_asked_at_the_usual_port() {
    for (version, _) in VERSIONS {
        let plug = plug("HS100-G3", behaviour(version)).await;
        let klap = plug.klap().unwrap();
        let ports = Ports { discovery: 1, http: klap.http.port() };
        let access = Access { accounts: [account("secret")].into(), ports, ..Access::default() };
        let settings = Settings { access, ..patient(&plug) };
        assert!(read(&mut Owner::new(&settings)).await.is_ok(), "{version:?}");
    }
}

/// What a plug says of its version is for people. In its proof it cannot be mistaken.
#[tokio::test]
async fn a_wrong_announcement_of_the_version_does_no_harm() {
    for (version, protocol) in VERSIONS {
        for scheme in [Scheme::Klap, Scheme::NewKlap] {
            let plug = plug("HS100-G3", behaviour(version)).await;
            let http_port = plug.klap().unwrap().http.port();
            let said = Announcement { http_port, ..Announcement::plug(plug.mac(), "HS100(UK)", scheme) };
            let discovery = Discovery::start(FREE, vec![said]).await.unwrap();
            let ports = Ports { discovery: discovery.address().port(), http: 1 };
            let access = Access { accounts: [account("secret")].into(), ports, ..Access::default() };
            let settings = Settings { access, ..patient(&plug) };
            let reading = read(&mut Owner::new(&settings)).await.unwrap();
            assert_eq!(reading.protocol, protocol, "{version:?} {scheme:?}");
        }
    }
}

/// A plug that restarts, and a device that is none of ours: nobody is asked for a handshake.
#[tokio::test]
async fn what_announces_neither_version_is_not_asked() {
    let plug = plug("HS100-G3", behaviour(Klap::Second)).await;
    let http = plug.klap().unwrap().http.port();
    let xor = Announcement::plug(plug.mac(), "HS100(UK)", Scheme::Xor);
    let tapo = Announcement {
        device_type: "SMART.TAPOPLUG".into(),
        ..Announcement::plug(plug.mac(), "P110(EU)", Scheme::NewKlap)
    };
    for (said, is_unsupported) in [(xor, false), (tapo, true)] {
        let discovery = Discovery::start(FREE, vec![said]).await.unwrap();
        let ports = Ports { discovery: discovery.address().port(), http };
        let access = Access { accounts: [account("secret")].into(), ports, ..Access::default() };
        let settings = Settings { access, ..patient(&plug) };
        match read(&mut Owner::new(&settings)).await {
            Err(Error::Connect(_)) if !is_unsupported => {}
            Err(Error::Unsupported(_)) if is_unsupported => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(plug.counts().borrow().handshakes, 0);
}

#[tokio::test]
async fn the_plugs_own_account_is_tried_and_then_ours() {
    let theirs = Account { username: Some("them@example.org".into()), ..account("other") };
    for (version, _) in VERSIONS {
        let plug = plug("HS100-G3", behaviour(version)).await;
        for accounts in [[theirs.clone(), account("secret")], [account("secret"), theirs.clone()]] {
            let access = Access { accounts: accounts.into(), ports: ports(&plug), ..Access::default() };
            let settings = Settings { access, ..patient(&plug) };
            assert!(read(&mut Owner::new(&settings)).await.is_ok(), "{version:?}");
        }
    }
}

#[tokio::test]
async fn every_habit_is_fine_and_no_order_is_done_twice() {
    for (version, _) in VERSIONS {
        let normal = || behaviour(version);
        let habits = [
            (Behaviour { close: true, ..normal() }, Some(1)),
            (Behaviour { delay: Duration::from_millis(50), ..normal() }, Some(1)),
            (Behaviour { html_above: Some(50), ..normal() }, Some(2)),
            (Behaviour { forgets: true, ..normal() }, None),
            (Behaviour { forgets: true, html_above: Some(50), close: true, ..normal() }, None),
        ];
        for (habit, handshakes) in habits {
            let plug = plug("HS110-G3", habit.clone()).await;
            let mut owner = owner(&plug);
            // Three sessions that end after one reply are a habit; until then it may cost a poll.
            for _ in 0..4 {
                let outcome = read(&mut owner).await;
                assert!(outcome.is_ok() || habit.forgets, "{habit:?}: {outcome:?}");
            }
            for round in 0..8 {
                let reading = read(&mut owner).await.unwrap_or_else(|error| panic!("{habit:?}: {error}"));
                assert!(
                    reading.outlets[0].emeter.is_some_and(|emeter| emeter.power_mw.is_some()),
                    "{habit:?}"
                );
                let to = if round % 2 == 0 { Switch::On } else { Switch::Off };
                switch(&mut owner, to).await.unwrap_or_else(|error| panic!("{habit:?}: {error}"));
                assert_eq!(plug.look().await.relay(), to == Switch::On, "{habit:?}");
            }
            let counts = *plug.counts().borrow();
            assert_eq!(counts.relay_commands, 8, "{habit:?}");
            assert!(handshakes.is_none_or(|expected| counts.handshakes == expected), "{habit:?}: {counts:?}");
        }
    }
}

#[tokio::test]
async fn every_fault_is_an_error_and_passes() {
    type Fits = fn(&Error) -> bool;
    let faults: [(Reply, Fits); 8] = [
        (Reply::Silence, |error| matches!(error, Error::Timeout(_))),
        (Reply::Lost, |error| matches!(error, Error::Timeout(_))),
        (Reply::Rubbish, |error| matches!(error, Error::Malformed(_))),
        (Reply::Deep, |error| matches!(error, Error::Malformed(_))),
        (Reply::Huge, |error| matches!(error, Error::TooLong(_))),
        (Reply::Half, |error| matches!(error, Error::Broken(_))),
        (Reply::ZeroLength, |error| matches!(error, Error::Broken(_))),
        (Reply::Reset, |error| matches!(error, Error::Closed | Error::Broken(_))),
    ];
    for (version, _) in VERSIONS {
        for (reply, fits) in faults {
            let plug = plug("HS110-G3", Behaviour { reply, ..behaviour(version) }).await;
            // Where there is nothing to wait for, no longer than a busy machine needs.
            let is_silent = matches!(reply, Reply::Silence | Reply::Lost);
            let mut settings = settings(&plug, account("secret"));
            if is_silent {
                settings.timeout = Duration::from_millis(1500);
            }
            let mut owner = Owner::new(&settings);
            let error = read(&mut owner).await.unwrap_err();
            assert!(fits(&error) && error.is_contact_failure(), "{reply:?}: {error:?}");
            plug.behave(behaviour(version)).await;
            read(&mut owner).await.unwrap_or_else(|error| panic!("{reply:?}: {error}"));
        }
    }
}

#[tokio::test]
async fn another_client_ends_our_session_and_costs_nothing_else() {
    for (version, _) in VERSIONS {
        let plug = plug("HS110-G3", behaviour(version)).await;
        let (mut ours, mut theirs) = (owner(&plug), owner(&plug));
        for round in 0..6 {
            read(&mut ours).await.unwrap();
            read(&mut theirs).await.unwrap();
            let to = if round % 2 == 0 { Switch::On } else { Switch::Off };
            switch(&mut ours, to).await.unwrap();
            assert_eq!(plug.look().await.relay(), to == Switch::On);
        }
        assert_eq!(plug.counts().borrow().relay_commands, 6, "no order twice, none lost");
    }
}

#[tokio::test]
async fn a_restart_ends_the_session_and_nothing_else() {
    for (version, _) in VERSIONS {
        let plug = plug("HS100-G3", behaviour(version)).await;
        let mut owner = owner(&plug);
        read(&mut owner).await.unwrap();
        owner.obey(&[Action::Reboot], in_time()).await.outcome.unwrap();
        soon("the restart", plug.counts().wait_for(|counts| counts.reboots == 1)).await.unwrap();
        read(&mut owner).await.unwrap();
        assert_eq!(plug.counts().borrow().handshakes, 2);
    }
}

#[tokio::test]
async fn a_plug_is_followed_from_one_protocol_to_the_other_and_back() {
    let plug = plug("HS110-G3", behaviour(Klap::First)).await;
    let mut owner = owner(&plug);
    for klap in [None, Some(Klap::Second), None, Some(Klap::First), Some(Klap::Second)] {
        read(&mut owner).await.unwrap();
        plug.speak(klap).await;
        // At once: neither the reading nor the order notices.
        read(&mut owner).await.unwrap_or_else(|error| panic!("{klap:?}: {error}"));
        plug.speak(None).await;
        switch(&mut owner, Switch::On).await.unwrap_or_else(|error| panic!("{klap:?}: {error}"));
        plug.speak(Some(Klap::Second)).await;
        switch(&mut owner, Switch::Off).await.unwrap_or_else(|error| panic!("{klap:?}: {error}"));
        assert!(!plug.look().await.relay());
    }
    assert_eq!(plug.counts().borrow().relay_commands, 10, "no order twice");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_every_five_minutes_and_says_what_to_do() {
    let _still = StandStill::begin();
    for (version, _) in VERSIONS {
        let plug = plug("HS100-G3", behaviour(version)).await;
        let settings = Settings {
            wall: wall(SystemTime::UNIX_EPOCH),
            interval: Duration::from_secs(5),
            ..settings(&plug, account("Secret"))
        };
        let mut owner = Owner::new(&settings);
        let mut outcomes = Vec::new();
        pass(&mut owner, 30 * MINUTE, |outcome| outcomes.push(outcome)).await;
        assert!(outcomes.len() > 25, "{} looks, for XOR may come back", outcomes.len());
        assert!(outcomes.iter().all(|outcome| *outcome == Err(Error::Auth)), "{outcomes:?}");
        let text = Error::Auth.to_string();
        assert!(text.contains("kasa.username") && text.contains("kasa.password"), "{text}");
        let asked = plug.counts().borrow().handshakes;
        assert!((4..=7).contains(&asked), "{asked} times in half an hour");
        assert!(matches!(switch(&mut owner, Switch::On).await, Err(Error::Auth | Error::Resting(_))));
        let asked = plug.counts().borrow().handshakes;
        // The port is opened in the app: the next look is enough.
        plug.speak(None).await;
        let mut outcomes = Vec::new();
        pass(&mut owner, MINUTE, |outcome| outcomes.push(outcome)).await;
        assert!(outcomes[0].is_ok(), "{outcomes:?}");
        assert_eq!(plug.counts().borrow().handshakes, asked);
    }
}

#[tokio::test]
async fn a_corrected_password_is_used_at_the_next_attempt() {
    for (version, _) in VERSIONS {
        let plug = plug("HS100-G3", behaviour(version)).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "wrong\n").unwrap();
        let account = Account { password: None, password_file: Some(file.clone()), ..account("unused") };
        let mut owner = Owner::new(&settings(&plug, account));
        for _ in 0..3 {
            assert_eq!(read(&mut owner).await, Err(Error::Auth));
        }
        assert_eq!(plug.counts().borrow().handshakes, 1);
        fs::write(&file, "secret\n").unwrap();
        read(&mut owner).await.unwrap();
        assert_eq!(plug.counts().borrow().handshakes, 2);
    }
}

#[tokio::test]
async fn a_password_file_that_is_missing_is_named() {
    let plug = plug("HS100-G3", behaviour(Klap::First)).await;
    let account =
        Account { password: None, password_file: Some(Path::new("/nowhere/kasa").into()), ..account("") };
    let error = read(&mut Owner::new(&settings(&plug, account))).await.unwrap_err();
    assert!(error.to_string().contains("/nowhere/kasa"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_renewed_before_the_plug_ends_it() {
    let _still = StandStill::begin();
    let plug = plug("HS100-G3", behaviour(Klap::Second)).await;
    let settings = Settings { wall: wall(SystemTime::UNIX_EPOCH), ..settings(&plug, account("secret")) };
    let mut owner = Owner::new(&settings);
    let mut failures = 0;
    pass(&mut owner, Duration::from_secs(86_400 * 3), |outcome| failures += usize::from(outcome.is_err()))
        .await;
    assert_eq!((failures, plug.counts().borrow().handshakes), (0, 4));
}

/// However long sessions last, ours are over before the plug's.
#[tokio::test(start_paused = true)]
async fn a_short_session_is_renewed_in_time() {
    let _still = StandStill::begin();
    for (life, handshakes) in [(60, 6 * 60 / 40), (30, 6 * 60 / 15), (10, 6 * 60 / 5)] {
        let session_life = Some(life * MINUTE);
        let plug = plug("HS100-G3", Behaviour { session_life, ..behaviour(Klap::First) }).await;
        let settings = Settings {
            wall: wall(SystemTime::UNIX_EPOCH),
            interval: MINUTE,
            ..settings(&plug, account("secret"))
        };
        let mut owner = Owner::new(&settings);
        let mut failures = 0;
        pass(&mut owner, 6 * 60 * MINUTE, |outcome| failures += usize::from(outcome.is_err())).await;
        let counts = *plug.counts().borrow();
        assert_eq!((failures, counts.forbidden), (0, 0), "{life} minutes: {counts:?}");
        // A session is begun when the next poll needs it, up to a minute later.
        let expected = handshakes * 4 / 5..=handshakes + 1;
        assert!(expected.contains(&counts.handshakes), "{life} minutes: {counts:?}, {expected:?}");
    }
}

/// An owner who switches Third-Party Compatibility, and firmware that undoes it, again and again.
#[tokio::test(start_paused = true)]
async fn a_plug_that_goes_to_and_fro_is_followed() {
    let _still = StandStill::begin();
    for (version, protocol) in VERSIONS {
        let toggles = Some(10 * MINUTE);
        let plug = plug("HS110-G3", Behaviour { toggles, ..behaviour(version) }).await;
        let settings = Settings {
            wall: wall(SystemTime::UNIX_EPOCH),
            interval: MINUTE,
            ..settings(&plug, account("secret"))
        };
        let mut owner = Owner::new(&settings);
        let mut spoken = Vec::new();
        let mut failures = 0;
        pass(&mut owner, 65 * MINUTE, |outcome| match outcome {
            Ok(reading) if spoken.last() != Some(&reading.protocol) => spoken.push(reading.protocol),
            Ok(_) => {}
            Err(_) => failures += 1,
        })
        .await;
        assert_eq!(spoken.len(), 7, "{spoken:?}");
        assert!(spoken.iter().step_by(2).all(|spoken| *spoken == protocol), "{spoken:?}");
        assert!(spoken.iter().skip(1).step_by(2).all(|spoken| *spoken == Protocol::Xor), "{spoken:?}");
        // Between one port and the other there may be neither.
        assert!(failures <= 6, "{failures}");
    }
}

/// Plugs of one household know nothing of the same wrong password, and begin at the same moment.
#[tokio::test(start_paused = true)]
async fn plugs_that_refuse_us_are_not_asked_in_lockstep() {
    let _still = StandStill::begin();
    let mut plugs = Vec::new();
    for _ in 0..12 {
        let plug = plug("HS100-G3", behaviour(Klap::Second)).await;
        let owner = Owner::new(&Settings {
            wall: wall(SystemTime::UNIX_EPOCH),
            interval: Duration::from_secs(5),
            ..settings(&plug, account("Secret"))
        });
        plugs.push((plug, owner, Vec::new()));
    }
    let begin = Instant::now();
    while begin.elapsed() < 20 * MINUTE {
        let next = plugs.iter_mut().min_by_key(|(_, owner, _)| owner.due_at()).unwrap();
        let (plug, owner, asked) = next;
        // The runtime's timers know whole milliseconds only.
        let wait = owner.due_at().saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000);
        tokio::time::advance(Duration::from_millis(wait as u64)).await;
        assert_eq!(owner.act().await, Some(Err(Error::Auth)));
        if plug.counts().borrow().handshakes > asked.len() as u64 {
            asked.push(begin.elapsed());
        }
    }
    for (_, _, asked) in &plugs {
        assert!((3..=4).contains(&asked.len()), "{asked:?}");
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 5 * MINUTE), "{asked:?}");
    }
    for round in 1..3 {
        let moments = || plugs.iter().map(|(_, _, asked)| asked[round]);
        let apart = moments().max().unwrap() - moments().min().unwrap();
        assert!(apart > Duration::from_secs(10), "round {round}: all of them within {apart:?}");
    }
}

/// As others understand the protocol: python-kasa, which `tests/run` installs, finds our plug with an account and
/// switches it.
#[tokio::test]
#[ignore = "needs python-kasa: tests/run"]
async fn python_kasa_drives_our_plugs_over_both_versions() {
    for (version, transport) in [(Klap::First, "KlapTransport"), (Klap::Second, "KlapTransportV2")] {
        let plug = plug("HS110-G3", behaviour(version)).await;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/kasa_klap.py");
        let discovery = plug.klap().unwrap().discovery.port().to_string();
        let command = python().args([script, &discovery]).output();
        let output = soon("python-kasa", command).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        let said = format!("refused\n{transport} Lamp HS110 False\nTrue\nFalse\nTrue");
        assert_eq!(text(&output.stdout), said, "{}", text(&output.stderr));
        assert!(plug.look().await.relay());
        assert_eq!(plug.counts().borrow().relay_commands, 3);
    }
}
