//! One session with a plug: its handshakes, then encrypted requests until the plug forgets it or its time is up.

use std::time::Duration;

use hyper::header::HeaderValue;
use tokio::time::Instant;

use super::auth::{Auth, Proof, SEED, Seed, Version};
use super::http::Http;
use super::keys::Keys;
use crate::plug::error::Error;

/// A session of a plug that does not say how long it lasts (protocol.md 7).
const USUAL_LIFE: Duration = Duration::from_secs(86_400);

/// So much earlier than the plug we take a session for ended, but no earlier than half of its time.
const MARGIN: Duration = Duration::from_secs(1200);

/// A plug has one at a time: another client's handshake ends ours.
#[derive(Debug)]
pub struct Session {
    http: Http,
    keys: Keys,
    version: Version,
    cookie: Option<HeaderValue>,
    ends: Instant,
}

impl Session {
    /// Both handshakes, with the first of `auths` that the plug proves to know.
    ///
    /// # Errors
    /// [`Error::Auth`] where it knows none of them; anything else where it does not behave like a plug.
    pub async fn open(mut http: Http, auths: &[Auth]) -> Result<Session, Error> {
        let mut local = Seed::default();
        getrandom::fill(&mut local).map_err(|error| Error::Broken(format!("no random numbers: {error}")))?;
        let answer = http.post("/app/handshake1", None, local.to_vec()).await?;
        if answer.status != 200 {
            return Err(Error::Malformed(format!("HTTP status {} in the first handshake", answer.status)));
        }
        let (remote, proof) = greeting(&answer.body)
            .ok_or_else(|| Error::Malformed(format!("{} bytes in the first handshake", answer.body.len())))?;
        let knows = |auth: &&Auth| auth.plugs_proof(&local, &remote) == proof;
        let auth = auths.iter().find(knows).ok_or(Error::Auth)?;
        let (cookie, life) = answer.cookie.as_deref().map(cookie).unwrap_or_default();
        let life = life.unwrap_or(USUAL_LIFE);
        let ends = Instant::now() + life.saturating_sub(MARGIN.min(life / 2));
        let proof = auth.our_proof(&local, &remote).to_vec();
        let answer = http.post("/app/handshake2", cookie.as_ref(), proof).await?;
        if answer.status != 200 {
            return Err(Error::Malformed(format!("HTTP status {} in the second handshake", answer.status)));
        }
        let keys = Keys::new(auth, &local, &remote);
        Ok(Session { http, keys, version: auth.version(), cookie, ends })
    }

    /// The plug's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the plug has not said that it is over by now.
    pub fn is_alive(&self) -> bool {
        Instant::now() < self.ends
    }

    /// Sends `request` (plain JSON) and returns the reply's plain bytes. After an error the session is of no use.
    ///
    /// # Errors
    /// [`Error::Forgotten`] where the plug has another session by now: the request was not carried out.
    /// [`Error::Malformed`] where the reply is not encrypted with our keys: HTML, a wrong length, a wrong signature.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, Error> {
        let (number, body) = self.keys.seal(request);
        let target = format!("/app/request?seq={number}");
        let answer = self.http.post(&target, self.cookie.as_ref(), body).await?;
        match answer.status {
            200 => self.keys.open(&answer.body).map_err(|error| Error::Malformed(error.to_string())),
            403 => Err(Error::Forgotten),
            status => Err(Error::Malformed(format!("HTTP status {status}"))),
        }
    }
}

/// The plug's seed and its proof.
fn greeting(body: &[u8]) -> Option<(Seed, Proof)> {
    let (seed, proof) = body.split_at_checked(SEED)?;
    Some((seed.try_into().ok()?, proof.try_into().ok()?))
}

/// `TP_SESSIONID=xx;TIMEOUT=86400` to what is sent back, which must be without the time, and the time.
fn cookie(text: &str) -> (Option<HeaderValue>, Option<Duration>) {
    let mut parts = text.split(';').map(str::trim);
    let cookie = parts.next().filter(|cookie| cookie.starts_with("TP_SESSIONID="));
    let seconds = parts.find_map(|part| part.strip_prefix("TIMEOUT=")?.parse::<u32>().ok());
    let cookie = cookie.and_then(|cookie| HeaderValue::from_str(cookie).ok());
    (
        cookie.map(|mut cookie| {
            // Never shown.
            cookie.set_sensitive(true);
            cookie
        }),
        seconds.map(|seconds| Duration::from_secs(seconds.into())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_cookie_is_not_sent_back() {
        for (text, sent, seconds) in [
            ("TP_SESSIONID=AB12;TIMEOUT=86400", Some("TP_SESSIONID=AB12"), Some(86_400)),
            ("TP_SESSIONID=AB12; TIMEOUT=1440; Path=/", Some("TP_SESSIONID=AB12"), Some(1440)),
            ("TP_SESSIONID=AB12", Some("TP_SESSIONID=AB12"), None),
            ("TP_SESSIONID=AB12;TIMEOUT=-1", Some("TP_SESSIONID=AB12"), None),
            ("TP_SESSIONID=AB12;TIMEOUT=99999999999999999999", Some("TP_SESSIONID=AB12"), None),
            ("OTHER=1;TIMEOUT=5", None, Some(5)),
            ("TP_SESSIONID=A\u{7f}", None, None),
            ("", None, None),
        ] {
            let (cookie, life) = cookie(text);
            assert_eq!(cookie.as_ref().map(|cookie| cookie.to_str().unwrap()), sent, "{text}");
            assert_eq!(life, seconds.map(Duration::from_secs), "{text}");
            assert!(!format!("{cookie:?}").contains("AB12"), "{cookie:?}");
        }
    }

    #[test]
    fn a_greeting_has_48_bytes() {
        assert!(greeting(&[7; 48]).is_some_and(|(seed, proof)| seed == [7; 16] && proof == [7; 32]));
        for length in [0, 15, 16, 47, 49, 64] {
            assert!(greeting(&vec![7; length]).is_none(), "{length}");
        }
    }
}
