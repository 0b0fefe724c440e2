//! Hours in seconds: the runtime's clock stands still and is moved from one thing that is due to the next. For tests
//! with `start_paused`.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use kasa2mqtt::plug::error::Error;
use kasa2mqtt::plug::owner::{Owner, Wall};
use kasa2mqtt::plug::reading::Reading;
use tokio::time::{Instant, advance};

/// A time of day that passes as the runtime's clock does.
pub fn wall(begin: SystemTime) -> Wall {
    let origin = Instant::now();
    Arc::new(move || begin + origin.elapsed())
}

/// Keeps the clock from moving by itself while the runtime waits for sockets; and ends a test that hangs.
pub struct StandStill {
    _release: mpsc::Sender<()>,
}

impl StandStill {
    /// The runtime does not move a paused clock while somebody blocks.
    pub fn begin() -> StandStill {
        let (release, held) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || {
            if held.recv_timeout(super::DEADLINE * 2) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("a test of hours hangs");
                std::process::abort();
            }
        });
        StandStill { _release: release }
    }
}

/// Lets `time` pass for `owner`: does what is due when it is due. Every reading and failure goes to `seen`.
pub async fn pass(owner: &mut Owner, time: Duration, mut seen: impl FnMut(Result<Arc<Reading>, Error>)) {
    let end = Instant::now() + time;
    loop {
        let due = owner.due_at();
        if due > end {
            return advance(end.saturating_duration_since(Instant::now())).await;
        }
        // The runtime's timers know whole milliseconds only.
        let time = due.saturating_duration_since(Instant::now()).as_nanos().div_ceil(1_000_000);
        advance(Duration::from_millis(time as u64)).await;
        if let Some(outcome) = owner.act().await {
            seen(outcome);
        }
    }
}
