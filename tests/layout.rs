//! `src/layout.ld` goes by names as the compiler writes them, which a new compiler may write otherwise.

use std::ops::Range;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kasa2mqtt");

/// What one of the linker's companions, which are wherever programs are linked, says of the program.
fn told_by(tool: &str, option: &str) -> String {
    let output = Command::new(tool).args([option, PROGRAM]).output().unwrap();
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn hexadecimal(digits: &str) -> u64 {
    u64::from_str_radix(digits, 16).unwrap()
}

/// The addresses of a section, of a line such as `[17] .text.seldom PROGBITS 0000000000a1b2c0 0a1b2c0 0c3d4e 00 AX ...`.
fn section(name: &str) -> Range<u64> {
    let sections = told_by("readelf", "-SW");
    let line = sections.lines().find(|line| line.split_whitespace().any(|word| word == name));
    let line = line.unwrap_or_else(|| panic!("no section {name}: mold and gold take no src/layout.ld"));
    let words: Vec<&str> = line.split_whitespace().skip_while(|word| *word != name).collect();
    let begins = hexadecimal(words[2]);
    begins..begins + hexadecimal(words[4])
}

#[test]
fn what_a_bridge_seldom_runs_lies_together() {
    let seldom = section(".text.seldom");
    let symbols = told_by("nm", "-S");
    let functions = symbols.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, size, "t" | "T" | "w" | "W", name] = words[..] else { return None };
        Some((hexadecimal(address), hexadecimal(size), name))
    });
    let functions: Vec<_> = functions.collect();
    // Of each group of patterns, one or two.
    let mut parts = vec![
        "6rustls",
        "ring_core_",
        "5hyper",
        "9kasa2mqtt4plug4klap",
        "9kasa2mqtt3sim4plug",
        "11clap_mangen",
    ];
    if cfg!(feature = "embedded-broker") {
        parts.extend(["5mqtt5", "14regex_automata"]);
    }
    for part in parts {
        let of_part = functions.iter().filter(|(.., name)| name.contains(part));
        let (mut together, mut all) = (0, 0);
        for (address, size, _) in of_part {
            all += size;
            together += if seldom.contains(address) { *size } else { 0 };
        }
        assert!(all > 0, "no {part} in the program");
        assert!(together * 10 >= all * 9, "{part}: {together} of {all} bytes");
    }
    // And what runs at each poll does not.
    for part in ["4plug6cipher", "4plug8schedule", "6bridge8deadband"] {
        let (address, ..) = functions.iter().find(|(.., name)| name.contains(part)).unwrap();
        assert!(!seldom.contains(address), "{part}");
    }
}
