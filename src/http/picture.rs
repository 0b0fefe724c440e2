//! The fleet as the status page shows it: kept from what the core tells, drawn as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use serde::Serialize;

use crate::bridge::plug::{Availability, PlugNo};
use crate::bridge::view::{Change, View, Whole};
use crate::plug::reading::{Outlet, Reading};

use super::access::Rights;
use super::history::History;

/// A plug's history changes each minute; that of one in so many plugs is told each second.
const SECONDS: u64 = 60;

/// See the module. Times count from the start of the program.
#[derive(Debug)]
pub struct Picture {
    started: SystemTime,
    /// The connection to the broker.
    pub whole: Whole,
    plugs: BTreeMap<PlugNo, Shown>,
    online: usize,
    /// Those that are to be told of.
    changed: BTreeSet<PlugNo>,
    /// Ids of those that are no more.
    gone: Vec<String>,
    /// What was told of the bridge.
    told: Option<String>,
    /// When it was looked at whose minutes are to be told.
    ticked: u64,
}

/// One plug, and what the core forgets of it.
#[derive(Debug)]
struct Shown {
    view: Box<View>,
    histories: Vec<History>,
}

#[derive(Serialize)]
struct State<'a> {
    bridge: Bridge,
    may_control: bool,
    needs_token: bool,
    plugs: Vec<Plug<'a>>,
}

#[derive(Serialize)]
struct Bridge {
    version: &'static str,
    started: String,
    uptime: u64,
    broker: Broker,
    online: usize,
    plugs: usize,
    power: Option<f64>,
}

#[derive(Serialize)]
struct Broker {
    connected: bool,
    sessions: u64,
}

#[derive(Serialize)]
struct Plug<'a> {
    id: String,
    name: Option<&'a str>,
    alias: Option<&'a str>,
    model: Option<&'a str>,
    address: &'a str,
    protocol: Option<&'static str>,
    rssi: Option<i64>,
    availability: &'static str,
    reason: Option<&'a str>,
    last_error: Option<&'a str>,
    errors: u64,
    outlets: Vec<OutletShown<'a>>,
}

#[derive(Serialize)]
struct OutletShown<'a> {
    number: u8,
    name: &'a str,
    on: bool,
    power: Option<f64>,
    energy_today: Option<f64>,
    history: Vec<Option<f64>>,
}

impl Picture {
    /// Nothing yet.
    pub fn new(started: SystemTime) -> Picture {
        Picture {
            started,
            whole: Whole::default(),
            plugs: BTreeMap::new(),
            online: 0,
            changed: BTreeSet::new(),
            gone: Vec::new(),
            told: None,
            ticked: 0,
        }
    }

    /// When the program started.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// All plugs.
    pub fn plugs(&self) -> impl Iterator<Item = &View> {
        self.plugs.values().map(|shown| &*shown.view)
    }

    /// Takes in what the core tells.
    pub fn take(&mut self, change: Change, now: Duration) {
        let Change { no, view } = change;
        let before = self.plugs.remove(&no);
        let is_online = |view: &View| view.availability == Availability::Online;
        self.online -= usize::from(before.as_ref().is_some_and(|shown| is_online(&shown.view)));
        let Some(view) = view else {
            self.changed.remove(&no);
            self.gone.extend(before.map(|shown| shown.view.id()));
            return;
        };
        self.online += usize::from(is_online(&view));
        let mut histories = match before {
            Some(shown) => {
                if shown.view.id() != view.id() {
                    self.gone.push(shown.view.id());
                }
                if shown.view.differs(&view) {
                    self.changed.insert(no);
                }
                shown.histories
            }
            None => {
                self.changed.insert(no);
                Vec::new()
            }
        };
        let metered = view.reading.iter().flat_map(|reading| &reading.outlets).filter(|one| has_meter(one));
        let powers = metered.map(|outlet| milliwatts(&view, outlet).map(|milli| milli as f32 / 1000.0));
        let powers: Vec<Option<f32>> = powers.collect();
        histories.resize_with(powers.len(), || History::new(now));
        for (history, power) in histories.iter_mut().zip(powers) {
            history.flows(now, power);
        }
        self.plugs.insert(no, Shown { view, histories });
    }

    /// About a second has passed. The minutes of some plugs are told anew.
    pub fn tick(&mut self, now: Duration) {
        let since = std::mem::replace(&mut self.ticked, now.as_secs());
        let passed = now.as_secs() - since.min(now.as_secs());
        let is_next = |(no, shown): &(&PlugNo, &Shown)| {
            let ago = (now.as_secs() + SECONDS - u64::from(no.0) % SECONDS) % SECONDS;
            ago < passed && !shown.histories.is_empty()
        };
        let next = self.plugs.iter().filter(is_next).map(|(no, _)| *no);
        self.changed.extend(next);
    }

    /// Whether [`Picture::events`] has something.
    pub fn has_events(&self) -> bool {
        !self.changed.is_empty() || !self.gone.is_empty()
    }

    /// Nobody is there to be told.
    pub fn forget_events(&mut self) {
        self.changed.clear();
        self.gone.clear();
    }

    /// What changed since it was asked last, as server-sent events.
    pub fn events(&mut self, now: Duration) -> String {
        let mut events = String::new();
        let mut gone: BTreeSet<String> = std::mem::take(&mut self.gone).into_iter().collect();
        if !gone.is_empty() {
            // Under the same id it may be back already.
            for shown in self.plugs.values() {
                gone.remove(&shown.view.id());
            }
        }
        for id in gone {
            event(&mut events, "gone", &json(&serde_json::json!({"id": id})));
        }
        for no in std::mem::take(&mut self.changed) {
            if let Some(shown) = self.plugs.get_mut(&no) {
                event(&mut events, "plug", &json(&plug(shown, now)));
            }
        }
        events
    }

    /// The bridge itself, as an event, when something but its age changed since it was asked last.
    pub fn bridge_event(&mut self, now: Duration) -> Option<String> {
        let told = json(&Bridge { uptime: 0, ..self.bridge(now) });
        if self.told.as_ref() == Some(&told) {
            return None;
        }
        self.told = Some(told);
        let mut text = String::new();
        event(&mut text, "bridge", &json(&self.bridge(now)));
        Some(text)
    }

    /// Everything.
    pub fn state(&mut self, rights: Rights, now: Duration) -> String {
        let bridge = self.bridge(now);
        let plugs = self.plugs.values_mut().map(|shown| plug(shown, now)).collect();
        let Rights { may_control, needs_token } = rights;
        json(&State { bridge, may_control, needs_token, plugs })
    }

    /// Everything, as an event.
    pub fn state_event(&mut self, rights: Rights, now: Duration) -> String {
        let mut text = String::new();
        event(&mut text, "state", &self.state(rights, now));
        text
    }

    /// How many plugs there are, and how many of them answer.
    pub fn count(&self) -> (usize, usize) {
        (self.plugs.len(), self.online)
    }

    fn bridge(&self, now: Duration) -> Bridge {
        let powers = self.plugs().flat_map(|view| {
            let outlets = view.reading.iter().flat_map(|reading| &reading.outlets);
            outlets.filter_map(|outlet| milliwatts(view, outlet))
        });
        let power = powers.fold(None, |sum: Option<u64>, milli| Some(sum.unwrap_or(0).saturating_add(milli)));
        Bridge {
            version: env!("CARGO_PKG_VERSION"),
            started: format_rfc3339_seconds(self.started).to_string(),
            uptime: now.as_secs(),
            broker: Broker { connected: self.whole.connected, sessions: self.whole.sessions },
            online: self.online,
            plugs: self.plugs.len(),
            power: power.map(watts),
        }
    }
}

/// As users read it in the labels of metrics: 0 for a plug that has but one.
pub fn number(reading: &Reading, outlet: &Outlet) -> u8 {
    if reading.is_strip() { outlet.number } else { 0 }
}

/// What flows through the outlet, if that is known now.
pub fn milliwatts(view: &View, outlet: &Outlet) -> Option<u64> {
    let answers = view.availability == Availability::Online;
    outlet.emeter.and_then(|emeter| emeter.power_mw).filter(|_| answers)
}

fn has_meter(outlet: &Outlet) -> bool {
    outlet.emeter.is_some()
}

fn plug(shown: &mut Shown, now: Duration) -> Plug<'_> {
    let Shown { view, histories } = shown;
    let reading = view.reading.as_deref();
    let is_away = view.availability != Availability::Online;
    let mut histories = histories.iter_mut();
    let outlet = |reading: &'_ Reading, outlet: &'_ Outlet, history| OutletShown {
        number: number(reading, outlet),
        name: "",
        on: outlet.relay,
        power: milliwatts(view, outlet).map(watts),
        energy_today: outlet.emeter.and_then(|emeter| emeter.today_wh).map(|wh| wh as f64 / 1000.0),
        history,
    };
    let mut outlets = Vec::new();
    for one in reading.iter().flat_map(|reading| &reading.outlets) {
        let Some(reading) = reading else { continue };
        let history = if has_meter(one) { histories.next() } else { None };
        let minutes =
            history.map(|history| history.minutes(now).map(|average| average.map(tenths)).collect());
        let name = if one.alias.is_empty() { &reading.alias } else { &one.alias };
        outlets.push(OutletShown { name, ..outlet(reading, one, minutes.unwrap_or_default()) });
    }
    Plug {
        id: view.id(),
        name: view.name.as_deref(),
        alias: reading.map(|reading| reading.alias.as_str()),
        model: reading.map(|reading| reading.model.as_str()),
        address: &view.address,
        protocol: reading.map(|reading| reading.protocol.name()),
        rssi: reading.and_then(|reading| reading.rssi),
        availability: match view.availability {
            Availability::Unknown => "unknown",
            Availability::Online => "online",
            Availability::Offline => "offline",
        },
        reason: view.trouble.as_deref().or(view.last_error.as_deref().filter(|_| is_away)),
        last_error: view.last_error.as_deref(),
        errors: view.errors,
        outlets,
    }
}

/// As in states: to 0.1 W.
fn watts(milli: u64) -> f64 {
    (milli.saturating_add(50) / 100) as f64 / 10.0
}

fn tenths(watts: f32) -> f64 {
    (f64::from(watts) * 10.0).round() / 10.0
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is shown is plain data")
}

/// JSON has no line ends, so one line of data is enough.
fn event(text: &mut String, name: &str, data: &str) {
    text.extend(["event: ", name, "\ndata: ", data, "\n\n"]);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::bridge::tally::Tally;
    use crate::plug::emeter::Emeter;
    use crate::plug::sysinfo::tests::hs110;

    use super::*;

    const RIGHTS: Rights = Rights { may_control: true, needs_token: false };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lamp() -> View {
        let mut reading = hs110();
        reading.outlets[0].emeter = Some(Emeter { power_mw: Some(12_340), ..Emeter::default() });
        View {
            mac: Some(reading.mac),
            name: Some("desk-lamp".into()),
            address: "192.0.2.1:9999".into(),
            availability: Availability::Online,
            trouble: None,
            last_error: None,
            errors: 0,
            reading: Some(reading.into()),
            tally: Tally::default(),
        }
    }

    fn change(no: u32, view: Option<View>) -> Change {
        Change { no: PlugNo(no), view: view.map(Box::new) }
    }

    /// The names of the events, and their data.
    fn events(picture: &mut Picture, now: u64) -> Vec<(String, Value)> {
        let text = picture.events(seconds(now));
        let event = |event: &str| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            (name.strip_prefix("event: ").unwrap().to_string(), data)
        };
        text.split_terminator("\n\n").map(event).collect()
    }

    #[test]
    fn what_changed_is_told_once() {
        let mut picture = Picture::new(SystemTime::UNIX_EPOCH);
        let before = View { mac: None, name: None, reading: None, ..lamp() };
        picture.take(change(1, Some(before)), seconds(0));
        picture.take(change(2, Some(View { mac: None, ..lamp() })), seconds(0));
        assert_eq!(events(&mut picture, 0).len(), 2);
        assert!(!picture.has_events());
        // It says who it is: its address is its id no more.
        picture.take(change(1, Some(lamp())), seconds(1));
        let told = events(&mut picture, 1);
        assert_eq!(told.len(), 1, "the other has that address still: {told:?}");
        picture.take(change(2, None), seconds(2));
        assert_eq!(events(&mut picture, 2), [("gone".into(), json!({"id": "192.0.2.1:9999"}))]);
        // Counters alone are nothing to look at; the metrics have them.
        let mut counted = lamp();
        counted.tally.answered(seconds(1));
        picture.take(change(1, Some(counted)), seconds(3));
        assert!(!picture.has_events());
        assert_eq!(picture.plugs().next().unwrap().tally.took, 1_000_000);
        let away = View { availability: Availability::Offline, last_error: Some("no".into()), ..lamp() };
        picture.take(change(1, Some(away)), seconds(4));
        let told = events(&mut picture, 4);
        assert_eq!((&told[0].1["reason"], &told[0].1["outlets"][0]["power"]), (&json!("no"), &Value::Null));
        assert_eq!(picture.count(), (1, 0));
        picture.take(change(1, None), seconds(5));
        picture.forget_events();
        assert!(!picture.has_events() && picture.count() == (0, 0));
    }

    #[test]
    fn each_plugs_minutes_are_told_once_a_minute_however_late_the_seconds_come() {
        let mut picture = Picture::new(SystemTime::UNIX_EPOCH);
        for no in 0..200 {
            picture.take(change(no, Some(lamp())), seconds(0));
        }
        picture.tick(seconds(0));
        let (_, first) = (events(&mut picture, 0), picture.has_events());
        assert!(!first);
        let mut told = 0;
        // Some seconds come late, some do not come at all.
        for now in (1..=60).filter(|second| second % 7 != 0 && *second != 31) {
            picture.tick(seconds(now));
            told += events(&mut picture, now).len();
        }
        assert_eq!(told, 200);
        picture.tick(seconds(100_000));
        assert_eq!(events(&mut picture, 100_000).len(), 200);
    }

    #[test]
    fn the_state_is_whole_and_the_bridge_is_told_when_it_changes() {
        let mut picture = Picture::new(SystemTime::UNIX_EPOCH);
        picture.take(change(1, Some(lamp())), seconds(0));
        picture.take(change(2, Some(View { availability: Availability::Offline, ..lamp() })), seconds(0));
        let state: Value = serde_json::from_str(&picture.state(RIGHTS, seconds(90))).unwrap();
        assert_eq!(state["bridge"]["power"], 12.3, "of those that answer");
        assert_eq!(
            (&state["bridge"]["uptime"], &state["bridge"]["started"]),
            (&json!(90), &json!("1970-01-01T00:00:00Z"))
        );
        assert_eq!(state["plugs"][0]["outlets"][0]["history"], json!([12.3, 12.3]));
        assert_eq!(state["plugs"][1]["outlets"][0]["history"], json!([null, null]));
        assert_eq!(state["plugs"][0]["id"], hs110().mac.hex());
        assert!(picture.bridge_event(seconds(91)).is_some());
        assert!(picture.bridge_event(seconds(92)).is_none(), "its age alone is no news");
        picture.whole.connected = true;
        let event = picture.bridge_event(seconds(93)).unwrap();
        assert!(event.starts_with("event: bridge\ndata: {") && event.contains(r#""uptime":93"#), "{event}");
    }
}
