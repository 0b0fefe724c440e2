//! The task that owns the picture: takes in what the core tells, draws for whoever asks, and tells browsers what
//! changed.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::bridge::view::{Change, Whole};

use super::access::Rights;
use super::metrics;
use super::picture::Picture;
use super::process;

/// Browsers that may listen at the same time.
pub const LISTENERS: usize = 32;

/// Messages on their way to one browser; one that falls behind by more begins anew.
const BACKLOG: usize = 64;

/// What changes within this time is told together, and only the newest of it.
const TOGETHER: Duration = Duration::from_millis(50);

/// Who hears nothing for so long is told that there is nothing: so a connection that has died is noticed.
const SILENCE: u64 = 15;

/// What is drawn whole and not yet read, altogether, in KiB. However many readers are slow, memory does not grow.
const UNREAD: u32 = 64 << 10;

/// Changes that are taken in at once.
const BATCH: usize = 256;

/// What is asked for; `None` when too much is unread already.
pub type Answer = oneshot::Sender<Option<Bytes>>;

/// What the painter is asked.
pub enum Question {
    /// The state, for somebody with these rights.
    State(Rights, Answer),
    /// The metrics.
    Metrics(Answer),
    /// The state, and whatever changes afterwards; `None` when too many listen already.
    Listen(Rights, oneshot::Sender<Option<mpsc::Receiver<Bytes>>>),
}

/// See the module.
pub struct Painter {
    picture: Picture,
    began: Instant,
    changes: mpsc::Receiver<Change>,
    whole: watch::Receiver<Whole>,
    questions: mpsc::Receiver<Question>,
    listeners: Vec<mpsc::Sender<Bytes>>,
    unread: Arc<Semaphore>,
    /// When what changed is told.
    tell_at: Option<Instant>,
}

/// What somebody has not read yet.
struct Lent {
    text: String,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Painter {
    /// A painter, and where to ask it.
    pub fn new(
        changes: mpsc::Receiver<Change>,
        whole: watch::Receiver<Whole>,
        started: SystemTime,
    ) -> (Painter, mpsc::Sender<Question>) {
        let (sender, questions) = mpsc::channel(64);
        let painter = Painter {
            picture: Picture::new(started),
            began: Instant::now(),
            changes,
            whole,
            questions,
            listeners: Vec::new(),
            unread: Arc::new(Semaphore::new(UNREAD as usize)),
            tell_at: None,
        };
        (painter, sender)
    }

    /// Ends with the core.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let tell_at = self.tell_at;
            let due = async {
                match tell_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                taken = self.changes.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return;
                    }
                    let now = self.now();
                    batch.drain(..).for_each(|change| self.picture.take(change, now));
                }
                seen = self.whole.changed() => {
                    if seen.is_err() {
                        return;
                    }
                    self.picture.whole = *self.whole.borrow_and_update();
                }
                Some(question) = self.questions.recv() => self.answer(question),
                _ = seconds.tick() => self.tick(),
                () = due => self.tell(),
            }
            if self.listeners.is_empty() {
                self.picture.forget_events();
            } else if self.tell_at.is_none() && self.picture.has_events() {
                self.tell_at = Some(Instant::now() + TOGETHER);
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn answer(&mut self, question: Question) {
        let now = self.now();
        self.picture.whole = *self.whole.borrow();
        // Whoever has gone meanwhile misses nothing.
        match question {
            Question::State(rights, answer) => {
                let state = self.picture.state(rights, now);
                let _ = answer.send(self.lend(state));
            }
            Question::Metrics(answer) => {
                let metrics = metrics::render(&self.picture, &process::look());
                let _ = answer.send(self.lend(metrics));
            }
            Question::Listen(rights, answer) => {
                self.listeners.retain(|listener| !listener.is_closed());
                // Others hear of what he sees now.
                self.tell();
                let state = self.picture.state_event(rights, now);
                let state = self.lend(state).filter(|_| self.listeners.len() < LISTENERS);
                let Some(state) = state else {
                    let _ = answer.send(None);
                    return;
                };
                let (listener, events) = mpsc::channel(BACKLOG);
                let _ = listener.try_send(state);
                if answer.send(Some(events)).is_ok() {
                    self.listeners.push(listener);
                }
            }
        }
    }

    /// Bytes for one reader. They count as unread until they are dropped.
    fn lend(&self, text: String) -> Option<Bytes> {
        let size = u32::try_from(text.len() >> 10).unwrap_or(UNREAD).clamp(1, UNREAD);
        let place = Arc::clone(&self.unread).try_acquire_many_owned(size).ok()?;
        Some(Bytes::from_owner(Lent { text, _place: place }))
    }

    fn tick(&mut self) {
        self.listeners.retain(|listener| !listener.is_closed());
        if self.listeners.is_empty() {
            return;
        }
        let now = self.now();
        self.picture.whole = *self.whole.borrow();
        self.picture.tick(now);
        if let Some(event) = self.picture.bridge_event(now) {
            self.send(event);
        } else if now.as_secs().is_multiple_of(SILENCE) {
            self.send(":\n\n".into());
        }
    }

    fn tell(&mut self) {
        self.tell_at = None;
        let now = self.now();
        let events = self.picture.events(now);
        if !events.is_empty() {
            self.send(events);
        }
    }

    /// Who does not keep up is left; his browser comes again, and gets the state.
    fn send(&mut self, text: String) {
        let text = Bytes::from(text);
        self.listeners.retain(|listener| listener.try_send(text.clone()).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A painter, and the core's ends of it.
    fn painter() -> (Painter, mpsc::Sender<Change>, watch::Sender<Whole>) {
        let (changes, changed) = mpsc::channel(1);
        let (whole, seen) = watch::channel(Whole::default());
        (Painter::new(changed, seen, SystemTime::now()).0, changes, whole)
    }

    #[tokio::test]
    async fn what_nobody_reads_does_not_grow() {
        const MIB: usize = 1 << 20;
        let (painter, _changes, _whole) = painter();
        let lend = |size: usize| painter.lend("x".repeat(size));
        let first = lend(40 * MIB).unwrap();
        let second = lend(20 * MIB).unwrap();
        assert!(lend(5 * MIB).is_none());
        // A reader that has several places holds one text.
        let copies = vec![second.clone(); 100];
        drop(first);
        assert!(lend(40 * MIB).is_some());
        drop((second, copies));
        assert_eq!(lend(100 * MIB).unwrap().len(), 100 * MIB, "alone even more is drawn");
    }

    #[tokio::test(start_paused = true)]
    async fn who_listens_hears_at_least_that_there_is_nothing() {
        let (mut painter, _changes, _whole) = painter();
        let (answer, events) = oneshot::channel();
        painter.answer(Question::Listen(Rights { may_control: false, needs_token: false }, answer));
        let mut events = events.await.unwrap().unwrap();
        assert!(events.recv().await.unwrap().starts_with(b"event: state\ndata: {"));
        let running = tokio::spawn(painter.run());
        assert!(events.recv().await.unwrap().starts_with(b"event: bridge\n"));
        let began = Instant::now();
        assert_eq!(events.recv().await.unwrap(), ":\n\n");
        assert!(began.elapsed() <= Duration::from_secs(SILENCE + 1), "{:?}", began.elapsed());
        running.abort();
    }
}
