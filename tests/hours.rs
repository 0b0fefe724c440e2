//! What happens in hours, days and over the change of summer time, without waiting for it.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::plug::clock::{Keeper, Set};
use kasa2mqtt::plug::command::Action;
use kasa2mqtt::plug::error::Error;
use kasa2mqtt::plug::owner::{Owner, Settings};
use kasa2mqtt::sim::behaviour::Behaviour;
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::{SimPlug, Way};
use kasa2mqtt::sim::server::Simulator;
use support::hours::{StandStill, pass, wall};
use support::house::{FREE, owner};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const INTERVAL: Duration = Duration::from_secs(5);

fn moment(text: &str) -> SystemTime {
    text.parse::<Timestamp>().unwrap().into()
}

/// A simulated plug and its owner in a world where it is now `begin`, in Berlin.
async fn world(plug: SimPlug, begin: SystemTime, set: Set) -> (Simulator, Owner) {
    let simulator = Simulator::start_at(plug, FREE, begin).await.unwrap();
    let keeper = Arc::new(Keeper { set, zone: TimeZone::get("Europe/Berlin").unwrap() });
    let settings = Settings { keeper, wall: wall(begin), ..owner(simulator.address(), INTERVAL) };
    (simulator, Owner::new(&settings))
}

fn plug(model: &str, behaviour: Behaviour) -> SimPlug {
    SimPlug::new(Model::named(model).unwrap(), "Lamp", mac(0)).with(behaviour)
}

/// What the plug itself says at this moment.
async fn says(simulator: &Simulator, begin: SystemTime, request: &str, passed: Duration) -> String {
    let now = (begin + passed).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    simulator.look().await.answer(request.as_bytes(), Way::Tcp, now).reply.unwrap()
}

const NEXT_ACTION: &str = r#"{"schedule":{"get_next_action":{}}}"#;

#[tokio::test(start_paused = true)]
async fn a_plug_without_internet_has_the_right_time_across_restarts_and_summer_time() {
    let _still = StandStill::begin();
    // Summer time ends on 25 October at 01:00 UTC.
    let begin = moment("2026-10-24T20:00:00Z");
    let mut unset = plug("HS110-G3", Behaviour { no_ntp: true, ..Behaviour::default() });
    unset.restart(begin.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let (simulator, mut owner) = world(unset, begin, Set::Auto).await;
    let before = says(&simulator, begin, NEXT_ACTION, Duration::ZERO).await;
    assert!(before.contains(r#""err_code":-11"#), "{before}");

    let mut passed = Duration::ZERO;
    let shows = async |passed: Duration| {
        let now = (begin + passed).duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let plug = simulator.look().await;
        (plug.clock().show(now).to_string(), plug.clock().is_set, plug.clock().zone)
    };
    for (until, local) in [
        // Two minutes after the start, right before and right after the change, and long after.
        (2 * MINUTE, "2026-10-24T22:02:00"),
        (5 * HOUR - MINUTE, "2026-10-25T02:59:00"),
        (5 * HOUR + MINUTE, "2026-10-25T02:01:00"),
        (20 * HOUR, "2026-10-25T17:00:00"),
    ] {
        pass(&mut owner, until - passed, |outcome| drop(outcome.unwrap())).await;
        passed = until;
        assert_eq!(shows(passed).await, (local.into(), true, 41));
        if passed < 6 * HOUR {
            let after_the_change = passed > 5 * HOUR;
            assert_eq!(times_set(&simulator).await, 1 + usize::from(after_the_change));
        }
    }
    let after = says(&simulator, begin, NEXT_ACTION, passed).await;
    assert!(after.contains(r#""type":-1,"err_code":0"#), "{after}");

    // A restart loses the clock, and it is set again.
    let deadline = tokio::time::Instant::now().into_std() + MINUTE;
    owner.obey(&[Action::Reboot], deadline).await.outcome.unwrap();
    pass(&mut owner, 2 * MINUTE, drop).await;
    passed += 2 * MINUTE;
    assert_eq!(simulator.counts().borrow().reboots, 1);
    assert_eq!(shows(passed).await, ("2026-10-25T17:02:00".into(), true, 41));

    // Nobody asked for this one, and it was too short to be seen.
    simulator.change(|plug| plug.clock_mut().lose(Duration::from_secs(1_000_000_000))).await;
    pass(&mut owner, 6 * MINUTE, |outcome| drop(outcome.unwrap())).await;
    passed += 6 * MINUTE;
    assert_eq!(shows(passed).await.0, "2026-10-25T17:08:00");
    assert_eq!(times_set(&simulator).await, 2, "no oftener than needed in the last hours");
}

/// How often its clock was set, as far back as it remembers: five hours.
async fn times_set(simulator: &Simulator) -> usize {
    simulator.log().await.iter().filter(|request| request.contains("set_timezone")).count()
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_not_ours_to_set_is_left_alone() {
    let _still = StandStill::begin();
    let begin = moment("2026-11-23T12:00:00Z");
    for (set, bound) in [(Set::Never, false), (Set::Auto, true)] {
        let mut plug = plug("KP115", Behaviour::default());
        if bound {
            plug = plug.bound_to("somebody@example.org");
        }
        plug.clock_mut().lose(begin.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let (simulator, mut owner) = world(plug, begin, set).await;
        pass(&mut owner, HOUR, |outcome| drop(outcome.unwrap())).await;
        assert!(!simulator.look().await.clock().is_set, "{set:?}");
        assert!(!simulator.log().await.iter().any(|request| request.contains("set_timezone")), "{set:?}");
    }
}

/// protocol.md 1.4: unknown modules, requests above 768 bytes, replies above 4096, the meter by UDP.
fn touchy() -> Behaviour {
    Behaviour {
        dies_of_unknown: true,
        dies_of_udp_meter: true,
        max_request: Some(768),
        max_reply: Some(4096),
        boot: Duration::from_secs(5),
        ..Behaviour::default()
    }
}

async fn a_day_of(model: &str) {
    let _still = StandStill::begin();
    let begin = moment("2026-11-23T12:00:00Z");
    let (simulator, mut owner) = world(plug(model, touchy()), begin, Set::Always).await;
    simulator.press(true).await;
    let mut polls = 0;
    pass(&mut owner, DAY, |outcome| {
        outcome.unwrap();
        polls += 1;
    })
    .await;
    assert!(polls >= 17_280, "{model}: {polls}");
    assert_eq!(simulator.counts().borrow().reboots, 0, "{model}");
}

#[tokio::test(start_paused = true)]
async fn a_touchy_plain_plug_survives_a_day() {
    a_day_of("HS100-G1").await;
}

#[tokio::test(start_paused = true)]
async fn a_touchy_metering_plug_survives_a_day() {
    a_day_of("HS110-G3").await;
}

#[tokio::test(start_paused = true)]
async fn a_touchy_strip_survives_a_day() {
    a_day_of("HS300").await;
}

#[tokio::test(start_paused = true)]
async fn a_touchy_dimmer_with_sensor_survives_a_day() {
    a_day_of("ES20M").await;
}

/// What every known plug has, this one has not, and it dies of the question.
#[tokio::test(start_paused = true)]
async fn a_plug_that_dies_of_our_own_questions_is_asked_them_no_more() {
    let _still = StandStill::begin();
    let begin = moment("2026-11-23T12:00:00Z");
    let lacks = vec!["cnCloud".to_string(), "time".to_string(), "schedule".to_string()];
    let (simulator, mut owner) =
        world(plug("HS100-G1", Behaviour { lacks, ..touchy() }), begin, Set::Auto).await;
    pass(&mut owner, HOUR, drop).await;
    let deaths = simulator.counts().borrow().reboots;
    assert!((1..=6).contains(&deaths), "{deaths} restarts: two for each question");
    let mut failures = 0;
    pass(&mut owner, DAY, |outcome| failures += u32::from(outcome.is_err())).await;
    assert_eq!((simulator.counts().borrow().reboots, failures), (deaths, 0));
}

/// Energy of a strip: one outlet at a time, spread over the interval, each outlet once.
#[tokio::test(start_paused = true)]
async fn a_strip_is_asked_for_its_energy_gently() {
    let _still = StandStill::begin();
    let begin = moment("2026-11-23T12:00:00Z");
    let (simulator, mut owner) = world(plug("HS300", Behaviour::default()), begin, Set::Never).await;
    pass(&mut owner, 10 * MINUTE, |outcome| drop(outcome.unwrap())).await;
    let before = simulator.log().await.len();
    let mut asked: BTreeMap<String, u32> = BTreeMap::new();
    let mut apart = Vec::new();
    let mut last = None;
    for second in 0..60u32 {
        let seen = simulator.log().await.len();
        pass(&mut owner, Duration::from_secs(1), |outcome| drop(outcome.unwrap())).await;
        let log = simulator.log().await;
        let energy: Vec<&String> =
            log[seen..].iter().filter(|request| request.contains("get_realtime")).collect();
        assert!(energy.len() <= 1, "never two within a second: {energy:?}");
        for request in energy {
            *asked.entry(request.clone()).or_default() += 1;
            apart.extend(last.map(|last| second - last));
            last = Some(second);
        }
    }
    assert_eq!(asked.len(), 6, "{asked:?}");
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
    assert!(apart.iter().all(|seconds| (9..=11).contains(seconds)), "{apart:?}");
    let polls = simulator.log().await[before..].iter().filter(|request| request.contains("sysinfo")).count();
    assert_eq!(polls, 12, "the relays of all outlets come from one question");
}

/// homeassistant.md, protocol.md 1.4: HS300 ignore requests beyond some number in some time.
#[tokio::test(start_paused = true)]
async fn a_strip_with_a_budget_never_exceeds_it() {
    let _still = StandStill::begin();
    let begin = moment("2026-11-23T12:00:00Z");
    let budget = Behaviour { budget: Some(12), ..Behaviour::default() };
    let (simulator, mut owner) = world(plug("HS300", budget), begin, Set::Never).await;
    pass(&mut owner, HOUR, |outcome| drop(outcome.unwrap())).await;
    assert!(simulator.counts().borrow().requests > 720);
}

#[tokio::test(start_paused = true)]
async fn a_bulb_is_recognised_and_left_alone() {
    let _still = StandStill::begin();
    let begin = moment("2026-11-23T12:00:00Z");
    let (simulator, mut owner) = world(plug("KL110", Behaviour::default()), begin, Set::Always).await;
    let mut refusals = Vec::new();
    pass(&mut owner, HOUR, |outcome| refusals.push(outcome.unwrap_err())).await;
    assert!(refusals.iter().all(|error| matches!(error, Error::Unsupported(_))), "{refusals:?}");
    let log = simulator.log().await;
    assert!(log.len() <= 7, "asked who it is, every ten minutes: {log:?}");
    assert!(log.iter().all(|request| request == r#"{"system":{"get_sysinfo":{}}}"#), "{log:?}");
}

/// A counter of today's energy begins anew at the plug's midnight, and the total goes on.
#[tokio::test(start_paused = true)]
async fn energy_of_today_ends_at_midnight() {
    let _still = StandStill::begin();
    let begin = moment("2026-11-30T19:00:00Z");
    let (simulator, mut owner) = world(plug("HS110-G3", Behaviour::default()), begin, Set::Always).await;
    simulator.press(true).await;
    let mut latest = None;
    pass(&mut owner, 3 * HOUR + 50 * MINUTE, |outcome| latest = Some(outcome.unwrap())).await;
    let before = latest.clone().unwrap().outlets[0].emeter.unwrap();
    // 11 W for 3 h 50 min, read up to five minutes ago.
    assert!((38..=43).contains(&before.today_wh.unwrap()), "{before:?}");
    assert_eq!(before.today_wh, before.month_wh);
    pass(&mut owner, HOUR, |outcome| latest = Some(outcome.unwrap())).await;
    let after = latest.unwrap().outlets[0].emeter.unwrap();
    assert!((7..=10).contains(&after.today_wh.unwrap()), "{after:?}");
    assert_eq!(after.today_wh, after.month_wh, "December began");
    assert!(after.total_wh > before.total_wh);
}
