//! The keys of one session: requests in, bodies for HTTP out, and back.

use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::auth::{Auth, Seed, sha256};

/// Bytes of the signature before each ciphertext.
const SIGNATURE: usize = 32;

/// Bytes of a block of AES.
const BLOCK: usize = 16;

/// A body that does not belong to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// No signature with whole blocks after it.
    #[error("{0} bytes are no signature and whole blocks")]
    Length(usize),
    /// Made with other keys or another number, or changed on the way.
    #[error("the padding is wrong")]
    Padding,
    /// The same, of a plug that signs.
    #[error("the signature is wrong")]
    Signature,
}

/// The keys of one session, and the number of its last request.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Keys {
    key: [u8; 16],
    iv: [u8; 12],
    signature: [u8; 28],
    sequence: i32,
    /// Whether the plug signs its replies as we sign requests; known from its first one.
    signs: Option<bool>,
}

impl Keys {
    /// Of the session that began with these seeds.
    pub fn new(auth: &Auth, local: &Seed, remote: &Seed) -> Keys {
        let iv = auth.derive(b"iv", local, remote);
        Keys {
            key: first(&auth.derive(b"lsk", local, remote)),
            iv: first(&iv),
            signature: first(&auth.derive(b"ldk", local, remote)),
            sequence: i32::from_be_bytes([iv[28], iv[29], iv[30], iv[31]]),
            signs: None,
        }
    }

    /// Encrypts and signs a request. Returns its number, which belongs into its address, and its body.
    pub fn seal(&mut self, plain: &[u8]) -> (i32, Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let cipher = cbc::Encryptor::<Aes128>::new(&self.key.into(), &self.vector().into());
        let cipher = cipher.encrypt_padded_vec::<Pkcs7>(plain);
        let body = [&self.sign(&cipher)[..], &cipher].concat();
        (self.sequence, body)
    }

    /// Decrypts the reply to the last request.
    ///
    /// No published client looks at a reply's signature, so that it is not certain that all firmware makes it like ours.
    /// A plug that once did so has to go on.
    ///
    /// # Errors
    /// It is no reply of this session to that request.
    pub fn open(&mut self, body: &[u8]) -> Result<Vec<u8>, NotOurs> {
        let (signature, cipher) = body.split_at_checked(SIGNATURE).ok_or(NotOurs::Length(body.len()))?;
        if cipher.is_empty() || !cipher.len().is_multiple_of(BLOCK) {
            return Err(NotOurs::Length(body.len()));
        }
        let is_signed = signature == self.sign(cipher);
        if self.signs == Some(true) && !is_signed {
            return Err(NotOurs::Signature);
        }
        let decryptor = cbc::Decryptor::<Aes128>::new(&self.key.into(), &self.vector().into());
        let plain = decryptor.decrypt_padded_vec::<Pkcs7>(cipher).map_err(|_| NotOurs::Padding)?;
        self.signs.get_or_insert(is_signed);
        Ok(plain)
    }

    fn vector(&self) -> [u8; BLOCK] {
        let mut vector = [0; BLOCK];
        vector[..12].copy_from_slice(&self.iv);
        vector[12..].copy_from_slice(&self.sequence.to_be_bytes());
        vector
    }

    fn sign(&self, cipher: &[u8]) -> [u8; SIGNATURE] {
        sha256(&[&self.signature, &self.sequence.to_be_bytes(), cipher])
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Keys").finish_non_exhaustive()
    }
}

fn first<const N: usize>(hash: &Zeroizing<[u8; 32]>) -> [u8; N] {
    hash[..N].try_into().expect("no part is longer than the whole")
}

#[cfg(test)]
mod tests {
    use aes::cipher::block_padding::NoPadding;
    use proptest::prelude::*;

    use super::super::auth::Version;
    use super::super::auth::tests::{LOCAL, REMOTE, auth, hex};
    use super::*;

    const GET: &[u8] = br#"{"system":{"get_sysinfo":{}}}"#;
    const SET: &[u8] = br#"{"system":{"set_relay_state":{"state":1}}}"#;
    const DONE: &[u8] = br#"{"system":{"set_relay_state":{"err_code":0}}}"#;

    fn keys(version: Version) -> Keys {
        Keys::new(&auth(version), &LOCAL, &REMOTE)
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    struct Vector {
        version: Version,
        key: &'static str,
        iv: &'static str,
        sequence: i32,
        signature: &'static str,
        get: &'static str,
        set: &'static str,
        done: &'static str,
    }

    /// protocol.md 7.
    const VECTORS: [Vector; 2] = [
        Vector {
            version: Version::V1,
            key: "5b4036bec1d4789958132d829ce24f1b",
            iv: "dac741edade712820c0836c8",
            sequence: -919_489_812,
            signature: "7f43414909131ddd9eb9115d7bcc5ca362ef601fd6bdd6d7ddd3cac5",
            get: "4a011ce8023515914873f1d029cf5d301f215dbae3abe9a2674bb2b94e1ed093\
                  631c90ff87aa728f8b7ab024e1cbe99836d18d84ab235f857e9b255389b44ddd",
            set: "de04f9b1b5e4095a7c9596d4c881f38e3aacd0e084958f7d3c8b89bfd26e4797\
                  5050ef710c6d67859d6e51d315e8aa3c99419f3d8c2bf47aad50ccc256b4df33fba81e5cef92ec2b0305fab0922d0d64",
            done: "2d5a039008df7321d4238b956de82a2865a83f9792320e1b2d46f5b61bf9e4ca\
                  5050ef710c6d67859d6e51d315e8aa3c72c1d06caedae137f2cde2811a0979360b4e250e413a100128800e1a15807fee",
        },
        Vector {
            version: Version::V2,
            key: "3c23fc0e952e1030c8fa8028ae87d6f2",
            iv: "0fbcb88e7f75c0c09362463d",
            sequence: -287_375_931,
            signature: "45b5f18a543792c5262efb8b14bdd6bf0f13aff2b73b73feb2642cc5",
            get: "03cc5129f70b26d334dfa74f9b8ccd10ba45aca95482ff6ff6c93a7ebeb5d800\
                  d0c00bb001d1122c55b6e59ae14d34bbf081e012345fc4f775e237492fd5a7a3",
            set: "5c0f2749b47591d1677c5a75444a062c35782c46fea9b750564ffe2fccaf38da\
                  0aa5ef993f7cd4adbcb52c2637565496d392267ac92c90b81ddaa34ff9986d53c20fa44d563827e695c09528c0174f24",
            done: "2aae4dbf201ced7a0687f4043dceda0efa7a2ca99218ec3bd73b495d910327ad\
                  0aa5ef993f7cd4adbcb52c263756549616e43cfef0d30a8b5b53219581fbefd568e07ccd2c04ac8dfef3308622dd4c4d",
        },
    ];

    #[test]
    fn the_published_vectors_byte_for_byte() {
        for vector in VECTORS {
            let mut keys = keys(vector.version);
            let version = vector.version;
            assert_eq!(hex(&keys.key), vector.key, "{version:?}");
            assert_eq!(hex(&keys.iv), vector.iv, "{version:?}");
            assert_eq!(hex(&keys.signature), vector.signature, "{version:?}");
            assert_eq!(keys.sequence, vector.sequence, "{version:?}");
            let (number, body) = keys.seal(GET);
            assert_eq!((number, hex(&body).as_str()), (vector.sequence + 1, vector.get), "{version:?}");
            let (number, body) = keys.seal(SET);
            assert_eq!((number, hex(&body).as_str()), (vector.sequence + 2, vector.set), "{version:?}");
            assert_eq!(keys.open(&bytes(vector.done)).unwrap(), DONE, "{version:?}");
            assert_eq!(keys.signs, Some(true), "{version:?}");
        }
    }

    #[test]
    fn numbers_go_on_beyond_the_largest() {
        let mut keys = keys(Version::V2);
        keys.sequence = i32::MAX;
        let (number, body) = keys.seal(GET);
        assert_eq!(number, i32::MIN);
        assert_eq!(keys.open(&body).unwrap(), GET);
    }

    #[test]
    fn a_plug_that_signs_must_go_on_signing() {
        let mut keys = keys(Version::V1);
        let (_, mut body) = keys.seal(GET);
        body[0] ^= 1;
        assert_eq!(keys.open(&body).unwrap(), GET, "firmware that signs otherwise");
        let mut keys = self::keys(Version::V1);
        let (_, mut body) = keys.seal(GET);
        keys.open(&body).unwrap();
        body[31] ^= 1;
        assert_eq!(keys.open(&body), Err(NotOurs::Signature));
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", keys(Version::V1)), "Keys { .. }");
    }

    proptest! {
        #[test]
        fn open_undoes_seal(plain in prop::collection::vec(any::<u8>(), 0..3000)) {
            let mut keys = keys(Version::V2);
            let (_, body) = keys.seal(&plain);
            prop_assert_eq!(keys.open(&body).unwrap(), plain);
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut keys = keys(Version::V1);
            let fits = body.len() > SIGNATURE && (body.len() - SIGNATURE).is_multiple_of(BLOCK);
            let outcome = keys.open(&body);
            prop_assert_eq!(matches!(outcome, Err(NotOurs::Length(_))), !fits);
        }

        /// Signed as it should be, with our keys, and yet no reply: the padding decides, and nothing else.
        #[test]
        fn only_a_right_padding_is_taken(
            mut plain in prop::collection::vec(any::<[u8; BLOCK]>(), 1..5).prop_map(|blocks| blocks.concat()),
            last in prop_oneof![0u8..20, any::<u8>()],
            right: bool,
        ) {
            let mut keys = keys(Version::V1);
            let length = plain.len();
            plain[length - 1] = last;
            let pad = usize::from(last);
            if right && (1..=BLOCK).contains(&pad) {
                plain[length - pad..].fill(last);
            }
            let is_padded = (1..=BLOCK).contains(&pad) && plain[length - pad..].iter().all(|byte| *byte == last);
            let encryptor = cbc::Encryptor::<Aes128>::new(&keys.key.into(), &keys.vector().into());
            let cipher = encryptor.encrypt_padded_vec::<NoPadding>(&plain);
            let body = [&keys.sign(&cipher)[..], &cipher].concat();
            let expected = if is_padded { Ok(plain[..length - pad].to_vec()) } else { Err(NotOurs::Padding) };
            prop_assert_eq!(keys.open(&body), expected);
        }

        #[test]
        fn a_changed_reply_is_refused(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut keys = keys(Version::V1);
            let (_, mut body) = keys.seal(GET);
            keys.open(&body).unwrap();
            let length = body.len();
            body[at.index(length)] ^= flip;
            prop_assert_eq!(keys.open(&body), Err(NotOurs::Signature));
        }
    }
}
