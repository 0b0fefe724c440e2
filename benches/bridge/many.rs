//! Thousands of plugs: punctuality, what a poll costs, commands under load, and the broker's return.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::idle::{memory_row, usage_of_polls};
use crate::latency;
use crate::mqtt::Client;
use crate::options::Options;
use crate::plugs::{Plugs, Seen, What};
use crate::report::{Report, ms, percentile, ratio, us};
use crate::stage::{Stage, Took};

const INTERVAL: Duration = Duration::from_secs(10);

/// 10,000 plugs every 10 s. `idle` are the commands of an idle bridge in the same run, if they were measured.
pub fn load(options: &Options, plugs: &Plugs, idle: Option<Vec<Took>>, report: &mut Report) {
    let idle = idle.unwrap_or_else(|| latency::idle(options, plugs, report));
    let hundred = {
        let stage = Stage::set(options, plugs, 100, INTERVAL);
        usage_of_polls(&stage, 2 * INTERVAL).0
    };
    let mut stage = Stage::set(options, plugs, options.many, INTERVAL);
    memory_row(&stage, "120 MB", report);
    // Two intervals at least, so that each plug shows one whole gap.
    let (poll, ..) = usage_of_polls(&stage, options.window.max(5 * INTERVAL / 2));
    report.row(
        format!("CPU per poll, {} plugs every 10 s", options.many),
        us(poll),
        format!("{} that of 100 plugs ({})", ratio(poll, hundred), us(hundred)),
        "1.2 x",
    );
    punctuality(&plugs.take(), options.many, report);
    let mut took = Vec::new();
    for round in 0..options.commands {
        // Far apart, so that no plug is busy with the command before.
        took.extend(stage.command(round * 37 % options.many));
        std::thread::sleep(Duration::from_millis(10));
    }
    let p99 = |took: &[Took]| percentile(&took.iter().map(|took| took.state).collect::<Vec<_>>(), 0.99);
    let (loaded, quiet) = (p99(&took), p99(&idle));
    report.row(
        format!("command to state, p99, {} plugs", options.many),
        format!("{}, {} of {} lost", ms(loaded), options.commands - took.len(), options.commands),
        format!("{} that of 20 plugs ({})", ratio(loaded, quiet), ms(quiet)),
        "5 x",
    );
}

fn punctuality(seen: &[Seen], count: usize, report: &mut Report) {
    let mut last: HashMap<usize, Instant> = HashMap::new();
    let (mut gaps, mut begun) = (Vec::new(), Vec::new());
    for Seen { plug, at, .. } in seen.iter().filter(|seen| seen.what == What::Polled) {
        gaps.extend(last.insert(*plug, *at).map(|before| *at - before));
        begun.push(*at);
    }
    let on_time = gaps.iter().filter(|gap| **gap <= INTERVAL.mul_f64(1.1)).count();
    let silent = count - last.len();
    report.row(
        "polls within 1.1 intervals",
        format!("{:.3} %", 100.0 * on_time as f64 / gaps.len().max(1) as f64),
        format!(
            "of {} gaps, slowest {}; {silent} plugs never polled",
            gaps.len(),
            ms(percentile(&gaps, 1.0))
        ),
        "99.9 %",
    );
    // Polls in each tenth of a second.
    let mut tenths: HashMap<u128, usize> = HashMap::new();
    let Some(first) = begun.first() else { return };
    for at in &begun {
        *tenths.entry(at.duration_since(*first).as_millis() / 100).or_default() += 1;
    }
    let even = count as f64 / INTERVAL.as_secs_f64() / 10.0;
    let most = tenths.values().max().copied().unwrap_or_default();
    report.row(
        "polls in the fullest tenth of a second",
        most.to_string(),
        format!("{:.2} x an even spread ({even:.0})", most as f64 / even),
        "evenly",
    );
}

/// The broker dies, forgets all and comes back.
pub fn reconnect(options: &Options, plugs: &Plugs, report: &mut Report) {
    let mut stage = Stage::set(options, plugs, options.many, INTERVAL);
    if !stage.broker.kill() {
        report.row("reconnect", "not measured", "the broker is not ours", "5 s");
        return;
    }
    std::thread::sleep(Duration::from_secs(3));
    stage.broker.restart();
    let back = Instant::now();
    let mut watcher = Client::connect(stage.broker.address, "bench-watcher");
    watcher.subscribe("#");
    let everything = options.retained * options.many;
    let mut heard: HashSet<String> = HashSet::new();
    let (mut first, mut last) = (None, back);
    // Commands go out meanwhile, one after the other, each to a plug that is far from the one before.
    let (mut waiting, mut round, mut took, mut sent) = (None, 0, Vec::new(), 0);
    let deadline = back + Duration::from_secs(60);
    while heard.len() < everything && Instant::now() < deadline {
        if first.is_some() && waiting.is_none() {
            let plug = round * 37 % options.many;
            let on = !plugs.relay(plug);
            watcher.publish(&options.command_topic(plug), options.command(on));
            waiting = Some((plug, on, Instant::now()));
            (round, sent) = (round + 1, sent + 1);
        }
        let Some(message) = watcher.next(Instant::now() + Duration::from_millis(200)) else { continue };
        first.get_or_insert(message.at);
        if let Some((plug, on, began)) = waiting
            && message.topic == options.state_topic(plug)
            && options.says(&message.payload, on)
        {
            took.push(message.at - began);
            waiting = None;
        }
        // Plugs have at least three levels or a retained state; answers to commands are not retained.
        if !message.topic.ends_with("/result") && heard.insert(message.topic) {
            last = message.at;
        }
    }
    let first = first.unwrap_or(last);
    report.row(
        format!("reconnect, {} plugs: all {everything} retained messages", options.many),
        format!("{:.2} s", (last - back).as_secs_f64()),
        format!("{:.2} s of it until the bridge was back", (first - back).as_secs_f64()),
        "5 s",
    );
    report.row(
        "commands meanwhile",
        format!("p50 {}, slowest {}", ms(percentile(&took, 0.5)), ms(percentile(&took, 1.0))),
        format!("{} of {sent} answered before the end", took.len()),
        "not starved",
    );
}
