//! How long commands take: alone, with slow plugs, all at once.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::floor::Floor;
use crate::mqtt::{Client, publish};
use crate::options::Options;
use crate::plugs::Plugs;
use crate::report::{Report, median, ms, percentile, ratio};
use crate::stage::{Stage, Took};

const INTERVAL: Duration = Duration::from_secs(10);
const PLUGS: usize = 20;

/// Pause before each command: the house is idle, and no packet waits for the delayed acknowledgement of another.
const PAUSE: Duration = Duration::from_millis(60);

/// 20 plugs, one command at a time; the floor is measured between them. Returns the commands for comparison.
pub fn idle(options: &Options, plugs: &Plugs, report: &mut Report) -> Vec<Took> {
    let mut stage = Stage::set(options, plugs, PLUGS, INTERVAL);
    let mut floor = Floor::new(stage.broker.address, plugs.address(PLUGS));
    let (mut hops, mut exchanges, mut took) = (Vec::new(), Vec::new(), Vec::new());
    let mut lost = 0;
    for round in 0..options.commands {
        hops.push(floor.hop());
        std::thread::sleep(PAUSE);
        exchanges.push(floor.exchange());
        std::thread::sleep(PAUSE);
        match stage.command(round % PLUGS) {
            Some(command) => took.push(command),
            None => lost += 1,
        }
        std::thread::sleep(PAUSE);
    }
    let (hop, exchange) = (median(&hops), median(&exchanges));
    let least = hop + exchange;
    report.row("floor: hop + exchange, p50", ms(least), format!("{} + {}", ms(hop), ms(exchange)), "");
    let relay: Vec<Duration> = took.iter().map(|took| took.relay).collect();
    let state: Vec<Duration> = took.iter().map(|took| took.state).collect();
    let row = |report: &mut Report, figure: &str, times: &[Duration], against: String| {
        let (p50, p99) = (percentile(times, 0.5), percentile(times, 0.99));
        report.row(figure, format!("{}, p99 {}", ms(p50), ms(p99)), against, "2 x the floor");
    };
    let relays = format!("{} the floor", ratio(median(&relay), least));
    row(report, "command to relay, p50, 20 plugs", &relay, relays);
    // A state has to travel back.
    let (p50, way) = (median(&state), least + hop);
    let states = format!(
        "{} the floor, {} two hops and an exchange ({})",
        ratio(p50, least),
        ratio(p50, way),
        ms(way)
    );
    row(report, "command to state, p50, 20 plugs", &state, states);
    if lost > 0 {
        report.row("commands without a state", lost.to_string(), format!("of {}", options.commands), "0");
    }
    took
}

/// The same with plugs that take their time: nothing may be asked between a command and its state.
pub fn slow(options: &Options, plugs: &Plugs, report: &mut Report) {
    const DELAY: Duration = Duration::from_millis(30);
    let mut stage = Stage::set(options, plugs, PLUGS, INTERVAL);
    let mut floor = Floor::new(stage.broker.address, plugs.address(PLUGS));
    plugs.delay(DELAY);
    let (mut exchanges, mut state) = (Vec::new(), Vec::new());
    for round in 0..options.commands.min(100) {
        exchanges.push(floor.exchange());
        state.extend(stage.command(round % PLUGS).map(|took| took.state));
        std::thread::sleep(PAUSE);
    }
    plugs.delay(Duration::ZERO);
    let (state, exchange) = (median(&state), median(&exchanges));
    report.row(
        "command to state, p50, plugs that take 30 ms",
        ms(state),
        format!("{} one exchange of {}", ratio(state, exchange), ms(exchange)),
        "1.05 x",
    );
}

/// One command for each of 200 plugs in one write, several times.
pub fn burst(options: &Options, plugs: &Plugs, report: &mut Report) {
    const AT_ONCE: usize = 200;
    const TIMES: usize = 20;
    let mut stage = Stage::set(options, plugs, AT_ONCE, INTERVAL);
    let mut listener = Client::connect(stage.broker.address, "bench-listener");
    listener.subscribe("bench/burst");
    let messages: Vec<u8> = (0..AT_ONCE).flat_map(|_| publish("bench/burst", "ON")).collect();
    let (mut last, mut bare) = (Vec::new(), Vec::new());
    let mut lost = 0;
    for _ in 0..TIMES {
        let began = Instant::now();
        stage.client.send(&messages);
        for _ in 0..AT_ONCE {
            listener.next(began + Duration::from_secs(5)).expect("the broker passes messages on");
        }
        bare.push(began.elapsed());
        let on = !plugs.relay(0);
        let commands: Vec<u8> = (0..AT_ONCE)
            .flat_map(|plug| publish(&options.command_topic(plug), options.command(on)))
            .collect();
        let mut silent: HashSet<String> = (0..AT_ONCE).map(|plug| options.state_topic(plug)).collect();
        let began = Instant::now();
        stage.client.send(&commands);
        let mut ended = began;
        while !silent.is_empty()
            && let Some(message) = stage.client.next(began + Duration::from_secs(5))
        {
            if options.says(&message.payload, on) && silent.remove(&message.topic) {
                ended = message.at;
            }
        }
        lost += silent.len();
        last.push(ended - began);
        std::thread::sleep(Duration::from_millis(700));
        stage.quiet();
    }
    report.row(
        "200 commands at once: last state, p50",
        format!("{}, slowest {}", ms(median(&last)), ms(percentile(&last, 1.0))),
        format!("{} 200 bare hops of {}", ratio(median(&last), median(&bare)), ms(median(&bare))),
        "30 ms",
    );
    report.row("200 commands at once: lost", lost.to_string(), format!("of {}", AT_ONCE * TIMES), "0");
}
