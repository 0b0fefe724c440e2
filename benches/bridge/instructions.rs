//! Instructions of a poll and of a command, counted by callgrind: figures without noise, to compare two versions by.
//!
//! Three runs tell three unknowns apart: start and end, a poll, a command.

use std::process::Command;
use std::time::Duration;

use crate::bridge::BINARY;
use crate::options::Options;
use crate::plugs::Plugs;
use crate::report::Report;
use crate::stage::Stage;

const PLUGS: usize = 20;

pub fn count(options: &Options, plugs: &Plugs, report: &mut Report) {
    if Command::new("valgrind").arg("--version").output().is_err() {
        report.row("instructions", "not counted", "valgrind is missing", "");
        return;
    }
    let binary = std::env::var("KASA2MQTT_BENCH_PROFILED").unwrap_or(BINARY.into());
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let keep = std::env::var("KASA2MQTT_BENCH_CALLGRIND").ok();
    let run = |name: &str, window: Duration, commands: usize| {
        let out = match &keep {
            Some(folder) => std::path::Path::new(folder).join(format!("callgrind.{name}")),
            None => folder.path().join(name),
        };
        // The configuration is made by the line, because valgrind stands before the binary.
        let line = format!(
            "{{ printf '[mqtt]\\nurl = \"mqtt://%s\"\\n[poll]\\ninterval = \"%ss\"\\n' $BENCH_BROKER $BENCH_INTERVAL; \
             while read -r host name; do printf '[[plug]]\\nhost = \"%s\"\\nname = \"%s\"\\n' $host $name; done <$BENCH_PLUGS; \
             }} >$BENCH_PLUGS.toml; exec valgrind -q --tool=callgrind --callgrind-out-file={} {binary} run -c $BENCH_PLUGS.toml",
            out.display()
        );
        let options = Options { bridge: Some(line), ..options.clone() };
        let before = plugs.polls();
        let mut stage = Stage::set(&options, plugs, PLUGS, Duration::from_secs(1));
        for command in 0..commands {
            stage.command(command % PLUGS).expect("no command is lost");
        }
        std::thread::sleep(window);
        let polls = plugs.polls() - before;
        stage.bridge.terminate();
        let text = std::fs::read_to_string(out).expect("callgrind has written");
        let total =
            text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        let total: f64 =
            total.and_then(|total| total.trim().parse().ok()).expect("callgrind tells its total");
        (total, polls as f64)
    };
    let (short, short_polls) = run("short", Duration::from_secs(2), 0);
    let (long, long_polls) = run("long", Duration::from_secs(42), 0);
    let poll = (long - short) / (long_polls - short_polls);
    let commands = 1000;
    let (commanded, commanded_polls) = run("commanded", Duration::from_secs(2), commands);
    let command = (commanded - short - poll * (commanded_polls - short_polls)) / commands as f64;
    report.row(
        "instructions of a poll",
        format!("{poll:.0}"),
        format!("{:.0} polls", long_polls - short_polls),
        "",
    );
    report.row("instructions of a command", format!("{command:.0}"), format!("{commands} commands"), "");
}
