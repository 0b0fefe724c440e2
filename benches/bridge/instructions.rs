//! Instructions of a poll and of a command, counted by callgrind: figures without noise, to compare two versions by.
//!
//! Three runs tell three unknowns apart: start and end, a poll, a command.

use std::process::Command;
use std::time::Duration;

use crate::options::Options;
use crate::plugs::Plugs;
use crate::report::Report;
use crate::stage::Stage;

const PLUGS: usize = 20;

pub fn count(options: &Options, plugs: &Plugs, report: &mut Report) {
    if options.bridge.is_some() || Command::new("valgrind").arg("--version").output().is_err() {
        report.row("instructions", "not counted", "it takes valgrind, and a binary of ours", "");
        return;
    }
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let run = |name: &str, window: Duration, commands: usize| {
        let out = options.keep.as_deref().unwrap_or(folder.path()).join(format!("callgrind.{name}"));
        let under = format!("valgrind -q --tool=callgrind --callgrind-out-file={}", out.display());
        let options = Options { under: Some(under), ..options.clone() };
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
