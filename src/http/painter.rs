//! The task that owns the picture: takes in what the core tells, draws for whoever asks, and tells browsers what
//! changed.

use std::future::pending;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
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

/// Changes that are taken in at once.
const BATCH: usize = 256;

/// What the painter is asked.
pub enum Question {
    /// The state, for somebody with these rights.
    State(Rights, oneshot::Sender<Bytes>),
    /// The metrics.
    Metrics(oneshot::Sender<Bytes>),
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
    /// When what changed is told.
    tell_at: Option<Instant>,
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
        // Whoever has gone meanwhile misses nothing.
        match question {
            Question::State(rights, answer) => {
                let _ = answer.send(self.picture.state(rights, now).into());
            }
            Question::Metrics(answer) => {
                let _ = answer.send(metrics::render(&self.picture, &process::look()).into());
            }
            Question::Listen(rights, answer) => {
                self.listeners.retain(|listener| !listener.is_closed());
                if self.listeners.len() == LISTENERS {
                    let _ = answer.send(None);
                    return;
                }
                // Others hear of what he sees now.
                self.tell();
                let (listener, events) = mpsc::channel(BACKLOG);
                let _ = listener.try_send(self.picture.state_event(rights, now).into());
                if answer.send(Some(events)).is_ok() {
                    self.listeners.push(listener);
                }
            }
        }
    }

    fn tick(&mut self) {
        self.listeners.retain(|listener| !listener.is_closed());
        if self.listeners.is_empty() {
            return;
        }
        let now = self.now();
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
