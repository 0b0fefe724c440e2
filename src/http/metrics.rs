//! The picture as Prometheus reads it: text format 0.0.4, base units, one family after the other.

use std::fmt::Write;
use std::time::SystemTime;

use crate::bridge::plug::Availability;
use crate::bridge::tally::{BOUNDS, KINDS};
use crate::bridge::view::View;
use crate::plug::emeter::Emeter;
use crate::plug::reading::{Outlet, Reading};

use super::picture::{Picture, milliwatts, number};

/// What Prometheus is told of the format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the program tells of itself, where the system tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process {
    /// In bytes.
    pub resident_memory: Option<u64>,
    /// Open files, connections among them.
    pub open_files: Option<u64>,
    /// How many there may be.
    pub most_files: Option<u64>,
    /// Time on the processor, in seconds.
    pub cpu_seconds: Option<f64>,
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0 += name;
        for (at, (label, value)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            self.0.extend([*label, "=\""]);
            escape(&mut self.0, value);
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family with one sample and no labels, where there is a value.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.family(name, kind, help);
            self.sample(name, &[], value);
        }
    }
}

/// A plug with its label, so that it is made once.
struct Labelled<'a> {
    plug: String,
    view: &'a View,
}

/// Everything.
pub fn render(picture: &Picture, process: &Process) -> String {
    let mut text = Text(String::new());
    let plugs: Vec<Labelled<'_>> =
        picture.plugs().map(|view| Labelled { plug: view.called(), view }).collect();
    plug_families(&mut text, &plugs);
    outlet_families(&mut text, &plugs);
    latency(&mut text, &plugs);
    bridge(&mut text, picture);
    itself(&mut text, picture.started(), process);
    text.0
}

fn plug_families(text: &mut Text, plugs: &[Labelled<'_>]) {
    let name = "kasa_plug_info";
    text.family(name, "gauge", "What the plug is; always 1.");
    for Labelled { plug, view } in plugs {
        let Some(reading) = &view.reading else { continue };
        let mac = reading.mac.to_string();
        let labels = [
            ("plug", plug.as_str()),
            ("mac", &mac),
            ("alias", &reading.alias),
            ("model", &reading.model),
            ("firmware", &reading.sw_ver),
            ("protocol", reading.protocol.name()),
        ];
        text.sample(name, &labels, 1);
    }
    let name = "kasa_plug_up";
    text.family(name, "gauge", "Whether the plug answers.");
    for Labelled { plug, view } in plugs {
        let up = u8::from(view.availability == Availability::Online);
        text.sample(name, &[("plug", plug)], up);
    }
    let name = "kasa_plug_signal_dbm";
    text.family(name, "gauge", "Signal strength of the plug's WLAN.");
    for Labelled { plug, view } in plugs {
        if let Some(rssi) = view.reading.as_ref().and_then(|reading| reading.rssi) {
            text.sample(name, &[("plug", plug)], rssi);
        }
    }
    let name = "kasa_plug_errors_total";
    text.family(name, "counter", "Polls and commands that came to nothing, by kind.");
    for Labelled { plug, view } in plugs {
        for (kind, errors) in KINDS.iter().zip(view.tally.errors) {
            text.sample(name, &[("plug", plug), ("kind", kind)], errors);
        }
    }
}

fn outlet_families(text: &mut Text, plugs: &[Labelled<'_>]) {
    type Value = fn(&View, &Outlet) -> Option<f64>;
    let families: [(&str, &str, &str, Value); 6] = [
        ("kasa_outlet_on", "gauge", "Whether the relay is closed.", |_, outlet| {
            Some(f64::from(u8::from(outlet.relay)))
        }),
        ("kasa_outlet_power_watts", "gauge", "Active power.", |view, outlet| {
            milliwatts(view, outlet).map(|milli| milli as f64 / 1000.0)
        }),
        ("kasa_outlet_voltage_volts", "gauge", "Voltage.", |view, outlet| {
            online(view, outlet).and_then(|emeter| emeter.voltage_mv).map(|milli| milli as f64 / 1000.0)
        }),
        ("kasa_outlet_current_amperes", "gauge", "Current.", |view, outlet| {
            online(view, outlet).and_then(|emeter| emeter.current_ma).map(|milli| milli as f64 / 1000.0)
        }),
        ("kasa_outlet_energy_joules_total", "counter", "The plug's own counter of energy.", |_, outlet| {
            outlet.emeter.and_then(|emeter| emeter.total_wh).map(|wh| wh as f64 * 3600.0)
        }),
        (
            "kasa_outlet_energy_today_joules",
            "gauge",
            "Energy since midnight, by the plug's clock.",
            |_, outlet| outlet.emeter.and_then(|emeter| emeter.today_wh).map(|wh| wh as f64 * 3600.0),
        ),
    ];
    for (name, kind, help, value) in families {
        text.family(name, kind, help);
        for Labelled { plug, view } in plugs {
            let Some(reading) = &view.reading else { continue };
            for outlet in &reading.outlets {
                if let Some(value) = value(view, outlet) {
                    text.sample(name, &[("plug", plug), ("outlet", &label(reading, outlet))], value);
                }
            }
        }
    }
}

fn online(view: &View, outlet: &Outlet) -> Option<Emeter> {
    outlet.emeter.filter(|_| view.availability == Availability::Online)
}

fn label(reading: &Reading, outlet: &Outlet) -> String {
    number(reading, outlet).to_string()
}

fn latency(text: &mut Text, plugs: &[Labelled<'_>]) {
    text.family("kasa_poll_duration_seconds", "histogram", "Time until the plug had answered a poll.");
    let bounds: Vec<String> =
        BOUNDS.iter().map(|bound| seconds(u64::from(*bound), 1e3).to_string()).collect();
    for Labelled { plug, view } in plugs {
        let mut count = 0;
        let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
        for (class, bound) in view.tally.classes.iter().zip(bounds) {
            count += u64::from(*class);
            text.sample("kasa_poll_duration_seconds_bucket", &[("plug", plug), ("le", bound)], count);
        }
        text.sample("kasa_poll_duration_seconds_sum", &[("plug", plug)], seconds(view.tally.took, 1e6));
        text.sample("kasa_poll_duration_seconds_count", &[("plug", plug)], count);
    }
}

fn seconds(parts: u64, per_second: f64) -> f64 {
    parts as f64 / per_second
}

fn bridge(text: &mut Text, picture: &Picture) {
    let name = "kasa_bridge_info";
    text.family(name, "gauge", "The program; always 1.");
    text.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let (plugs, online) = picture.count();
    text.single("kasa_plugs", "gauge", "Plugs that are known.", Some(plugs));
    text.single("kasa_plugs_online", "gauge", "Plugs that answer.", Some(online));
    let whole = picture.whole;
    let connected = Some(u8::from(whole.connected));
    text.single("kasa_broker_connected", "gauge", "Whether a session with the broker is open.", connected);
    let sessions = Some(whole.sessions);
    text.single("kasa_broker_sessions_total", "counter", "Sessions with the broker.", sessions);
    let taken = Some(whole.acknowledged);
    text.single("kasa_broker_publishes_total", "counter", "Messages that the broker has taken.", taken);
    let dropped = Some(whole.dropped);
    let help = "Answers and events dropped because the broker did not take them.";
    text.single("kasa_broker_dropped_total", "counter", help, dropped);
}

fn itself(text: &mut Text, started: SystemTime, process: &Process) {
    let started = started.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs_f64());
    text.single("process_start_time_seconds", "gauge", "When the program started, since 1970.", started);
    let memory = process.resident_memory;
    text.single("process_resident_memory_bytes", "gauge", "Resident memory.", memory);
    text.single("process_open_fds", "gauge", "Open files, connections among them.", process.open_files);
    text.single("process_max_fds", "gauge", "How many there may be.", process.most_files);
    let help = "Time on the processor.";
    text.single("process_cpu_seconds_total", "counter", help, process.cpu_seconds);
}

fn escape(text: &mut String, value: &str) {
    for letter in value.chars() {
        match letter {
            '\\' => *text += "\\\\",
            '"' => *text += "\\\"",
            '\n' => *text += "\\n",
            letter => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_plug_is_called_stays_one_label() {
        let mut text = Text(String::new());
        text.sample("kasa_x", &[("plug", "a\\b\"} 1\nevil_total 7 # é"), ("outlet", "")], 0.5);
        assert_eq!(text.0, "kasa_x{plug=\"a\\\\b\\\"} 1\\nevil_total 7 # é\",outlet=\"\"} 0.5\n");
        text.0.clear();
        text.sample("kasa_y", &[], u64::MAX);
        assert_eq!(text.0, "kasa_y 18446744073709551615\n");
    }
}
