//! The image of `deploy/docker/Dockerfile`: a static program, put into `FROM scratch` by buildah, run without root where
//! nothing can be written. The build stage needs Alpine's packages; its place is taken by this machine's musl.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kasa2mqtt::cli::simulate::mac;
use kasa2mqtt::sim::model::Model;
use kasa2mqtt::sim::plug::SimPlug;
use kasa2mqtt::sim::server::Simulator;
use support::house::FREE;
use support::machine::must;
use support::mosquitto::Mosquitto;
use support::netns::as_root;
use support::watcher::Watcher;
use support::{port, soon};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The static program, which `tests/run` builds beside the one that other tests use.
fn program() -> PathBuf {
    let debug = Path::new(env!("CARGO_BIN_EXE_kasa2mqtt")).parent().unwrap();
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    debug.parent().unwrap().join(target).join("debug/kasa2mqtt")
}

/// Mounts `$1`, the image's files, read-only, and runs the program in them as the image's user.
const RUN: &str = r#"
set -eu
mount --bind "$1" "$1"
mount -o remount,ro,bind "$1"
exec chroot --userspec=65532:65532 --groups= "$1" /kasa2mqtt run
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs buildah and the musl target: tests/run"]
async fn the_image_runs_without_root_and_without_a_place_to_write() {
    let stage = tempfile::tempdir().unwrap();
    let image = stage.path().join("image");
    fs::create_dir_all(image.join("data")).unwrap();
    fs::copy(program(), image.join("kasa2mqtt")).expect("tests/run builds it");
    fs::copy("/etc/ssl/certs/ca-certificates.crt", image.join("ca-certificates.crt")).unwrap();
    let kind = must(Command::new("file").arg("-b").arg(image.join("kasa2mqtt")));
    assert!(kind.contains("static"), "{kind}");

    // The Dockerfile as it is, with a folder in the place of its first stage; the storage is a folder, too.
    let storage = tempfile::tempdir().unwrap();
    let buildah = || {
        let mut command = as_root("buildah");
        command
            .arg("--root")
            .arg(storage.path().join("root"))
            .arg("--runroot")
            .arg(storage.path().join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let mut build = buildah();
    build.args([
        "bud",
        "--isolation",
        "chroot",
        "--format",
        "docker",
        "-t",
        "kasa2mqtt-test",
        "--build-context",
    ]);
    build.arg(format!("build={}", stage.path().display()));
    must(build.args(["-f", "deploy/docker/Dockerfile", "."]).current_dir(ROOT));
    let inspected = must(buildah().args(["inspect", "--type", "image", "kasa2mqtt-test"]));
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    let config = &inspected["Docker"]["config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD", "/kasa2mqtt", "healthcheck"]));

    let container = must(buildah().args(["from", "--pull-never", "kasa2mqtt-test"])).trim().to_string();
    let files = must(buildah().args(["mount", &container])).trim().to_string();
    let mosquitto = Mosquitto::start().await;
    let plug = SimPlug::new(Model::named("HS110-G1").unwrap(), "Plug 0", mac(0));
    let plug = Simulator::start(plug, FREE).await.unwrap();
    let mut program = as_root("unshare")
        .args(["--mount", "sh", "-c", RUN, "run", &files])
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("KASA2MQTT_SCAN__ENABLED", "false")
        .env("KASA2MQTT_MQTT__URL", format!("mqtt://{}", mosquitto.address()))
        .env("KASA2MQTT_PLUG", format!("[{{host=\"{}\"}}]", plug.address()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let watcher = Watcher::connect(mosquitto.address()).await;
    watcher.subscribe("kasa/#").await;
    watcher.hear("kasa/plug-0", |payload| payload.contains(r#""state":"OFF""#)).await;
    watcher.publish("kasa/plug-0/set", "ON", false).await;
    watcher.hear("kasa/plug-0/result", |payload| payload.contains(r#""ok":true"#)).await;
    // The image's own check, by what the broker holds: it has no page.
    let check = |broker: String| {
        let mut check = as_root("chroot");
        check.args([
            "--userspec=65532:65532",
            "--groups=",
            &files,
            "/kasa2mqtt",
            "healthcheck",
            "--timeout",
            "3s",
        ]);
        check.env_clear().env("PATH", std::env::var("PATH").unwrap());
        check.env("KASA2MQTT_MQTT__URL", broker).output().unwrap()
    };
    let healthy = check(format!("mqtt://{}", mosquitto.address()));
    assert!(healthy.status.success(), "{}", String::from_utf8_lossy(&healthy.stderr));
    assert_eq!(check(format!("mqtt://{}", port::unused())).status.code(), Some(1));
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_string();
    assert_eq!(line("Uid:"), "65532\t65532\t65532\t65532");
    assert_eq!(line("CapEff:"), "0000000000000000");
    must(as_root("kill").args(["-TERM", &program.id().to_string()]));
    watcher.hear("kasa/bridge/state", |payload| payload == "offline").await;
    let ended = soon("its end", tokio::task::spawn_blocking(move || program.wait().unwrap())).await.unwrap();
    assert!(ended.success());
    let size = fs::metadata(Path::new(&files).join("kasa2mqtt")).unwrap().len();
    println!("the program in the image has {size} bytes");
    must(buildah().args(["umount", &container]));
    must(buildah().args(["rm", &container]));
}
