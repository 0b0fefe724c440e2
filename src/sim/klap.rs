//! The plug's side of KLAP: handshakes and encrypted requests in, answers out (protocol.md 7).
//!
//! Everything is derived here from the account once more: a witness shares no code with what it watches.

use std::time::Duration;

use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

use super::behaviour::Klap;

/// The account of a plug that was never set up.
const FACTORY: &str = "kasa@tp-link.net:kasaSetup";

/// How long a session lasts, as a real plug says.
const DAY: Duration = Duration::from_secs(86_400);

/// A request to the plug's HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// As in `/app/handshake1`.
    pub path: String,
    /// What stands behind `seq=`.
    pub sequence: Option<i32>,
    /// The cookie, as it was sent.
    pub cookie: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What the HTTP server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// A cookie to be set.
    pub cookie: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without a cookie.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, cookie: None, body: body.into() }
    }
}

/// The plug's side. It has one session; another client's handshake ends it.
#[derive(Debug)]
pub struct Peer {
    version: Klap,
    secret: Vec<u8>,
    life: Duration,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    cookie: String,
    proof: [u8; 32],
    /// The second handshake was right.
    confirmed: bool,
    key: [u8; 16],
    iv: [u8; 12],
    signature: [u8; 28],
    sequence: i32,
}

impl Peer {
    /// A plug of this account, `EMAIL:PASSWORD`; without one, of none.
    pub fn new(version: Klap, account: Option<&str>) -> Peer {
        let (user, password) = account.unwrap_or(FACTORY).split_once(':').unwrap_or_default();
        let secret = match version {
            Klap::First => Md5::digest([Md5::digest(user), Md5::digest(password)].concat()).to_vec(),
            Klap::Second => Sha256::digest([Sha1::digest(user), Sha1::digest(password)].concat()).to_vec(),
        };
        Peer { version, secret, life: DAY, session: None }
    }

    /// The same with sessions that last so long; who keeps the time has it [forget](Peer::forget) them.
    pub fn lasting(self, life: Option<Duration>) -> Peer {
        Peer { life: life.unwrap_or(DAY), ..self }
    }

    /// How long a session lasts.
    pub fn life(&self) -> Duration {
        self.life
    }

    /// The first handshake: a new session, whatever was before. `remote` and `id` are random.
    pub fn greet(&mut self, body: &[u8], remote: [u8; 16], id: u64) -> Answer {
        let Ok(local) = <[u8; 16]>::try_from(body) else { return Answer::new(400, "") };
        let secret = self.secret.as_slice();
        let (ours, theirs) = match self.version {
            Klap::First => (hash(&[&local, secret]), hash(&[&remote, secret])),
            Klap::Second => (hash(&[&local, &remote, secret]), hash(&[&remote, &local, secret])),
        };
        let derived = |purpose: &[u8]| hash(&[purpose, &local, &remote, secret]);
        let (key, iv, signature) = (derived(b"lsk"), derived(b"iv"), derived(b"ldk"));
        let cookie = format!("TP_SESSIONID={id:032X}");
        self.session = Some(Session {
            cookie: cookie.clone(),
            proof: theirs,
            confirmed: false,
            key: key[..16].try_into().expect("16 of 32 bytes"),
            iv: iv[..12].try_into().expect("12 of 32 bytes"),
            signature: signature[..28].try_into().expect("28 of 32 bytes"),
            sequence: i32::from_be_bytes(iv[28..].try_into().expect("the last 4 of 32 bytes")),
        });
        let body = [&remote[..], &ours].concat();
        Answer { status: 200, cookie: Some(format!("{cookie};TIMEOUT={}", self.life.as_secs())), body }
    }

    /// The second handshake.
    pub fn confirm(&mut self, cookie: Option<&str>, body: &[u8]) -> Answer {
        match self.session_of(cookie).filter(|session| session.proof == body) {
            Some(session) => {
                session.confirmed = true;
                Answer::new(200, "")
            }
            None => Answer::new(403, ""),
        }
    }

    /// A request, decrypted; `None` where cookie, number or signature is wrong.
    pub fn open(&mut self, post: &Post) -> Option<Vec<u8>> {
        let session = self.session_of(post.cookie.as_deref()).filter(|session| session.confirmed)?;
        let number = post.sequence.filter(|number| *number == session.sequence.wrapping_add(1))?;
        let (signature, cipher) = post.body.split_at_checked(32)?;
        if signature != session.sign(number, cipher) {
            return None;
        }
        let vector = session.vector(number);
        let decryptor = cbc::Decryptor::<Aes128>::new(&session.key.into(), &vector.into());
        let plain = decryptor.decrypt_padded_vec::<Pkcs7>(cipher).ok()?;
        session.sequence = number;
        Some(plain)
    }

    /// A reply to the last request, encrypted.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let Some(session) = &self.session else { return Vec::new() };
        let vector = session.vector(session.sequence);
        let encryptor = cbc::Encryptor::<Aes128>::new(&session.key.into(), &vector.into());
        let cipher = encryptor.encrypt_padded_vec::<Pkcs7>(plain);
        [&session.sign(session.sequence, &cipher)[..], &cipher].concat()
    }

    /// Forgets the session.
    pub fn forget(&mut self) {
        self.session = None;
    }

    /// A cookie with anything beside the session in it is disliked.
    fn session_of(&mut self, cookie: Option<&str>) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| Some(session.cookie.as_str()) == cookie)
    }
}

impl Session {
    fn vector(&self, number: i32) -> [u8; 16] {
        let vector = [&self.iv[..], &number.to_be_bytes()].concat();
        vector.try_into().expect("12 and 4 are 16 bytes")
    }

    fn sign(&self, number: i32, cipher: &[u8]) -> [u8; 32] {
        hash(&[&self.signature, &number.to_be_bytes(), cipher])
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const REMOTE: [u8; 16] =
        [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
    const COOKIE: &str = "TP_SESSIONID=00000000000000000000000000000007";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// protocol.md 7, from the plug's side: version, its proof, ours, number and body of the first request.
    const VECTORS: [(Klap, &str, &str, i32, &str); 2] = [
        (
            Klap::First,
            "cbbbdb95616d3134d2b84ee417c94b04439dd5753177e78b74e5214b36ced24e",
            "24fc3dff87f5f05b2bf7a1dee97c47850a83679ea93ee483bf1b8a54acc09285",
            -919_489_811,
            "4a011ce8023515914873f1d029cf5d301f215dbae3abe9a2674bb2b94e1ed093\
             631c90ff87aa728f8b7ab024e1cbe99836d18d84ab235f857e9b255389b44ddd",
        ),
        (
            Klap::Second,
            "4e12ce13ece09353f260f4852d11df5831fec2c9831335d6b61df07459e75bb6",
            "3166b4c2c4624d597e1acf97be0014b586ffbd551469cae0c3f17f8047a48764",
            -287_375_930,
            "03cc5129f70b26d334dfa74f9b8ccd10ba45aca95482ff6ff6c93a7ebeb5d800\
             d0c00bb001d1122c55b6e59ae14d34bbf081e012345fc4f775e237492fd5a7a3",
        ),
    ];

    fn post(sequence: i32, body: &str) -> Post {
        Post {
            path: "/app/request".into(),
            sequence: Some(sequence),
            cookie: Some(COOKIE.into()),
            body: bytes(body),
        }
    }

    #[test]
    fn the_published_session_from_the_plugs_side() {
        for (version, ours, theirs, number, request) in VECTORS {
            let mut peer = Peer::new(version, Some("a@b.c:secret"));
            let answer = peer.greet(&LOCAL, REMOTE, 7);
            assert_eq!(answer.body, [REMOTE.to_vec(), bytes(ours)].concat(), "{version:?}");
            assert_eq!(answer.cookie.unwrap(), format!("{COOKIE};TIMEOUT=86400"));
            let request = post(number, request);
            assert_eq!(peer.open(&request), None, "not confirmed");
            assert_eq!(peer.confirm(Some(COOKIE), &bytes(theirs)).status, 200, "{version:?}");
            assert_eq!(peer.open(&request).unwrap(), br#"{"system":{"get_sysinfo":{}}}"#, "{version:?}");
            assert_eq!(peer.open(&request), None, "a number comes once");
        }
    }

    #[test]
    fn a_wrong_cookie_number_or_signature_is_refused() {
        let (version, _, theirs, number, request) = VECTORS[0];
        let mut peer = Peer::new(version, Some("a@b.c:secret"));
        peer.greet(&LOCAL, REMOTE, 7);
        let disliked = format!("{COOKIE};TIMEOUT=86400");
        for cookie in [None, Some("TP_SESSIONID=1"), Some(disliked.as_str())] {
            assert_eq!(peer.confirm(cookie, &bytes(theirs)).status, 403);
        }
        assert_eq!(peer.confirm(Some(COOKIE), &[0; 32]).status, 403);
        peer.confirm(Some(COOKIE), &bytes(theirs));
        let right = post(number, request);
        assert_eq!(peer.open(&Post { sequence: Some(number + 1), ..right.clone() }), None);
        assert_eq!(peer.open(&Post { sequence: None, ..right.clone() }), None);
        let mut body = right.body.clone();
        body[0] ^= 1;
        assert_eq!(peer.open(&Post { body, ..right.clone() }), None);
        assert!(peer.open(&right).is_some());
        peer.greet(&LOCAL, REMOTE, 8);
        assert_eq!(peer.open(&right), None, "somebody else has the session");
        assert_eq!(peer.greet(&LOCAL[1..], REMOTE, 9).status, 400);
    }
}
