//! A machine to install things on: this one, as it is now, started a second time by systemd in a container whose every
//! change goes to memory and whose network is its own loopback. Nothing of it stays.

use std::path::Path;
use std::process::{Command, Stdio};

use super::netns::as_root;

/// Builds the second machine and boots it; it runs the script and switches itself off. `$1` is the folder to share.
const BOOT: &str = r#"
set -eu
scratch=$(mktemp -d)
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/up" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/up,workdir=$scratch/work" "$scratch/root"
mkdir "$scratch/root/kasa-test"
cp -r "$1"/. "$scratch/root/kasa-test/"
# No index of manual pages after each step.
rm -f "$scratch/root/var/lib/man-db/auto-update"
# Some containers forbid packages to start what they install.
rm -f "$scratch/root/usr/sbin/policy-rc.d"
cat >"$scratch/root/etc/systemd/system/kasa-test.service" <<'UNIT'
[Unit]
Requires=basic.target
After=basic.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/bash /kasa-test/script
StandardOutput=file:/kasa-test/output
StandardError=inherit
TimeoutStartSec=240
UNIT
timeout -k 10 300 systemd-nspawn --quiet --directory="$scratch/root" --register=no --keep-unit --private-network \
  --boot systemd.unit=kasa-test.service </dev/null >"$scratch/console" 2>&1 || true
cat "$scratch/up/kasa-test/output" 2>/dev/null || cat "$scratch/console"
umount "$scratch/root"
umount "$scratch"
rmdir "$scratch"
"#;

/// Runs `script` on the second machine, where `/kasa-test` has what is in `folder`, and gives what it printed.
pub fn run(folder: &Path, script: &str) -> String {
    std::fs::write(folder.join("script"), script).unwrap();
    let mut boot = as_root("unshare");
    boot.args(["--mount", "bash", "-c", BOOT, "boot"]).arg(folder).stdin(Stdio::null());
    let output = boot.output().expect("unshare");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program that must succeed.
pub fn must(command: &mut Command) -> String {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: tests/run installs it"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}
