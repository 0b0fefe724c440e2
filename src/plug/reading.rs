//! Everything known of one plug at one moment. A plug is a strip of one: nothing downstream asks which kind it has,
//! it asks what an outlet has.

use std::time::{Duration, SystemTime};

use super::emeter::Emeter;
use super::mac::Mac;
use super::protocol::Protocol;
use super::timer::{NextAction, Timer, whole_seconds};

/// What a device is, told by what its sysinfo says and never by a list of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A plug with one outlet.
    Plug,
    /// A switch in the wall.
    WallSwitch,
    /// A dimmer, in the wall or plugged in.
    Dimmer,
    /// Several outlets that are switched one by one.
    Strip,
}

/// One switched outlet. A single plug has exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// What a strip calls it in requests: 42 characters (protocol.md 2.7). `None` for a single plug.
    pub child: Option<Box<str>>,
    /// Counted from 1, as users do: the child id's last two digits and one, never its place in a list or its alias.
    pub number: u8,
    /// Alias of a strip's outlet; empty where it has none, and for a single plug.
    pub alias: String,
    /// Whether the relay is closed, as the plug said or confirmed.
    pub relay: bool,
    /// When it was switched on, to the second; `None` while off or where the plug does not say.
    pub on_since: Option<SystemTime>,
    /// Brightness in percent, 1 to 100; also while off, as the level for the next time. `None` without a dimmer.
    pub brightness: Option<u8>,
    /// What its meter says; `None` where there is no meter.
    pub emeter: Option<Emeter>,
    /// The plug's own timer, while one runs.
    pub timer: Option<Timer>,
    /// What the plug's own schedule does next.
    pub next_action: Option<NextAction>,
}

/// The motion sensor of some wall switches and dimmers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Motion {
    /// Whether it switches the relay; `None` is "unknown".
    pub enabled: Option<bool>,
}

/// Everything known of one plug at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Identity.
    pub mac: Mac,
    /// How it was spoken to.
    pub protocol: Protocol,
    /// What it is.
    pub kind: Kind,
    /// Alias given in the Kasa app; may be empty. No control characters, at most 128 characters.
    pub alias: String,
    /// Model with region, as in `HS110(EU)`.
    pub model: String,
    /// Hardware version, as in `4.1`.
    pub hw_ver: String,
    /// Firmware version, as in `1.2.5 Build 171129 Rel.174814`.
    pub sw_ver: String,
    /// The vendor's id of the device; 40 hex digits on every known plug.
    pub device_id: String,
    /// Signal strength in dBm; absent on some old firmware.
    pub rssi: Option<i64>,
    /// Whether the status LED is allowed to light; absent where it cannot be switched.
    pub led: Option<bool>,
    /// Whether the plug has its vendor's cloud; `None` is "unknown".
    pub cloud: Option<bool>,
    /// Its motion sensor, if it has one.
    pub motion: Option<Motion>,
    /// The outlets, never empty.
    pub outlets: Vec<Outlet>,
}

/// The plug's own count of seconds may wander by this much against our clock without meaning anything.
const JITTER: Duration = Duration::from_secs(5);

impl Reading {
    /// Whether any outlet has a meter.
    pub fn has_meter(&self) -> bool {
        self.outlets.iter().any(|outlet| outlet.emeter.is_some())
    }

    /// Whether its outlets have devices and topics of their own.
    pub fn is_strip(&self) -> bool {
        self.kind == Kind::Strip
    }

    /// The plug as if it were one outlet: on if any of its outlets is, since the earliest; its meters' sum, their mean
    /// voltage.
    pub fn whole(&self) -> Outlet {
        let [first, others @ ..] = self.outlets.as_slice() else { unreachable!("a plug has an outlet") };
        let mut whole = first.clone();
        for other in others {
            whole.relay |= other.relay;
            whole.on_since = [whole.on_since, other.on_since].into_iter().flatten().min();
        }
        if self.is_strip() {
            let meters: Vec<Emeter> = self.outlets.iter().filter_map(|outlet| outlet.emeter).collect();
            whole.emeter = (!meters.is_empty()).then(|| Emeter::sum(&meters));
            // These belong to outlets.
            whole.timer = None;
            whole.next_action = None;
        }
        whole
    }

    /// The same reading with each moment kept where it was, unless it moved by more than the two clocks' jitter:
    /// otherwise it would change a little with every poll. A dimmer that says 0 keeps its last level.
    pub fn steadied_by(mut self, earlier: &Reading) -> Reading {
        for (outlet, earlier) in self.outlets.iter_mut().zip(&earlier.outlets) {
            if let (Some(now), Some(before)) = (outlet.on_since, earlier.on_since)
                && apart(now, before) < JITTER
            {
                outlet.on_since = Some(before);
            }
            if let (Some(now), Some(before)) = (&mut outlet.timer, earlier.timer)
                && apart(now.at, before.at) < JITTER
            {
                now.at = before.at;
            }
            if outlet.brightness == Some(0) {
                outlet.brightness = earlier.brightness;
            }
        }
        self
    }

    /// Whether the plug seems to have restarted since `earlier`: what was on all the time has been on for less time.
    pub fn was_restarted_since(&self, earlier: &Reading) -> bool {
        let mut outlets = self.outlets.iter().zip(&earlier.outlets);
        outlets.any(|(now, before)| match (now.on_since, before.on_since) {
            (Some(now), Some(before)) => now.duration_since(before).is_ok_and(|later| later >= JITTER),
            _ => false,
        })
    }

    /// Takes over what the plug confirmed with `err_code` 0: the outlet's relay moved at `now`.
    pub fn relay_moved(&mut self, outlet: usize, on: bool, now: SystemTime) {
        if let Some(outlet) = self.outlets.get_mut(outlet) {
            if on != outlet.relay || outlet.on_since.is_some() != on {
                outlet.on_since = on.then(|| whole_seconds(now));
            }
            outlet.relay = on;
        }
    }
}

fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|error| error.duration())
}

#[cfg(test)]
mod tests {
    use super::super::sysinfo::tests::{HS110_G1, STRIP, hs110, now, parse};
    use super::*;

    #[test]
    fn jitter_of_the_plugs_clock_does_not_move_on_since() {
        let earlier = hs110();
        let moved = |seconds: u64| {
            let on_time = format!(r#""on_time":{}"#, 3600 + seconds);
            let reading = parse(&HS110_G1.replace(r#""on_time":3600"#, &on_time)).unwrap();
            reading.steadied_by(&earlier).outlets[0].on_since
        };
        assert_eq!(moved(4), earlier.outlets[0].on_since);
        assert_eq!(moved(5), Some(now() - Duration::from_secs(3605)));
    }

    #[test]
    fn a_restart_shows_in_the_time_that_a_plug_is_on() {
        let earlier = hs110();
        let with = |on_time: u64| {
            let on_time = format!(r#""on_time":{on_time}"#);
            parse(&HS110_G1.replace(r#""on_time":3600"#, &on_time)).unwrap()
        };
        for (on_time, restarted) in [(3600, false), (3700, false), (3596, false), (3595, true), (0, true)] {
            assert_eq!(with(on_time).was_restarted_since(&earlier), restarted, "{on_time}");
        }
    }

    #[test]
    fn a_confirmed_relay_keeps_or_loses_its_on_since() {
        let mut reading = hs110();
        let since = reading.outlets[0].on_since;
        reading.relay_moved(0, true, now());
        assert_eq!(reading.outlets[0].on_since, since, "it was on before");
        reading.relay_moved(0, false, now());
        assert_eq!((reading.outlets[0].relay, reading.outlets[0].on_since), (false, None));
        reading.relay_moved(0, true, now());
        assert_eq!(reading.outlets[0].on_since, Some(now()));
        reading.relay_moved(7, true, now());
    }

    #[test]
    fn a_strip_as_a_whole_is_on_if_any_outlet_is_and_sums_its_meters() {
        let mut strip = parse(STRIP).unwrap();
        for (outlet, power) in strip.outlets.iter_mut().zip([1_000, 2_500]) {
            outlet.emeter = Some(Emeter {
                power_mw: Some(power),
                voltage_mv: Some(120_000 + power),
                today_wh: Some(7),
                ..Emeter::default()
            });
        }
        let whole = strip.whole();
        let emeter = whole.emeter.unwrap();
        assert!(whole.relay, "the second outlet is on");
        assert_eq!(whole.on_since, strip.outlets[1].on_since);
        assert_eq!(
            (emeter.power_mw, emeter.voltage_mv, emeter.today_wh),
            (Some(3_500), Some(121_750), Some(14))
        );
        assert_eq!(emeter.total_wh, None, "the sum of something unknown is unknown");
    }

    #[test]
    fn a_dimmer_that_faded_to_nothing_keeps_its_level() {
        let mut earlier = hs110();
        earlier.outlets[0].brightness = Some(40);
        let mut faded = earlier.clone();
        faded.outlets[0].brightness = Some(0);
        assert_eq!(faded.steadied_by(&earlier).outlets[0].brightness, Some(40));
    }
}
