//! What broken plugs cost the others.

use std::time::Duration;

use crate::options::Options;
use crate::plugs::Plugs;
use crate::process::Memory;
use crate::report::{Report, ms, percentile, ratio};
use crate::stage::Stage;

const PLUGS: usize = 50;
const HEALTHY: usize = 33;
const INTERVAL: Duration = Duration::from_secs(2);

/// 50 plugs; commands to 33 of them, while all are well and while the others are broken in six ways.
pub fn beside(options: &Options, plugs: &Plugs, report: &mut Report) {
    let mut stage = Stage::set(options, plugs, PLUGS, INTERVAL);
    let mut lost = 0;
    let mut measure = |stage: &mut Stage<'_>| {
        let mut state = Vec::new();
        for round in 0..options.commands {
            match stage.command(round % HEALTHY) {
                Some(took) => state.push(took.state),
                None => lost += 1,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        state
    };
    let well = measure(&mut stage);
    let memory = Memory::of(stage.bridge.process()).now;
    plugs.break_from(HEALTHY);
    // Long enough for all of them to be found broken.
    std::thread::sleep(Duration::from_secs(30));
    stage.quiet();
    let beside = measure(&mut stage);
    plugs.break_from(usize::MAX);
    let later = Memory::of(stage.bridge.process()).now;
    for (figure, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (well, beside) = (percentile(&well, share), percentile(&beside, share));
        report.row(
            format!("command to state, {figure}, 33 plugs beside 17 broken ones"),
            ms(beside),
            format!("{} without faults", ratio(beside, well)),
            "1 x",
        );
    }
    report.row("lost beside broken plugs", lost.to_string(), format!("of {}", 2 * options.commands), "0");
    report.row(
        "memory beside broken plugs",
        format!("{later:.2} MB"),
        format!("{memory:.2} MB before"),
        "flat",
    );
}
