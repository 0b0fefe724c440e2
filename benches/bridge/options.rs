//! What can be measured, and of which bridge.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures a bridge between Kasa plugs and MQTT against the least that its work could cost.
#[derive(Debug, Clone, Parser)]
#[command(name = "cargo bench --bench bridge --")]
pub struct Options {
    /// What to measure; by default everything that takes seconds, not minutes.
    pub figures: Vec<Figure>,
    /// The bridge, as a line for sh, instead of the binary that cargo built. It must end with `exec`, and finds
    /// BENCH_BROKER (host:port), BENCH_INTERVAL (seconds) and BENCH_PLUGS (a file of lines `address:port name`).
    #[arg(long, value_name = "LINE")]
    pub bridge: Option<String>,
    /// Another binary of ours: one with names in it for a profiler, or an older one.
    #[arg(long, value_name = "FILE", conflicts_with = "bridge")]
    pub binary: Option<PathBuf>,
    /// A program, with its options, that runs our binary in its own process, such as valgrind.
    #[arg(long, value_name = "LINE", conflicts_with = "bridge")]
    pub under: Option<String>,
    /// Where to leave what callgrind writes.
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// A broker that runs, instead of a mosquitto of our own.
    #[arg(long, value_name = "HOST:PORT")]
    pub broker: Option<SocketAddr>,
    /// Port of all plugs, each on a loopback address of its own.
    #[arg(long, default_value_t = 9999)]
    pub plug_port: u16,
    /// Plugs without a meter: one module in each poll.
    #[arg(long)]
    pub plain: bool,
    /// Where a plug is switched; {name} stands for its name.
    #[arg(long, value_name = "TOPIC", default_value = "kasa/{name}/set")]
    pub command_topic: String,
    /// What switches it on.
    #[arg(long, default_value = "ON")]
    pub on: String,
    /// What switches it off.
    #[arg(long, default_value = "OFF")]
    pub off: String,
    /// Where its state is told.
    #[arg(long, value_name = "TOPIC", default_value = "kasa/{name}")]
    pub state_topic: String,
    /// Part of a state that says "on".
    #[arg(long, default_value = r#""state":"ON""#)]
    pub state_on: String,
    /// Part of a state that says "off".
    #[arg(long, default_value = r#""state":"OFF""#)]
    pub state_off: String,
    /// Retained messages of each plug: what a reconnect has to bring back.
    #[arg(long, default_value_t = 3)]
    pub retained: usize,
    /// Plugs where there are many.
    #[arg(long, default_value_t = 10_000)]
    pub many: usize,
    /// Length of a measurement of CPU, wake-ups or punctuality.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    pub window: Duration,
    /// Commands of which a percentile is taken.
    #[arg(long, default_value_t = 500)]
    pub commands: usize,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// One subject of measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Figure {
    /// Command to relay and to state, 20 plugs.
    Latency,
    /// The same with plugs that take 30 ms for each reply.
    Slow,
    /// 200 commands at once to 200 plugs.
    Burst,
    /// 33 plugs beside 17 that are broken.
    Faults,
    /// CPU per 1,000 polls, 200 plugs.
    Cpu,
    /// Wake-ups when idle, 20 plugs.
    Wakeups,
    /// Resident memory at 1, 20 and 200 plugs.
    Memory,
    /// Start to the first state of a plug.
    Start,
    /// Memory, punctuality, CPU and command latency at 10,000 plugs every 10 s. Takes minutes.
    Many,
    /// A broker's restart with 10,000 plugs. Takes a minute.
    Reconnect,
    /// 1,000 plugs by one, two and four shards. Takes three minutes.
    Shards,
    /// Instructions of a poll and of a command, counted by callgrind. Takes a minute.
    Instructions,
}

/// What runs when nothing is asked for.
const USUAL: [Figure; 10] = [
    Figure::Latency,
    Figure::Slow,
    Figure::Burst,
    Figure::Faults,
    Figure::Cpu,
    Figure::Wakeups,
    Figure::Memory,
    Figure::Start,
    Figure::Many,
    Figure::Reconnect,
];

impl Options {
    /// What to measure, in this order.
    pub fn figures(&self) -> Vec<Figure> {
        if self.figures.is_empty() { USUAL.to_vec() } else { self.figures.clone() }
    }

    /// Where the plug of this number is switched.
    pub fn command_topic(&self, plug: usize) -> String {
        self.command_topic.replace("{name}", &name(plug))
    }

    /// Where the plug of this number tells its state.
    pub fn state_topic(&self, plug: usize) -> String {
        self.state_topic.replace("{name}", &name(plug))
    }

    /// Every plug's state.
    pub fn state_filter(&self) -> String {
        self.state_topic.replace("{name}", "+")
    }

    /// The payload of a command.
    pub fn command(&self, on: bool) -> &str {
        if on { &self.on } else { &self.off }
    }

    /// Whether a state says that the relay is `on`.
    pub fn says(&self, payload: &[u8], on: bool) -> bool {
        let text = if on { &self.state_on } else { &self.state_off };
        payload.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

/// A plug's name, and its alias for bridges that make topics of aliases.
pub fn name(plug: usize) -> String {
    format!("plug-{plug}")
}
