//! The files of `deploy/`, read as those who use them do: YAML, Dockerfiles, and the options of the Home Assistant app
//! against the program's own configuration.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The instructions of a Dockerfile, continuation lines joined.
fn instructions(path: &str) -> Vec<(String, String)> {
    let text = read(path).replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            (word.to_string(), rest.trim().to_string())
        })
        .collect()
}

/// The program has this command.
fn understood(command: &Value) {
    let words = command.as_array().unwrap().iter().map(|word| word.as_str().unwrap().into());
    kasa2mqtt::cli::parse(words).unwrap_or_else(|error| panic!("{command}: {error}"));
}

#[test]
fn the_image_is_static_and_not_root() {
    let all = instructions("deploy/docker/Dockerfile");
    let last = all.iter().rposition(|(word, _)| word == "FROM").unwrap();
    let (build, image) = all.split_at(last);
    let of = |word: &str| image.iter().find(|(other, _)| other == word).map(|(_, rest)| rest.as_str());
    assert_eq!(of("FROM"), Some("scratch"));
    let user = of("USER").unwrap();
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {user}");
    assert_eq!(of("ENTRYPOINT"), Some(r#"["/kasa2mqtt"]"#));
    let health = of("HEALTHCHECK").unwrap();
    assert!(health.ends_with(r#"CMD ["/kasa2mqtt", "healthcheck"]"#), "there is no shell: {health}");
    assert!(health.contains("--timeout=10s"), "the check itself gives up after eight: {health}");
    understood(&json!(["/kasa2mqtt", "healthcheck"]));
    assert!(of("RUN").is_none(), "nothing can run in scratch");
    // What is copied from here is here, and not ignored.
    let ignored = read(".dockerignore");
    for (_, copied) in build.iter().filter(|(word, _)| word == "COPY") {
        let words: Vec<&str> = copied.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "COPY {source}");
            assert!(!ignored.lines().any(|line| line == *source), "{source} is ignored");
        }
    }
    // All that cargo asks for is copied: every path of Cargo.toml lies in one of these.
    for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "src", "benches"] {
        assert!(build.iter().any(|(word, rest)| word == "COPY" && rest.contains(needed)), "{needed}");
    }
    // Rust as old as Cargo.toml allows, or newer.
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert!(build[0].1.contains(&format!("rust:{version}-")), "{}", build[0].1);
}

#[test]
fn compose_names_files_that_exist_and_gives_the_bridge_nothing_more() {
    let compose = yaml("deploy/docker/compose.yaml");
    let bridge = &compose["services"]["kasa2mqtt"];
    assert_eq!((&bridge["read_only"], &bridge["cap_drop"]), (&json!(true), &json!(["ALL"])));
    let folder = root().join("deploy/docker");
    let dockerfile = folder.join(bridge["build"]["context"].as_str().unwrap());
    assert!(dockerfile.join(bridge["build"]["dockerfile"].as_str().unwrap()).exists());
    for volume in compose["services"]["mosquitto"]["volumes"].as_array().unwrap() {
        let source = volume.as_str().unwrap().split(':').next().unwrap();
        // Those that a person makes are told of at the top.
        assert!(folder.join(source).exists() || source.starts_with("./secrets/"), "{source}");
    }
    // The bridge understands what it is given.
    let environment = bridge["environment"].as_object().unwrap();
    let variables = environment.iter().map(|(key, value)| (key.clone(), value.as_str().unwrap().to_string()));
    let config = kasa2mqtt::config::load_with(None, variables).unwrap();
    assert_eq!(config.mqtt.username.as_deref(), Some("kasa2mqtt"));
    let acl = read("deploy/mosquitto/acl");
    assert!(acl.contains("user kasa2mqtt\n"), "the account is the one that the ACL knows");
    // mosquitto's configuration names the files where compose puts them.
    let volumes = compose["services"]["mosquitto"]["volumes"].to_string();
    for line in read("deploy/mosquitto/kasa.conf").lines().filter(|line| line.contains("_file ")) {
        assert!(volumes.contains(line.split(' ').nth(1).unwrap()), "{line}");
    }
}

#[test]
fn the_stateful_set_is_hardened_and_its_shards_are_as_many_as_its_pods() {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&read("deploy/kubernetes/kasa2mqtt.yaml")).unwrap();
    let kinds: BTreeMap<&str, &Value> =
        documents.iter().map(|document| (document["kind"].as_str().unwrap(), document)).collect();
    let set = &kinds["StatefulSet"]["spec"];
    assert_eq!(set["serviceName"], kinds["Service"]["metadata"]["name"]);
    assert_eq!(set["selector"]["matchLabels"], set["template"]["metadata"]["labels"]);
    let pod = &set["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let [container] = &pod["containers"].as_array().unwrap()[..] else { panic!("one container") };
    let security = &container["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    // Those that kill ask only whether it lives. No probe is cut off before the check itself gives up.
    let check = json!(["/kasa2mqtt", "healthcheck"]);
    let alive = json!(["/kasa2mqtt", "healthcheck", "--alive"]);
    for (probe, command) in [("startupProbe", &alive), ("readinessProbe", &check), ("livenessProbe", &alive)]
    {
        assert_eq!(container[probe]["exec"]["command"], *command, "{probe}");
        assert!(container[probe]["timeoutSeconds"].as_u64() > Some(8), "{probe}");
        understood(command);
    }
    let variable = |name: &str| {
        let all = container["env"].as_array().unwrap();
        all.iter().find(|variable| variable["name"] == name).unwrap()["value"].as_str().unwrap()
    };
    // The pod's ordinal stands at the end of its name.
    let replicas = set["replicas"].as_u64().unwrap();
    assert_eq!(variable("KASA2MQTT_SHARD"), format!("auto/{replicas}"));
    // Every volume is mounted, and every mount is a volume.
    let names = |list: &Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|one| one["name"].clone()).collect()
    };
    assert_eq!(names(&container["volumeMounts"]), names(&pod["volumes"]));
    // The configuration is one.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, kinds["ConfigMap"]["data"]["config.toml"].as_str().unwrap()).unwrap();
    // The probes read the same one: by a variable, for they do not see the container's arguments.
    let mounts = &container["volumeMounts"].as_array().unwrap()[0]["mountPath"];
    assert_eq!(variable("KASA2MQTT_CONFIG"), format!("{}/config.toml", mounts.as_str().unwrap()));
    // Kubernetes names the pods, and tells them.
    for pod in 0..replicas {
        let name = format!("{}-{pod}", kinds["StatefulSet"]["metadata"]["name"].as_str().unwrap());
        let variables = [("KASA2MQTT_SHARD", variable("KASA2MQTT_SHARD").to_string()), ("HOSTNAME", name)];
        let variables = variables.into_iter().map(|(key, value)| (key.to_string(), value));
        let config = kasa2mqtt::config::load_with(Some(&file), variables).unwrap();
        assert_eq!(config.scan.targets.len(), 1);
        assert!(config.http.listen.is_some(), "the probes ask there");
        assert_eq!(config.shard.unwrap().to_string(), format!("{}/{replicas}", pod + 1));
    }
}

/// A value that fits one entry of an app's schema (homeassistant.md 7).
fn sample(kind: &Value) -> Value {
    match kind {
        Value::Object(fields) => fields.iter().map(|(key, kind)| (key.clone(), sample(kind))).collect(),
        Value::Array(kinds) => kinds.iter().map(sample).collect(),
        Value::String(kind) => match kind.trim_end_matches('?').split('(').next().unwrap() {
            "bool" => json!(true),
            "email" => json!("me@example.org"),
            "password" => json!("0123"),
            "list" => kind.split(['(', '|', ')']).nth(1).unwrap().into(),
            "match" if kind.contains("mqtt") => json!("mqtt://broker.lan"),
            "match" if kind.contains("A-F") => json!("50:C7:BF:01:02:03"),
            "match" => json!("freezer"),
            "str" => json!("5s"),
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_apps_options_are_keys_of_the_configuration() {
    let app = yaml("deploy/homeassistant/kasa2mqtt/config.yaml");
    for key in ["name", "version", "slug", "description", "arch"] {
        assert!(!app[key].is_null(), "{key}");
    }
    assert_eq!(app["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(app["services"], json!(["mqtt:need"]));
    assert_eq!(
        (&app["host_network"], &app["ingress"], &app["init"]),
        (&json!(true), &json!(true), &json!(false))
    );
    // The page is where the Supervisor looks for it, on the Supervisor's network, and answers nobody else.
    let environment = &app["environment"];
    let listen = environment["KASA2MQTT_HTTP__LISTEN"].as_str().unwrap();
    assert_eq!(listen, format!("172.30.32.1:{}", app["ingress_port"]));
    let variables = environment.as_object().unwrap().iter();
    let variables = variables.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_string()));
    let variables = variables.chain([("KASA2MQTT_MQTT__URL".into(), "mqtt://broker.lan".into())]);
    let config = kasa2mqtt::config::load_from(None, None, variables).unwrap();
    assert_eq!(config.http.listen, listen.parse().ok());
    assert!(config.http.ingress && config.http.token.is_none());
    let options = sample(&app["schema"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("options.json");
    for options in [&options, &app["options"]] {
        let mut options = options.clone();
        // Nobody asks a Supervisor here.
        options["mqtt"]["url"] = json!("mqtt://broker.lan");
        fs::write(&file, options.to_string()).unwrap();
        let supervisor = kasa2mqtt::config::supervisor::Supervisor::new(
            file.clone(),
            "127.0.0.1:1".into(),
            "token".into(),
        );
        let learnt = supervisor.ask().await.unwrap();
        kasa2mqtt::config::load_from(None, Some(learnt), std::iter::empty()).unwrap();
    }
    // Each section of the form is explained in it.
    let explained = yaml("deploy/homeassistant/kasa2mqtt/translations/en.yaml");
    for section in app["schema"].as_object().unwrap().keys() {
        assert!(explained["configuration"][section]["description"].is_string(), "{section}");
    }
    assert!(yaml("repository.yaml")["name"].is_string());
    let image = instructions("deploy/homeassistant/kasa2mqtt/Dockerfile");
    // Its watchdog restarts what is not healthy.
    let health = &image.iter().find(|(word, _)| word == "HEALTHCHECK").unwrap().1;
    assert!(health.ends_with(r#"CMD ["/kasa2mqtt", "healthcheck", "--alive"]"#), "{health}");
    understood(&json!(["/kasa2mqtt", "healthcheck", "--alive"]));
    let labels = &image.iter().find(|(word, _)| word == "LABEL").unwrap().1;
    for label in ["io.hass.version", "io.hass.type=\"app\"", "io.hass.arch"] {
        assert!(labels.contains(label), "{label}");
    }
}

/// The Supervisor reads every `config.yaml` of a repository as an app.
#[test]
fn no_other_file_is_taken_for_an_app() {
    fn collect(folder: PathBuf, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !matches!(name, "target" | ".git" | ".cache") {
                collect(path, found);
            } else if matches!(name, "config.yaml" | "config.json" | "config.yml") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    collect(root().into(), &mut found);
    assert_eq!(found, [root().join("deploy/homeassistant/kasa2mqtt/config.yaml")]);
}

/// Whoever copies a configuration from a page has one that is understood.
#[test]
fn configurations_on_pages_are_some() {
    let folder = root().join("docs/migration");
    let mut pages: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    for page in ["README.md", "docs/design.md", "docs/scale.md", "deploy/mosquitto/README.md"] {
        pages.push(root().join(page));
    }
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("kasa.toml");
    let mut read = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            fs::write(&file, block).unwrap();
            kasa2mqtt::config::load_with(Some(&file), std::iter::empty())
                .unwrap_or_else(|error| panic!("{}: {error}\n{block}", page.display()));
            read += 1;
        }
    }
    assert!(read >= 6, "{read} configurations");
}

/// The pages on migration name topics of ours, and links go somewhere.
#[test]
fn what_pages_name_exists() {
    let topics = kasa2mqtt::bridge::topics::Topics::new("kasa", "homeassistant");
    let folder = root().join("docs/migration");
    let mut pages: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(pages.len(), 5);
    let others = [
        "README.md",
        "SECURITY.md",
        "deploy/README.md",
        "deploy/mosquitto/README.md",
        "deploy/prometheus/README.md",
    ];
    pages.extend(others.map(|page| root().join(page)));
    let (mut links, mut named) = (0, 0);
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.starts_with("https://") {
                links += 1;
                assert!(page.parent().unwrap().join(path).exists(), "{}: {link}", page.display());
            }
        }
        if !page.starts_with(root().join("docs/migration")) {
            continue;
        }
        for topic in text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("kasa/")) {
            let topic =
                topic.split(':').next().unwrap().replace("<name>", "lamp").replace("<strip>", "strip");
            let is_ours = topics.parse(&topic).is_some()
                || topics.own(&topic).is_some()
                || topic == topics.bridge_state()
                || topic.ends_with("/result");
            assert!(is_ours, "{}: {topic}", page.display());
            named += 1;
        }
    }
    assert!(links > 15 && named > 20, "{links} links, {named} topics");
}
