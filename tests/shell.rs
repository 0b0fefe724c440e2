//! Comfort at the shell: completions and manual pages that shells and `man` accept, JSON for scripts, tables that fit a
//! terminal, colours only for those who want them.

mod support;

use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use serde_json::{Value, json};
use support::bridge::Program;
use support::house::FREE;

const COMMANDS: [&str; 9] =
    ["run", "demo", "check", "completions", "forget", "healthcheck", "plug", "scan", "simulate"];

fn run(arguments: &[&str]) -> Output {
    Program::command().args(arguments).output().unwrap()
}

fn ok(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a program says of a script that is given to it.
fn judge(program: &str, arguments: &[&str], script: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: tests/run installs it"));
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program}: {text}");
    text
}

fn pages(folder: &Path) -> Vec<std::path::PathBuf> {
    ok(&["completions", "man", "--into", folder.to_str().unwrap()]);
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_shell_and_man_are_told_every_command() {
    for reader in ["bash", "elvish", "fish", "powershell", "zsh", "man"] {
        let text = ok(&["completions", reader]);
        for command in COMMANDS {
            assert!(text.contains(command), "{reader} is not told of {command}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(folder.path());
    for page in ["kasa2mqtt.1", "kasa2mqtt-scan.1", "kasa2mqtt-plug-brightness.1"] {
        assert!(pages.iter().any(|path| path.ends_with(page)), "no {page} among {pages:?}");
    }
    for (shell, file) in [("bash", "kasa2mqtt.bash"), ("zsh", "_kasa2mqtt"), ("fish", "kasa2mqtt.fish")] {
        ok(&["completions", shell, "--into", folder.path().to_str().unwrap()]);
        assert_eq!(fs::read_to_string(folder.path().join(file)).unwrap(), ok(&["completions", shell]));
    }
    assert_eq!(run(&["completions", "tcsh"]).status.code(), Some(2));
    assert_eq!(run(&["completions", "man", "--into", "/nowhere/at/all"]).status.code(), Some(1));
}

#[test]
#[ignore = "needs bash, zsh and fish: tests/run"]
fn shells_complete_what_is_begun() {
    let bash = ok(&["completions", "bash"]);
    judge("bash", &["-n"], &bash);
    let ask = "\nCOMP_WORDS=(kasa2mqtt plug h bri); COMP_CWORD=3\n_kasa2mqtt kasa2mqtt bri h; echo \"${COMPREPLY[@]}\"\n";
    assert_eq!(judge("bash", &["--norc"], &format!("{bash}{ask}")).trim(), "brightness");

    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    for shell in ["fish", "zsh"] {
        ok(&["completions", shell, "--into", folder.path().to_str().unwrap()]);
    }
    judge("fish", &["--no-execute", &file("kasa2mqtt.fish")], "");
    let ask = format!("source {}; complete -C 'kasa2mqtt sca'", file("kasa2mqtt.fish"));
    assert!(judge("fish", &["--no-config", "-c", &ask], "").starts_with("scan\t"));

    judge("zsh", &["-n", &file("_kasa2mqtt")], "");
    // It registers itself when its folder is searched.
    let ask = format!(
        "fpath=({} $fpath); autoload -Uz compinit && compinit -u -D; echo ${{_comps[kasa2mqtt]}}",
        folder.path().display()
    );
    assert_eq!(judge("zsh", &["-f", "-c", &ask], "").trim(), "_kasa2mqtt");
}

#[test]
#[ignore = "needs groff and mandoc: tests/run"]
fn manual_pages_are_well_formed() {
    let folder = tempfile::tempdir().unwrap();
    let pages = pages(folder.path());
    assert!(pages.len() > 15, "{pages:?}");
    for page in &pages {
        let page = page.to_str().unwrap();
        assert_eq!(judge("groff", &["-man", "-ww", "-z", page], ""), "", "{page}");
        assert_eq!(judge("mandoc", &["-T", "lint", "-W", "error", page], ""), "", "{page}");
    }
    let page = folder.path().join("kasa2mqtt.1");
    let shown = judge("mandoc", &["-T", "ascii", "-O", "width=80", page.to_str().unwrap()], "");
    assert!(shown.contains("without the cloud") && shown.contains("kasa2mqtt-scan(1)"), "{shown}");
}

#[test]
fn check_answers_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kasa.toml");
    let path = file.to_str().unwrap();
    let good = "[mqtt]\nurl = \"mqtt://broker.lan\"\nusername = \"me\"\npassword = \"hunter2\"\n\
        [http]\nlisten = \"0.0.0.0:8099\"\ntoken = \"hunter2 and her horse\"\nhosts = [\"plugs.example.org\"]\n\
        [[plug]]\nhost = \"192.0.2.1\"\nname = \"lamp\"\n";
    fs::write(&file, good).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let text = ok(&["check", "--json", "-c", path]);
    let said: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(said["ok"], true);
    assert_eq!(said["broker"]["urls"], json!(["mqtt://broker.lan:1883"]));
    assert_eq!(said["plugs"][0]["host"], "192.0.2.1:9999");
    assert_eq!(said["plugs"][0]["interval"], "5s");
    assert_eq!(said["search"]["enabled"], false);
    let page = json!({"listen": "0.0.0.0:8099", "control": "token", "hosts": ["plugs.example.org"]});
    assert_eq!(said["http"], page);
    assert!(!text.contains("hunter2"));
    let words = ok(&["check", "-c", path]);
    assert!(words.contains("http://0.0.0.0:8099, whoever knows the token may switch"), "{words}");
    assert!(!words.contains("hunter2"));

    assert!(said["warnings"][0].as_str().unwrap().contains("kasa.toml"), "{said}");
    assert!(ok(&["check", "-c", path]).contains("\nwarning     the configuration has a password in it"));
    // The bridge says it at its start.
    let mut bridge = Program::command();
    bridge.args(["run", "-c", path]).env("KASA2MQTT_MQTT__URL", "mqtt://127.0.0.1:1");
    bridge.stdout(Stdio::null()).env_remove("RUST_LOG");
    let mut bridge = bridge.spawn().unwrap();
    let mut lines = std::io::BufReader::new(bridge.stderr.take().unwrap()).lines();
    let warned =
        lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("everybody on this machine")));
    bridge.kill().unwrap();
    bridge.wait().unwrap();
    assert!(warned.unwrap().unwrap().contains("WARN"));

    fs::write(&file, "[poll]\ninterval = \"0s\"\ntimeout = \"2h\"\n").unwrap();
    let wrong = run(&["check", "--json", "-c", path]);
    assert_eq!(wrong.status.code(), Some(1));
    let said: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    assert_eq!((&said["ok"], said["problems"].as_array().unwrap().len()), (&json!(false), 2));
}

#[tokio::test]
async fn what_a_plug_prints_fits_80_columns_and_every_answer_has_a_json() {
    let model = Model::named("HS300").unwrap();
    // As long as the Kasa app lets an alias be.
    let strip = SimPlug::new(model, "An alias of thirty-one letters.", mac(0));
    let strip = Simulator::start(strip, FREE).await.unwrap();
    let host = strip.address().to_string();
    let told = |arguments: &[&str]| {
        let arguments = [&["plug", &host], arguments].concat().join(" ");
        tokio::task::spawn_blocking(move || ok(&arguments.split(' ').collect::<Vec<_>>()))
    };
    for what in ["state", "info", "energy", "on", "led off"] {
        let text = told(&[what]).await.unwrap();
        assert!(!text.is_empty() && text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let json = told(&[what, "--json"]).await.unwrap();
        assert!(serde_json::from_str::<Value>(&json).is_ok_and(|value| value.is_object()), "{json}");
    }
}

/// `script` gives the program a terminal.
#[test]
#[ignore = "needs script: tests/run"]
fn colours_are_for_terminals_only() {
    let run = |no_color: &str| {
        let program = env!("CARGO_BIN_EXE_kasa2mqtt");
        // A broker's address that nobody listens at: something is logged, and the program ends by itself.
        let command = format!("timeout -s INT 2 {program} run");
        let mut script = Command::new("script");
        script.args(["-q", "-e", "-c", &command, "/dev/null"]).env("NO_COLOR", no_color);
        script.env("KASA2MQTT_SCAN__ENABLED", "false").env("KASA2MQTT_MQTT__URL", "mqtt://127.0.0.1:1");
        let output = script.stdin(Stdio::null()).output().expect("script");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let (coloured, plain) = (run(""), run("1"));
    assert!(coloured.contains("is running") && coloured.contains("\x1b["), "{coloured}");
    assert!(plain.contains("is running") && !plain.contains("\x1b["), "{plain}");
    // The same into a pipe.
    let mut piped = Command::new("timeout");
    piped.args(["-s", "INT", "2", env!("CARGO_BIN_EXE_kasa2mqtt"), "run"]).env_remove("NO_COLOR");
    piped.env("KASA2MQTT_SCAN__ENABLED", "false").env("KASA2MQTT_MQTT__URL", "mqtt://127.0.0.1:1");
    let piped = String::from_utf8(piped.output().unwrap().stderr).unwrap();
    assert!(piped.contains("is running") && !piped.contains('\x1b'), "{piped}");
}
