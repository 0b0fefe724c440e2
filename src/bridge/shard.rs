//! Shards: several bridges on one broker, each owning a share of the plugs.
//!
//! Who owns a plug is said by its MAC alone, by rendezvous hashing: each shard has a weight for each MAC, and the
//! heaviest is the owner. Nobody has to be asked, and a sixth shard takes a sixth from each of five and moves nothing
//! else. The values are fixed for ever by the tests: shards of different versions must agree.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::plug::mac::Mac;

/// More would only be a mistake.
const MOST: u32 = 10_000;

/// One of several bridges that share the plugs: `2/5` is the second of five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Shard {
    /// From 1.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

/// The text does not name a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the number of this shard and of all, from \"1/5\" to \"5/5\", or \"auto/5\"")]
pub struct NotAShard;

impl Shard {
    /// Whether a plug is this shard's. Of all shards with one `count` exactly one says so.
    pub fn owns(self, mac: Mac) -> bool {
        self.is_heaviest(mac.number())
    }

    /// The same for a plug of which nothing is known but what the configuration calls its host.
    pub fn speaks_for(self, host: &str) -> bool {
        self.is_heaviest(fnv1a(host.as_bytes()))
    }

    /// Of those that weigh the same the first counts. Whoever is not the heaviest is outweighed by one of the first few
    /// others, mostly, so that asking for a hundred shards costs little more than asking for one.
    fn is_heaviest(self, key: u64) -> bool {
        let own = weight(key, self.number);
        (1..=self.count).all(|number| match number < self.number {
            true => weight(key, number) < own,
            false => weight(key, number) <= own,
        })
    }

    /// Whether a shard can have this number.
    pub fn is_reasonable(number: u32) -> bool {
        (1..=MOST).contains(&number)
    }

    /// Its place in topics. Without the count: when shards are added, topics stay.
    pub fn name(self) -> String {
        format!("shard-{}", self.number)
    }

    /// The shard that a StatefulSet's pod is: its ordinal, at the end of its host name, counts from 0.
    ///
    /// # Errors
    /// The host name does not end in a number, or in one that is not below `count`.
    pub fn of_host(name: &str, count: &str) -> Result<Shard, String> {
        let digits = name.len() - name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
        let ordinal = name[name.len() - digits..].parse::<u32>();
        let shard =
            ordinal.ok().and_then(|ordinal| format!("{}/{count}", ordinal.checked_add(1)?).parse().ok());
        shard.ok_or_else(|| {
            format!("expected a host name that ends in a number below {count}, as a StatefulSet's pod has; this is {name:?}")
        })
    }
}

fn weight(key: u64, number: u32) -> u64 {
    mix(mix(key) ^ mix(u64::from(number)))
}

/// The output function of splitmix64 (Steele, Lea and Flood 2014): every bit of the input is in every bit of the output.
fn mix(key: u64) -> u64 {
    let key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

/// 64-bit FNV-1a: text to a key.
pub fn fnv1a(text: &[u8]) -> u64 {
    text.iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl FromStr for Shard {
    type Err = NotAShard;

    fn from_str(text: &str) -> Result<Shard, NotAShard> {
        let (number, count) = text.split_once('/').ok_or(NotAShard)?;
        let read = |digits: &str| digits.trim().parse::<u32>().map_err(|_| NotAShard);
        let shard = Shard { number: read(number)?, count: read(count)? };
        let fits = (1..=MOST).contains(&shard.count) && (1..=shard.count).contains(&shard.number);
        fits.then_some(shard).ok_or(NotAShard)
    }
}

impl TryFrom<String> for Shard {
    type Error = NotAShard;

    fn try_from(text: String) -> Result<Shard, NotAShard> {
        text.parse()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.number, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u64) -> Mac {
        format!("{:012x}", 0x50c7_bf00_0000 + number).parse().unwrap()
    }

    /// As it is defined: the heaviest shard, and the first of those that weigh the same.
    fn owner(key: u64, count: u32) -> u32 {
        (1..=count).max_by_key(|number| (weight(key, *number), u32::MAX - number)).unwrap()
    }

    /// What shards of every version agree on: these numbers never change.
    #[test]
    fn the_owners_of_these_plugs_are_fixed_for_ever() {
        // The published first value of splitmix64 with the seed 0, and FNV's own of "a" and "foobar".
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!((fnv1a(b"a"), fnv1a(b"foobar")), (0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8));
        let owners = |count| -> Vec<u32> {
            ["50c7bf010203", "50c7bf010204", "b09575aabbcc", "000000000000", "ffffffffffff", "1c61b4000001"]
                .iter()
                .map(|text| owner(text.parse::<Mac>().unwrap().number(), count))
                .collect()
        };
        assert_eq!(owners(1), [1; 6]);
        assert_eq!(owners(2), [1, 2, 1, 2, 1, 2]);
        assert_eq!(owners(5), [3, 2, 1, 5, 5, 2]);
        assert_eq!(owners(6), [3, 2, 6, 5, 5, 2]);
        assert_eq!(owners(100), [3, 47, 59, 53, 29, 55]);
    }

    #[test]
    fn every_plug_has_one_owner_and_shares_are_even() {
        for count in [1, 2, 3, 5, 8, 100] {
            let mut shares = vec![0u32; count as usize];
            for number in 0..20_000 {
                let owner = owner(mac(number).number(), count);
                shares[owner as usize - 1] += 1;
                if number < 500 {
                    let owns = |number_of: &u32| Shard { number: *number_of, count }.owns(mac(number));
                    assert_eq!((1..=count).filter(owns).collect::<Vec<_>>(), [owner]);
                }
            }
            let even = f64::from(20_000 / count);
            // Four standard deviations of a fair draw.
            let most = even + 4.0 * even.sqrt();
            let least = even - 4.0 * even.sqrt();
            assert!(
                shares.iter().all(|share| (least..=most).contains(&f64::from(*share))),
                "{count}: {shares:?}"
            );
        }
    }

    #[test]
    fn a_shard_more_takes_its_share_and_moves_nothing_else() {
        for count in [1, 2, 5, 9] {
            let mut moved = 0;
            for number in 0..20_000 {
                let (before, after) =
                    (owner(mac(number).number(), count), owner(mac(number).number(), count + 1));
                if before != after {
                    assert_eq!(after, count + 1, "it moves to the new one, or not at all");
                    moved += 1;
                }
            }
            let share = 20_000.0 / f64::from(count + 1);
            println!("from {count} to {} shards {moved} of 20000 move", count + 1);
            assert!((f64::from(moved) - share).abs() < 4.0 * share.sqrt(), "{moved} of {share}");
        }
    }

    #[test]
    fn shards_as_people_write_them() {
        for (text, shard) in [("2/5", Some((2, 5))), (" 1 / 1 ", Some((1, 1))), ("5/5", Some((5, 5)))] {
            assert_eq!(text.parse().ok(), shard.map(|(number, count)| Shard { number, count }), "{text}");
        }
        for text in ["", "2", "0/5", "6/5", "-1/5", "1/0", "a/b", "1/5/7", "1/99999", "auto/5"] {
            assert_eq!(text.parse::<Shard>(), Err(NotAShard), "{text}");
        }
        assert_eq!("3/8".parse::<Shard>().unwrap().to_string(), "3/8");
    }

    #[test]
    fn a_pods_ordinal_counts_from_zero() {
        assert_eq!(Shard::of_host("kasa2mqtt-0", "5"), Ok(Shard { number: 1, count: 5 }));
        assert_eq!(Shard::of_host("kasa2mqtt-4", "5"), Ok(Shard { number: 5, count: 5 }));
        assert_eq!(Shard::of_host("node12", "20"), Ok(Shard { number: 13, count: 20 }));
        for (name, count) in
            [("kasa2mqtt-5", "5"), ("kasa", "5"), ("", "5"), ("x-0", ""), ("x-4294967295", "5")]
        {
            assert!(Shard::of_host(name, count).unwrap_err().contains(name), "{name}");
        }
    }
}
