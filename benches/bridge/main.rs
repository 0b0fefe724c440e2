//! `cargo bench --bench bridge [-- FIGURES OPTIONS]`: what the bridge costs, against the least that it could cost.
//! docs/performance.md shows the results and tells how they are to be read.

mod bridge;
mod broker;
mod faults;
mod floor;
mod idle;
mod instructions;
mod latency;
mod many;
mod mqtt;
mod options;
mod plugs;
mod process;
mod report;
mod shards;
mod stage;

use clap::Parser;

use options::{Figure, Options};
use plugs::Plugs;
use report::Report;

fn main() {
    // `cargo test --all-targets` runs this program too, without a word; it has nothing to test.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let options = Options::parse();
    kasa2mqtt::descriptors::raise();
    // As many as any figure needs, those of the floor included.
    let plugs = Plugs::start(options.many.max(1000), options.plug_port, !options.plain);
    let mut report = Report::default();
    let mut idle = None;
    for figure in options.figures() {
        let report = &mut report;
        match figure {
            Figure::Latency => idle = Some(latency::idle(&options, &plugs, report)),
            Figure::Slow => latency::slow(&options, &plugs, report),
            Figure::Burst => latency::burst(&options, &plugs, report),
            Figure::Faults => faults::beside(&options, &plugs, report),
            Figure::Cpu => idle::cpu(&options, &plugs, report),
            Figure::Wakeups => idle::wakeups(&options, &plugs, report),
            Figure::Memory => idle::memory_of_few(&options, &plugs, report),
            Figure::Start => idle::start(&options, &plugs, report),
            Figure::Many => many::load(&options, &plugs, idle.take(), report),
            Figure::Reconnect => many::reconnect(&options, &plugs, report),
            Figure::Shards => shards::cost(&options, &plugs, report),
            Figure::Instructions => instructions::count(&options, &plugs, report),
        }
    }
    println!("{report}");
}
