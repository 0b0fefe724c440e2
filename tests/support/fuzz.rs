//! Feeding a reader with random bytes, and with good input that was damaged at random.
//!
//! `KASA2MQTT_TEST_FUZZ_INPUTS` is how many inputs each reader gets; a few thousand by default.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

pub fn inputs() -> u32 {
    let inputs = std::env::var("KASA2MQTT_TEST_FUZZ_INPUTS").ok();
    inputs.map_or(3000, |inputs| inputs.parse().expect("KASA2MQTT_TEST_FUZZ_INPUTS is a number"))
}

/// One change of an input.
#[derive(Debug, Clone)]
enum Damage {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, u8),
    /// A piece of it once more, somewhere else.
    Repeat(prop::sample::Index, prop::sample::Index, u8),
}

/// What breaks readers of JSON and of numbers.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "0",
    "1e308",
    "1e999",
    "NaN",
    "18446744073709551616",
    "-32407",
    "0.1",
    "{\"a\":",
    "[[[[[[[[",
    "\\u0000",
    "\\ud800",
    "\u{202e}",
    "+/#",
    "..",
    "99999999999999999999",
    ":",
    ",",
    "\"",
];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    let token = prop::sample::select(TOKENS).prop_map(|token| token.as_bytes().to_vec());
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (at(), prop_oneof![token, prop::collection::vec(any::<u8>(), 1..4)])
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), 1..20u8).prop_map(|(at, count)| Damage::Remove(at, count)),
        (at(), at(), 1..60u8).prop_map(|(from, to, count)| Damage::Repeat(from, to, count)),
    ]
}

fn damaged(mut input: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let length = input.len() + 1;
        match damage {
            Damage::Replace(at, byte) => {
                let at = at.index(length);
                if let Some(place) = input.get_mut(at) {
                    *place = *byte;
                }
            }
            Damage::Insert(at, bytes) => {
                let at = at.index(length);
                input.splice(at..at, bytes.iter().copied());
            }
            Damage::Remove(at, count) => {
                let at = at.index(length);
                input.drain(at..(at + usize::from(*count)).min(length - 1).max(at).min(input.len()));
            }
            Damage::Repeat(from, to, count) => {
                let (from, to) = (from.index(length), to.index(length));
                let piece: Vec<u8> = input.iter().copied().skip(from).take((*count).into()).collect();
                input.splice(to..to, piece);
            }
        }
    }
    input
}

/// Feeds a reader with `seeds`, damaged or not, and with noise.
pub fn feed(seeds: Vec<Vec<u8>>, read: impl Fn(&[u8])) {
    feed_some(inputs(), seeds, read);
}

/// The same with so many inputs.
pub fn feed_some(cases: u32, seeds: Vec<Vec<u8>>, read: impl Fn(&[u8])) {
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let broken = (prop::sample::select(seeds), prop::collection::vec(damage(), 0..6))
        .prop_map(|(seed, damages)| damaged(seed, &damages));
    let input = prop_oneof![9 => broken, 1 => noise];
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&input, |input| {
            read(&input);
            Ok(())
        })
        .unwrap();
}

pub fn seeds(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// What a plug can be told by `set/<attribute>`, and something else.
pub const ATTRIBUTES: [&str; 10] =
    ["state", "brightness", "transition", "on_time", "led", "pir", "alias", "identify", "reboot", "nonsense"];

/// What once was, or might be, a trouble: a file each in `tests/corpus`, small, and of our own making.
pub fn corpus() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let files = std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    let corpus: Vec<Vec<u8>> = files.collect();
    assert!(corpus.len() > 20 && corpus.iter().all(|input| input.len() <= 4096), "small, but not empty");
    corpus
}
