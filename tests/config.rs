//! The configuration: the example, good files, a folder of bad ones, and the environment.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kasa2mqtt::config::{Config, load_with};

fn folder(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn load(path: &Path) -> Result<Config, String> {
    load_with(Some(path), std::iter::empty()).map_err(|error| error.to_string())
}

fn load_text(text: &str) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kasa.toml");
    fs::write(&path, text).unwrap();
    load(&path)
}

fn environment(variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables = variables.iter().map(|(key, value)| (key.to_string(), value.to_string()));
    load_with(None, variables).map_err(|error| error.to_string())
}

fn example() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml")).unwrap()
}

/// The example with every commented key put to use.
fn example_in_full() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|letter: char| letter.is_ascii_lowercase() || letter == '[') => {
            key.to_string()
        }
        _ => line.to_string(),
    };
    example().lines().map(uncomment).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_is_the_defaults() {
    let config = load_text(&example()).unwrap();
    assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
}

/// serde names all keys of a section when it meets one that it does not know.
#[test]
fn the_example_shows_every_key() {
    let full = example_in_full();
    let mut seen = 0;
    for section in [
        "mqtt",
        "broker",
        "http",
        "homeassistant",
        "publish",
        "commands",
        "poll",
        "clock",
        "kasa",
        "scan",
        "plug",
    ] {
        let header =
            if section == "plug" { "[[plug]]\nhost = \"192.0.2.1\"".into() } else { format!("[{section}]") };
        let error = load_text(&format!("{header}\nnonsense = 1\n")).unwrap_err();
        let (_, keys) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
        let shown: BTreeSet<&str> = full
            .lines()
            .skip_while(|line| line.trim_matches(['[', ']']) != section)
            .skip(1)
            .take_while(|line| !line.starts_with('['))
            .filter_map(|line| line.split_once(" = ").map(|(key, _)| key))
            .collect();
        for key in keys.trim().split(", ") {
            seen += 1;
            assert!(shown.contains(key), "config.example.toml does not show {section}.{key}");
        }
    }
    assert!(seen > 20, "{seen} keys");
}

#[test]
fn every_key_of_the_example_can_be_used() {
    // Some exclude each other, and say so; everything else in them is fine.
    let error = load_text(&example_in_full()).unwrap_err();
    let allowed = [
        "mqtt.password: expected either",
        "broker.password: expected either",
        "kasa.password: expected either",
        "plug[0].password: expected either",
        "mqtt.urls: expected either",
        "http.token: expected either",
    ];
    for line in error.lines() {
        assert!(allowed.iter().any(|allowed| line.contains(allowed)), "{line}");
    }
}

#[test]
fn good_files_are_taken() {
    let files = folder("good");
    assert!(files.len() >= 3, "{} files", files.len());
    for file in files {
        load(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}

#[test]
fn bad_files_are_refused_with_their_key() {
    let files = folder("bad");
    assert!(files.len() >= 25, "{} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# expect: "));
        let expected = expected.unwrap_or_else(|| panic!("{} does not say what to expect", file.display()));
        let error = load(&file).expect_err(&format!("{}", file.display()));
        assert!(error.contains(expected), "{}: expected {expected:?} in {error:?}", file.display());
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(name), "{error:?} does not name {name}");
        assert!(!error.contains("hunter2"), "a secret in {error:?}");
        assert!(!error.contains("default."), "{error:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let error = load(Path::new("/nowhere/kasa.toml")).unwrap_err();
    assert!(error.contains("/nowhere/kasa.toml"), "{error}");
}

#[test]
fn several_problems_are_told_at_once() {
    let error = load_text("[poll]\ninterval = \"1ms\"\n[commands]\nttl = \"1h\"\n").unwrap_err();
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn the_environment_reaches_every_key_and_wins() {
    let config = environment(&[
        ("KASA2MQTT_MQTT__URL", "mqtts://broker.lan"),
        ("KASA2MQTT_MQTT__USERNAME", "me"),
        ("KASA2MQTT_MQTT__PASSWORD", "0123"),
        ("KASA2MQTT_POLL__INTERVAL", "2s"),
        ("KASA2MQTT_HOMEASSISTANT__DISCOVERY", "false"),
        ("KASA2MQTT_PLUG", r#"[{host="192.0.2.1", name="lamp", interval="1s"}, {host="192.0.2.2"}]"#),
        ("KASA2MQTT_LOG", "debug"),
        ("KASA2MQTT_CONFIG", "x"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    assert_eq!(config.mqtt.url.as_ref().unwrap().to_string(), "mqtts://broker.lan:8883");
    let several = environment(&[("KASA2MQTT_MQTT__URLS", r#"["mqtts://a", "mqtt://b:1"]"#)]).unwrap();
    let brokers: Vec<String> = several.mqtt.brokers().iter().map(ToString::to_string).collect();
    assert_eq!(brokers, ["mqtts://a:8883", "mqtt://b:1"]);
    let shard = |value: &str, host: &str| {
        environment(&[("KASA2MQTT_MQTT__URL", "mqtt://a"), ("KASA2MQTT_SHARD", value), ("HOSTNAME", host)])
    };
    assert_eq!(shard("2/5", "x").unwrap().shard.unwrap().to_string(), "2/5");
    assert_eq!(shard("auto/5", "kasa2mqtt-0").unwrap().shard.unwrap().to_string(), "1/5");
    let error = shard("auto/5", "kasa2mqtt-5").unwrap_err();
    assert!(error.contains("shard: expected a host name") && error.contains("kasa2mqtt-5"), "{error}");
    assert!(shard("6/5", "x").unwrap_err().contains("KASA2MQTT_SHARD"));
    use secrecy::ExposeSecret;
    assert_eq!(config.mqtt.secret().unwrap().unwrap().expose_secret(), "0123", "not the number 123");
    assert_eq!(config.poll.interval, Duration::from_secs(2));
    assert!(!config.homeassistant.discovery);
    assert_eq!(config.plug.len(), 2);
    assert_eq!(config.plug[0].name.as_deref(), Some("lamp"));
}

#[test]
fn a_bad_variable_is_refused_by_its_name() {
    for (variable, value) in [
        ("KASA2MQTT_MQTT__URL", "http://x"),
        ("KASA2MQTT_MQTT_URL", "mqtt://x"),
        ("KASA2MQTT_POLL__INTERVAL", "5"),
        ("KASA2MQTT_HOMEASSISTANT__DISCOVERY", "perhaps"),
        ("KASA2MQTT_NONSENSE", "1"),
    ] {
        let error = environment(&[(variable, value)]).unwrap_err();
        assert!(error.contains(variable), "{error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let config = environment(&[
        ("KASA2MQTT_MQTT__URL", "mqtt://x"),
        ("KASA2MQTT_MQTT__USERNAME", "me"),
        ("KASA2MQTT_MQTT__PASSWORD", "hunter2"),
        ("KASA2MQTT_KASA__USERNAME", "me@hunter2"),
        ("KASA2MQTT_KASA__PASSWORD", "hunter2"),
        ("KASA2MQTT_PLUG", r#"[{host="192.0.2.1", username="them@hunter2", password="hunter2"}]"#),
    ])
    .unwrap();
    assert!(config.kasa.is_given() && config.plug[0].account().is_given());
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(!kasa2mqtt::cli::check::describe(&config).contains("hunter2"));
}

#[test]
fn secrets_that_everybody_can_read_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, text: &str, mode: u32| {
        fs::write(path(name), text).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    let told = |text: &str, mode: u32| {
        write("kasa.toml", text, mode);
        let config = load(&path("kasa.toml")).unwrap();
        kasa2mqtt::config::exposed(&config, Some(&path("kasa.toml")))
    };
    let shown = |name: &str| path(name).display().to_string();
    write("mqtt", "secret", 0o644);
    write("kasa", "secret", 0o600);
    write("theirs", "secret", 0o604);
    let files = format!(
        "[mqtt]\nurl = \"mqtt://b\"\nusername = \"me\"\npassword_file = \"{}\"\n\
         [kasa]\nusername = \"me\"\npassword_file = \"{}\"\n\
         [[plug]]\nhost = \"192.0.2.1\"\nusername = \"them\"\npassword_file = \"{}\"\n",
        shown("mqtt"),
        shown("kasa"),
        shown("theirs")
    );
    let lines = told(&files, 0o644);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("mqtt.password_file") && lines[0].contains(&shown("mqtt")), "{lines:?}");
    assert!(lines[1].contains("plug[0].password_file"), "{lines:?}");
    let inline = "[kasa]\nusername = \"me\"\npassword = \"hunter2\"\n";
    let lines = told(inline, 0o644);
    assert!(lines[0].contains("kasa.toml") && !lines[0].contains("hunter2"), "{lines:?}");
    assert_eq!(told(inline, 0o640), Vec::<String>::new());
    let theirs = "[[plug]]\nhost = \"192.0.2.1\"\nusername = \"them\"\npassword = \"x\"\n";
    assert_eq!(told(theirs, 0o644).len(), 1);
}
