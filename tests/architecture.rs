//! The house's own rules, checked by reading the sources: imports only point down, pure rooms stay pure, and only one
//! room knows the client crate. There are no exceptions; a rule that no longer fits is changed for all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every module from the cellar to the roof: each may import only what stands above it in this list.
const FLOORS: &[&str] = &[
    "steps",
    "secret",
    "unique",
    // One plug.
    "plug::cipher",
    "plug::mac",
    "plug::protocol",
    "plug::command",
    "plug::error",
    "plug::json",
    "plug::reply",
    "plug::emeter",
    "plug::meter",
    "plug::zone",
    "plug::clock",
    "plug::klap::auth",
    "plug::klap::account",
    "plug::settings",
    "plug::timer",
    "plug::reading",
    "plug::sysinfo",
    "plug::known",
    "plug::raw",
    "plug::request",
    "plug::agenda",
    "plug::schedule",
    "plug::client",
    "plug::klap::keys",
    "plug::klap::parts",
    "plug::klap::http",
    "plug::klap::session",
    "plug::klap",
    "plug::room",
    "plug::scan::found",
    "plug::scan::probe",
    "plug::scan::answer",
    "plug::link",
    "plug::scan::target",
    "plug::scan::settings",
    "plug::scan::socket",
    // With its options and the inquiry that reads them.
    "plug::scan",
    "plug::owner",
    "plug::task",
    "plug",
    // The bridge's decisions.
    "bridge::birth",
    "bridge::names",
    "bridge::shard",
    "bridge::peers",
    "bridge::topics",
    "bridge::settings",
    "bridge::result",
    "bridge::command",
    "bridge::queue",
    "bridge::tally",
    "bridge::deadband",
    "bridge::state",
    "bridge::components",
    "bridge::event",
    "bridge::plug",
    "bridge::view",
    "bridge::discovery",
    "bridge::memory",
    "bridge::retirement",
    "bridge::search",
    "bridge::fleet",
    "bridge::overview",
    "bridge::request",
    "bridge::spacing",
    "bridge::retained",
    "bridge::message",
    "bridge::render",
    "bridge::core",
    "bridge",
    // The broker, ours or theirs.
    "mqtt::settings",
    "mqtt::tls",
    "mqtt::window",
    "mqtt::pulse",
    "mqtt::connection",
    "mqtt::failure",
    "mqtt::backoff",
    "mqtt::limit",
    "mqtt::event",
    "mqtt::session::live",
    "mqtt::session",
    "mqtt",
    "broker::settings",
    "broker",
    // The status page.
    "http::settings",
    "http::access",
    "http::history",
    "http::picture",
    "http::metrics",
    "http::process",
    "http::patience",
    "http::painter",
    // With what it asks of the core.
    "http",
    // The whole.
    "config",
    "descriptors",
    "app",
    "sim::discovery",
    "sim::json",
    "sim::clock",
    "sim::energy",
    "sim::model",
    "sim::template",
    "sim::behaviour",
    "sim::klap",
    "sim::plug",
    "sim::host",
    "sim::door",
    "sim::connection",
    "sim::http",
    "sim::server",
    "sim",
    "cli::log",
    "cli::output",
    "cli::check",
    "cli::completions",
    "cli::table",
    "cli::plug",
    "cli::conversation",
    "cli::forget",
    "cli::healthcheck",
    "cli::scan::table",
    "cli::scan",
    "cli::simulate",
    "cli::demo",
    "cli",
    "lib",
    "main",
];

/// Decisions: no tokio, nothing async, no clock.
const PURE: &[&str] = &[
    "bridge",
    "http::history",
    "http::metrics",
    "http::picture",
    "plug::agenda",
    "plug::cipher",
    "plug::clock",
    "plug::command",
    "plug::emeter",
    "plug::error",
    "plug::klap::auth",
    "plug::klap::keys",
    "plug::klap::parts",
    "plug::known",
    "plug::mac",
    "plug::meter",
    "plug::protocol",
    "plug::raw",
    "plug::reading",
    "plug::json",
    "plug::reply",
    "plug::request",
    "plug::scan::answer",
    "plug::scan::found",
    "plug::scan::probe",
    "plug::scan::target",
    "plug::schedule",
    "plug::sysinfo",
    "plug::timer",
    "plug::zone",
    "sim::clock",
    "sim::energy",
    "sim::json",
    "sim::klap",
    "sim::model",
    "sim::plug",
    "sim::template",
];

struct Source {
    module: String,
    /// Without comments and without tests.
    code: String,
    lines: usize,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 30, "the sources are not where this test looks: {} files", files.len());
    files.iter().map(|file| source(&root, file)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

fn source(root: &Path, file: &Path) -> Source {
    let module = file.strip_prefix(root).unwrap().with_extension("");
    let module = module.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join("::");
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    let code = text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    Source { module, code, lines: text.lines().count() }
}

/// The floor of a module or of an item in it: the longest entry that is a prefix of its path.
fn floor(path: &str) -> Option<usize> {
    let is_prefix =
        |entry: &str| path == entry || path.strip_prefix(entry).is_some_and(|rest| rest.starts_with("::"));
    FLOORS
        .iter()
        .enumerate()
        .filter(|(_, entry)| is_prefix(entry))
        .max_by_key(|(_, entry)| entry.len())
        .map(|(at, _)| at)
}

/// The paths below this crate that a source names, by `crate::`, `kasa2mqtt::` or `super::`.
fn imports(source: &Source) -> Vec<String> {
    let parent = source.module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let mut found = Vec::new();
    for (word, base) in [("crate::", ""), ("kasa2mqtt::", ""), ("super::", parent)] {
        for (at, _) in source.code.match_indices(word) {
            let before = source.code[..at].chars().next_back();
            if before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':') {
                continue;
            }
            let rest = &source.code[at + word.len()..];
            let path: String = rest
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || matches!(letter, '_' | ':'))
                .collect();
            let path = path.trim_end_matches(':').to_string();
            if path.is_empty() {
                // A group right after `super::` names the parent; right after `crate::` it would hide what it names.
                assert!(
                    !base.is_empty(),
                    "{}: a group right after {word} hides what is imported",
                    source.module
                );
                found.push(base.to_string());
                continue;
            }
            found.push(if base.is_empty() { path } else { format!("{base}::{path}") });
        }
    }
    found
}

#[test]
fn imports_only_point_down() {
    let sources = sources();
    let mut counted = 0;
    for source in &sources {
        let own = floor(&source.module).unwrap_or_else(|| panic!("{} has no place in FLOORS", source.module));
        for import in imports(source) {
            counted += 1;
            let other = floor(&import)
                .unwrap_or_else(|| panic!("{} imports {import}, which is nowhere", source.module));
            // An entry covers all submodules that have no entry of their own; among them everything goes.
            assert!(other <= own, "{} imports {import}, which stands above it", source.module);
        }
    }
    assert!(counted > 80, "only {counted} imports seen");
}

#[test]
fn pure_rooms_name_no_tokio_no_async_and_no_clock() {
    let mut seen = BTreeMap::new();
    for source in sources() {
        let is_in =
            |room: &&&str| source.module == ***room || source.module.starts_with(&format!("{room}::"));
        let Some(room) = PURE.iter().find(is_in) else { continue };
        *seen.entry(*room).or_insert(0) += 1;
        // Addresses are values; what opens sockets or asks a resolver is not.
        let sockets = ["TcpStream", "TcpListener", "UdpSocket", "ToSocketAddrs"];
        let others = ["tokio", "async ", ".await", "::now()", "std::fs", "fastrand"];
        for word in sockets.iter().chain(&others) {
            assert!(!source.code.contains(word), "{} is pure and names {word}", source.module);
        }
    }
    assert_eq!(seen.len(), PURE.len(), "some pure room was not found: {seen:?}");
}

#[test]
fn one_room_knows_the_client_crate_and_the_simulator_knows_only_the_cipher() {
    for source in sources() {
        if !source.module.starts_with("mqtt") {
            assert!(!source.code.contains("rumqttc"), "{} names rumqttc", source.module);
        }
        if source.module.starts_with("sim") {
            for import in imports(&source) {
                let witness = import.starts_with("sim") || import.starts_with("plug::cipher");
                assert!(
                    witness,
                    "{} imports {import}: the simulator is an independent witness",
                    source.module
                );
            }
        }
    }
}

/// A room is named after what is in it.
#[test]
fn no_room_is_for_everything() {
    for source in sources() {
        for name in ["utils", "helpers", "common", "types", "manager"] {
            assert!(!source.module.split("::").any(|part| part == name), "{}", source.module);
        }
    }
}

#[test]
fn files_are_small() {
    for source in sources() {
        assert!(
            source.lines <= 350,
            "{} has {} lines without its tests: split it by subject",
            source.module,
            source.lines
        );
    }
}

/// Code without what stands in quotes.
fn without_texts(code: &str) -> String {
    let mut letters = code.chars().peekable();
    let (mut rest, mut in_text) = (String::new(), false);
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if in_text => drop(letters.next()),
            // A quotation mark of its own, as in '"'.
            '\'' if !in_text && letters.peek() == Some(&'"') => drop(letters.next()),
            '"' => in_text = !in_text,
            letter if !in_text => rest.push(letter),
            _ => {}
        }
    }
    rest
}

/// How a plug is spoken to is decided in the link, and told to people by a name. Beside it only those know of KLAP who
/// look for plugs, who keep the account, and who simulate.
#[test]
fn nothing_above_the_link_asks_how_a_plug_is_spoken_to() {
    const WHO_KNOWS: &[&str] =
        &["plug::klap", "plug::link", "plug::protocol", "plug::scan", "sim", "cli::simulate"];
    let (mut known, mut others) = (0, 0);
    for source in sources() {
        // The account's place, and the list of rooms, are no question.
        let code = without_texts(&source.code).replace("klap::account::", "").replace("pub mod klap;", "");
        let words = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let klap = words.filter(|word| word.to_lowercase().contains("klap")).count();
        let xor = code.matches("Protocol::Xor").count();
        match WHO_KNOWS.iter().any(|room| floor_is_in(&source.module, room)) {
            true => known += klap,
            false => {
                others += 1;
                assert_eq!((klap, xor), (0, 0), "{} asks how a plug is spoken to", source.module);
            }
        }
    }
    assert!(known > 50 && others > 80, "{known} words seen where they belong, {others} other files");
}

fn floor_is_in(module: &str, room: &str) -> bool {
    module.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A password leaves its wrapping where it is used, and nowhere else.
#[test]
fn secrets_are_taken_out_only_where_they_are_used() {
    const USES: &[&str] = &["broker::users", "http::access", "mqtt::connection", "plug::klap::account"];
    let exposing = sources().into_iter().filter(|source| source.code.contains("expose_secret()"));
    let mut modules: Vec<String> = exposing.map(|source| source.module).collect();
    modules.sort();
    assert_eq!(modules, USES);
}

/// Nothing is handed to a shell, or to any other program.
#[test]
fn no_program_is_started() {
    for source in sources() {
        for word in ["std::process::Command", "process::Command", "tokio::process"] {
            assert!(!source.code.contains(word), "{} names {word}", source.module);
        }
        let imports = source.code.lines().filter(|line| line.contains("process::"));
        for line in imports.filter(|line| line.trim_start().starts_with("use ")) {
            assert!(!line.contains("Command"), "{}: {line}", source.module);
        }
    }
}

/// `deny.toml` says which licences may be linked, `cargo deny` whether it is so; people read it in SECURITY.md.
#[test]
fn licences_are_listed() {
    let read = |name: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let (deny, security) = (read("deny.toml"), read("SECURITY.md"));
    let lists = deny.split("allow = [").skip(1).map(|rest| rest.split(']').next().unwrap());
    let licences: Vec<&str> = lists.flat_map(|list| list.split('"').skip(1).step_by(2)).collect();
    assert!(licences.contains(&"MIT") && licences.len() > 5, "{licences:?}");
    for licence in licences {
        assert!(security.contains(licence), "SECURITY.md does not name {licence}");
    }
}
