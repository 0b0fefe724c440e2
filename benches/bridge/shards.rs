//! What a shard costs: the same plugs by one bridge, and by several that share them.

use std::time::{Duration, Instant};

use crate::bridge::Bridge;
use crate::broker::Broker;
use crate::mqtt::Client;
use crate::options::Options;
use crate::plugs::{Plugs, What};
use crate::process::{Memory, Usage};
use crate::report::{Report, us};
use crate::stage::wait_for_states;

const PLUGS: usize = 1000;
const INTERVAL: Duration = Duration::from_secs(10);

/// Far enough apart that no plug is busy with the command before.
const PACE: Duration = Duration::from_millis(5);

/// 1,000 plugs every 10 s, by one, two and four shards.
pub fn cost(options: &Options, plugs: &Plugs, report: &mut Report) {
    if options.bridge.is_some() {
        return report.row("shards", "not measured", "the bridge is not ours", "");
    }
    for shards in [1, 2, 4] {
        let broker = Broker::start(options.broker);
        let mut client = Client::connect(broker.address, "bench");
        client.subscribe(&options.state_filter());
        plugs.take();
        let start = |number: usize| {
            let shard = format!("{number}/{shards}");
            Bridge::start(options, broker.address, plugs, PLUGS, INTERVAL, Some(&shard))
        };
        let began = Instant::now();
        let bridges: Vec<Bridge> = (1..=shards).map(start).collect();
        wait_for_states(&mut client, options, PLUGS, Duration::from_secs(60));
        let started = began.elapsed();
        std::thread::sleep(INTERVAL + Duration::from_secs(2));
        let cpu = || bridges.iter().map(|bridge| Usage::of(bridge.process()).cpu).sum::<Duration>();

        let (before, polls) = (cpu(), plugs.polls());
        std::thread::sleep(options.window);
        let (at_rest, polls) = (cpu() - before, plugs.polls() - polls);
        plugs.take();

        let (before, began) = (cpu(), Instant::now());
        for round in 0..options.commands {
            let plug = round * 37 % PLUGS;
            client.publish(&options.command_topic(plug), options.command(!plugs.relay(plug)));
            std::thread::sleep(PACE);
        }
        std::thread::sleep(Duration::from_secs(1));
        // What is asked meanwhile is not the commands' doing.
        let polling = at_rest.mul_f64(began.elapsed().as_secs_f64() / options.window.as_secs_f64());
        let commands = (cpu() - before).saturating_sub(polling);
        let obeyed = plugs.take().iter().filter(|seen| matches!(seen.what, What::Switched(_))).count();

        let memory: Vec<Memory> = bridges.iter().map(|bridge| Memory::of(bridge.process())).collect();
        let now: f64 = memory.iter().map(|memory| memory.now).sum();
        let own: f64 = memory.iter().map(|memory| memory.own).sum();
        let by = format!("{PLUGS} plugs by {shards}");
        report.row(
            format!("resident memory, {by}"),
            format!("{now:.1} MB, {:.1} each", now / shards as f64),
            format!(
                "{own:.1} MB without the program's text, {:.1} each; all states after {:.1} s",
                own / shards as f64,
                started.as_secs_f64()
            ),
            "",
        );
        report.row(
            format!("CPU of a poll, {by}"),
            us(at_rest / u32::try_from(polls.max(1)).expect("few polls")),
            format!(
                "{:.2} % of a CPU together",
                100.0 * at_rest.as_secs_f64() / options.window.as_secs_f64()
            ),
            "",
        );
        report.row(
            format!("CPU of a command, {by}"),
            us(commands / u32::try_from(options.commands.max(1)).expect("few commands")),
            format!("{obeyed} of {} obeyed", options.commands),
            "",
        );
    }
}
