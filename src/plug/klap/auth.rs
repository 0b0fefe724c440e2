//! What both sides know of an account, and how each proves to the other that it does.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of either side's random seed.
pub const SEED: usize = 16;

/// A random seed, new in each handshake.
pub type Seed = [u8; SEED];

/// A proof: that the other side's seed was received, and that the account is known.
pub type Proof = [u8; 32];

/// The firmware's version of KLAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HS100(UK) hardware 4.1, of 2020.
    V1,
    /// Firmware of 2024 and later, which announces `new_klap`.
    V2,
}

/// The hash that stands for an account. Whoever knows it can switch the plug, so it is wiped and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    version: Version,
    hash: Zeroizing<Vec<u8>>,
}

impl Auth {
    /// Of this account.
    pub fn new(version: Version, username: &[u8], password: &[u8]) -> Auth {
        let hash = match version {
            Version::V1 => {
                let inner = Zeroizing::new([Md5::digest(username), Md5::digest(password)].concat());
                Md5::digest(&inner).to_vec()
            }
            Version::V2 => {
                let inner = Zeroizing::new([Sha1::digest(username), Sha1::digest(password)].concat());
                Sha256::digest(&inner).to_vec()
            }
        };
        Auth { version, hash: hash.into() }
    }

    /// The version that hashes like this.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The plug's proof, in its reply to the first handshake.
    pub fn plugs_proof(&self, local: &Seed, remote: &Seed) -> Proof {
        match self.version {
            Version::V1 => sha256(&[local, &self.hash]),
            Version::V2 => sha256(&[local, remote, &self.hash]),
        }
    }

    /// Our proof, in the second handshake.
    pub fn our_proof(&self, local: &Seed, remote: &Seed) -> Proof {
        match self.version {
            Version::V1 => sha256(&[remote, &self.hash]),
            Version::V2 => sha256(&[remote, local, &self.hash]),
        }
    }

    /// 32 bytes for one purpose of a session: `lsk`, `iv` or `ldk`.
    pub(super) fn derive(&self, purpose: &[u8], local: &Seed, remote: &Seed) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(sha256(&[purpose, local, remote, &self.hash]))
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Auth").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The hash of these parts, one after the other.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// protocol.md 7: the seeds of its vectors.
    pub const LOCAL: Seed = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    pub const REMOTE: Seed =
        [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];

    pub fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// protocol.md 7: the account of its vectors.
    pub fn auth(version: Version) -> Auth {
        Auth::new(version, b"a@b.c", b"secret")
    }

    #[test]
    fn inner_hashes_are_the_published_ones() {
        assert_eq!(hex(&Md5::digest(b"a@b.c")), "5d60d4e28066df254d5452f92c910092");
        assert_eq!(hex(&Md5::digest(b"secret")), "5ebe2294ecd0e0f08eab7690d2a6ee69");
        assert_eq!(hex(&Sha1::digest(b"a@b.c")), "e2d6a40c8b4d3e6a2779ba1802ef29d13940a051");
        assert_eq!(hex(&Sha1::digest(b"secret")), "e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4");
    }

    #[test]
    fn hashes_of_accounts_are_the_published_ones() {
        for (username, password, first, second) in [
            (
                "a@b.c",
                "secret",
                "f8d769ea503a70a9464af1cf28cf62ed",
                "480638c29b3253b785d118deb009cf71015e459a794a2ddbb7ff01e56b204c0e",
            ),
            (
                "kasa@tp-link.net",
                "kasaSetup",
                "74b751bdd208bc155ae2a6d4167cc44d",
                "49fc4839a2733ffbf464337648f65dc411778d4c03ec82c5e4cccc682163fa64",
            ),
            (
                "",
                "",
                "5873dd45edd01f09c1ef2e7819369e8e",
                "b8628ab91c74f531603f6d5b45e730e54c123a7247b8978272c03f1e13560cea",
            ),
        ] {
            for (version, hash) in [(Version::V1, first), (Version::V2, second)] {
                let auth = Auth::new(version, username.as_bytes(), password.as_bytes());
                assert_eq!(hex(&auth.hash), hash, "{username} {version:?}");
            }
        }
    }

    #[test]
    fn proofs_are_the_published_ones() {
        for (version, plugs, ours) in [
            (
                Version::V1,
                "cbbbdb95616d3134d2b84ee417c94b04439dd5753177e78b74e5214b36ced24e",
                "24fc3dff87f5f05b2bf7a1dee97c47850a83679ea93ee483bf1b8a54acc09285",
            ),
            (
                Version::V2,
                "4e12ce13ece09353f260f4852d11df5831fec2c9831335d6b61df07459e75bb6",
                "3166b4c2c4624d597e1acf97be0014b586ffbd551469cae0c3f17f8047a48764",
            ),
        ] {
            let auth = auth(version);
            assert_eq!(hex(&auth.plugs_proof(&LOCAL, &REMOTE)), plugs, "{version:?}");
            assert_eq!(hex(&auth.our_proof(&LOCAL, &REMOTE)), ours, "{version:?}");
        }
    }

    #[test]
    fn nothing_of_an_account_is_shown() {
        assert_eq!(format!("{:?}", auth(Version::V1)), "Auth { version: V1, .. }");
    }
}
