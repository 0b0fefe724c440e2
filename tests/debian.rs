//! The Debian package and the systemd unit: built, installed on a machine that vanishes, started, upgraded, purged.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::machine::{self, must};
use support::peers::cache;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// `deploy/debian/build`, as a person runs it, but with the program that is built already.
fn package() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", cache("cargo/bin").display(), std::env::var("PATH").unwrap());
    let mut build = Command::new(Path::new(ROOT).join("deploy/debian/build"));
    must(
        build
            .arg("--output")
            .arg(folder.path().join("kasa2mqtt.deb"))
            .env("PATH", path)
            .env("PROFILE", "dev"),
    );
    folder
}

#[test]
#[ignore = "needs systemd: tests/run"]
fn the_unit_is_hardened() {
    let unit = Path::new(ROOT).join("deploy/systemd/kasa2mqtt.service");
    let mut security = Command::new("systemd-analyze");
    let report = must(security.args(["security", "--offline=yes", "--no-pager"]).arg(unit));
    let line = report.lines().find(|line| line.contains("Overall exposure level")).unwrap();
    println!("{line}");
    let score = line.split("service:").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(score.parse::<f32>().unwrap() <= 1.2, "{line}");
}

/// Printed as `name: value`, so that each is checked by itself.
const SCRIPT: &str = r#"
cd /kasa-test
say() { echo "$1: $(shift; "$@" 2>&1 | tr '\n' ' ')"; }
config=/etc/kasa2mqtt/config.toml
# Once the service has started, its broker is there: systemd was told.
hear() { timeout 20 mosquitto_sub -h 127.0.0.1 -p 1883 -t kasa/bridge/state -C 1 "$@"; }

dropin=/etc/systemd/system/kasa2mqtt.service.d
mkdir -p $dropin

dpkg -i kasa2mqtt.deb
say verify systemd-analyze verify kasa2mqtt.service
say enabled systemctl is-enabled kasa2mqtt
say installed systemctl is-active kasa2mqtt
say answers hear
say type systemctl show -P Type kasa2mqtt
say healthy kasa2mqtt healthcheck --log warn -c $config
# The status is at most five seconds old.
for _ in $(seq 100); do
  status=$(systemctl show -P StatusText kasa2mqtt)
  case $status in *", connected to the broker") break ;; esac
  sleep 0.1
done
say status echo "$status"
say mode stat -c '%a %U' $config
say user ps -o user= -C kasa2mqtt
pid=$(systemctl show -P MainPID kasa2mqtt)
say capabilities grep -h CapEff /proc/$pid/status
say files ls /usr/share/man/man1/kasa2mqtt.1.gz /usr/share/man/man1/kasa2mqtt-scan.1.gz \
  /usr/share/bash-completion/completions/kasa2mqtt /usr/share/zsh/vendor-completions/_kasa2mqtt \
  /usr/share/fish/vendor_completions.d/kasa2mqtt.fish /usr/share/man/man1/kasa2mqtt-healthcheck.1.gz \
  /usr/share/doc/kasa2mqtt/prometheus/kasa2mqtt.rules.yml
say manual man -P cat kasa2mqtt

# A password from systemd's credentials, in a configuration of one's own.
cat >$config <<'CONFIG'
# mine
[broker]
listen = "0.0.0.0:1883"
username = "kasa"
password_file = "${CREDENTIALS_DIRECTORY}/mqtt"
state_dir = "/var/lib/kasa2mqtt"
CONFIG
(umask 077; echo secret >/etc/kasa2mqtt/mqtt)
printf '[Service]\nLoadCredential=mqtt:/etc/kasa2mqtt/mqtt\nRestartSec=100ms\n' >$dropin/credential.conf
printf '[Service]\nWatchdogSec=2\n' >$dropin/watchdog.conf
systemctl daemon-reload
systemctl restart kasa2mqtt
say without-password hear
say with-password hear -u kasa -P secret

# Hung: the watchdog starts it anew.
kill -STOP $(systemctl show -P MainPID kasa2mqtt)
for _ in $(seq 200); do [ "$(systemctl show -P NRestarts kasa2mqtt)" -ge 1 ] && break; sleep 0.1; done
# It counts before the new one has said that it is ready.
for _ in $(seq 200); do systemctl -q is-active kasa2mqtt && break; sleep 0.1; done
say restarts systemctl show -P NRestarts kasa2mqtt
say after-hanging hear -u kasa -P secret

# A newer package, whose configuration has changed.
dpkg-deb -R kasa2mqtt.deb newer
sed -i 's/^Version: .*/&+newer/' newer/DEBIAN/control
echo '# another line' >>newer/etc/kasa2mqtt/config.toml
dpkg-deb -Znone -b newer newer.deb
dpkg --force-confdef --force-confold -i newer.deb
say version dpkg-query -W -f '${Version}' kasa2mqtt
say kept head -1 $config
say upgraded systemctl is-active kasa2mqtt
say after-upgrade hear -u kasa -P secret
say journal journalctl -u kasa2mqtt --no-pager

dpkg -r kasa2mqtt
say removed systemctl is-active kasa2mqtt
say kept-when-removed head -1 $config
say state-before ls -d /var/lib/private/kasa2mqtt
rm /etc/kasa2mqtt/mqtt
dpkg -P kasa2mqtt
say purged ls -d /etc/kasa2mqtt /var/lib/kasa2mqtt /var/lib/private/kasa2mqtt /usr/bin/kasa2mqtt \
  /lib/systemd/system/kasa2mqtt.service
"#;

#[test]
#[ignore = "needs cargo-deb and systemd-nspawn: tests/run"]
fn the_package_installs_starts_keeps_its_configuration_and_purges() {
    let package = package();
    let size = fs::metadata(package.path().join("kasa2mqtt.deb")).unwrap().len();
    println!("the package has {size} bytes, with a program for tests");
    let told = machine::run(package.path(), SCRIPT);
    let said = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {told}")).trim().to_string()
    };
    let is = |name: &str, value: &str| assert_eq!(said(name), value, "{name} in {told}");
    is("verify", "");
    is("enabled", "enabled");
    is("installed", "active");
    is("answers", "online");
    is("type", "notify");
    is("healthy", "healthy, says mqtt://127.0.0.1:1883");
    is("status", "0 of 0 plugs online, connected to the broker");
    is("mode", "600 root");
    is("user", "kasa2mqtt");
    is("capabilities", "CapEff:\t0000000000000000");
    assert!(!said("files").contains("cannot access"), "{told}");
    assert!(said("manual").contains("without the cloud"), "{told}");
    assert!(said("without-password").contains("bad user name or password"), "{told}");
    is("with-password", "online");
    is("restarts", "1");
    assert!(said("journal").contains("watchdog"), "{told}");
    is("after-hanging", "online");
    assert!(said("version").ends_with("+newer"), "{told}");
    is("kept", "# mine");
    is("upgraded", "active");
    is("after-upgrade", "online");
    is("removed", "inactive");
    is("kept-when-removed", "# mine");
    is("state-before", "/var/lib/private/kasa2mqtt");
    let purged = said("purged");
    assert_eq!(purged.matches("No such file").count(), 5, "{purged}");
}
