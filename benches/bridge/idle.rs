//! What a bridge costs while nobody switches anything: CPU, wake-ups, memory, and its start.

use std::time::{Duration, Instant};

use crate::bridge::{self, Bridge};
use crate::broker::Broker;
use crate::floor;
use crate::mqtt::Client;
use crate::options::Options;
use crate::plugs::Plugs;
use crate::process::{Memory, Usage};
use crate::report::{Report, median, ms, percentile, ratio, us};
use crate::stage::Stage;

/// CPU and waits of each poll within the window, and how many there were.
pub fn usage_of_polls(stage: &Stage, window: Duration) -> (Duration, u64, u64) {
    let (before, polls) = (Usage::of(stage.bridge.process()), stage.plugs.polls());
    std::thread::sleep(window);
    let (after, polls) = (Usage::of(stage.bridge.process()), stage.plugs.polls() - polls);
    let each = u32::try_from(polls.max(1)).expect("few polls");
    ((after.cpu - before.cpu) / each, after.waits - before.waits, polls)
}

/// 200 plugs every second.
pub fn cpu(options: &Options, plugs: &Plugs, report: &mut Report) {
    const PLUGS: usize = 200;
    let stage = Stage::set(options, plugs, PLUGS, Duration::from_secs(1));
    let addresses: Vec<_> = (PLUGS..2 * PLUGS).map(|plug| plugs.address(plug)).collect();
    let half = options.window / 2;
    let (first, ..) = usage_of_polls(&stage, half);
    let tight = floor::cpu_of_a_poll(&addresses, 50, None);
    let pace = Duration::from_millis(5);
    let rounds = (half.as_millis() / pace.as_millis() / PLUGS as u128).max(1);
    let paced = floor::cpu_of_a_poll(&addresses, usize::try_from(rounds).expect("few"), Some(pace));
    let (second, ..) = usage_of_polls(&stage, half);
    let poll = (first + second) / 2;
    report.row(
        "CPU per 1,000 polls, 200 plugs every second",
        format!("{:.3} s", poll.as_secs_f64() * 1e3),
        format!("{} a bare loop ({})", ratio(poll, tight), us(tight)),
        "0.075 s, 2 x",
    );
    report.row(
        "the same against a bare loop of the same pace",
        format!("{} each", us(poll)),
        format!("{} ({})", ratio(poll, paced), us(paced)),
        "",
    );
}

/// 20 plugs every 10 s.
pub fn wakeups(options: &Options, plugs: &Plugs, report: &mut Report) {
    let stage = Stage::set(options, plugs, 20, Duration::from_secs(10));
    // A minute: each state's heartbeat and the keep-alives are in it.
    let window = Duration::from_secs(60);
    let (_, waits, polls) = usage_of_polls(&stage, window);
    let keep_alives = window.as_secs() / 30;
    report.row(
        "wake-ups in a minute, 20 plugs every 10 s",
        waits.to_string(),
        format!(
            "{:.2} x {polls} polls + {keep_alives} keep-alives",
            waits as f64 / (polls + keep_alives) as f64
        ),
        "2 x",
    );
}

/// A few plugs, some dozens, some hundreds.
pub fn memory_of_few(options: &Options, plugs: &Plugs, report: &mut Report) {
    for (count, goal) in [(1, "4 MB"), (20, "5 MB"), (200, "8 MB")] {
        bridge::drop_from_page_cache(options);
        let stage = Stage::set(options, plugs, count, Duration::from_secs(2));
        memory_row(&stage, goal, report);
    }
}

pub fn memory_row(stage: &Stage, goal: &str, report: &mut Report) {
    let Memory { now, highest, own } = Memory::of(stage.bridge.process());
    let figure = format!("resident memory, {} plugs", stage.count);
    report.row(
        figure,
        format!("{now:.1} MB"),
        format!("{own:.1} MB without files, highest {highest:.1} MB"),
        goal,
    );
}

/// From the program's start to the first state of its only plug.
pub fn start(options: &Options, plugs: &Plugs, report: &mut Report) {
    let broker = Broker::start(options.broker);
    let mut client = Client::connect(broker.address, "bench");
    client.subscribe(&options.state_filter());
    let mut took = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let bridge = Bridge::start(options, broker.address, plugs, 1, Duration::from_secs(10), None);
        let state = client.next(began + Duration::from_secs(30)).expect("a first state");
        took.push(state.at - began);
        bridge.terminate();
        while client.next(Instant::now() + Duration::from_millis(50)).is_some() {}
    }
    report.row(
        "start to the first state, p50",
        format!("{}, slowest {}", ms(median(&took)), ms(percentile(&took, 1.0))),
        "",
        "100 ms",
    );
}
