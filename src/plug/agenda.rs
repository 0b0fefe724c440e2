//! What a plug is asked beside its polls, and when: seldom, one question at a time. Time is an argument.
//!
//! A question that a plug does not know is not asked again. One that a plug does not survive (protocol.md 1.4) is left
//! alone for a week.

use std::time::{Duration, Instant};

use super::reading::Reading;

/// A question beside the poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What flows through an outlet of a strip. A single plug is asked with each poll.
    Energy(usize),
    /// What an outlet used today and this month.
    Statistics(usize),
    /// Whether the plug has its cloud.
    Cloud,
    /// What its clock shows.
    Clock,
    /// Whether the motion sensor switches.
    Motion,
    /// What its schedule does next.
    NextAction,
    /// Whether an outlet's timer runs, and how long.
    Timer(usize),
}

/// So many deaths in a row are the question's fault.
const DEADLY: u8 = 2;

/// How long a deadly question is left alone.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Rare questions wait for so many intervals of energy.
const RARE: u32 = 5;

/// The first time, questions are asked this far apart.
const FIRST_APART: Duration = Duration::from_millis(250);

/// The first time, a strip's outlets are asked for their energy this far apart.
const OUTLETS_APART: Duration = Duration::from_secs(1);

/// The first statistics wait until every outlet of the largest strip was asked for its energy: some strips take only
/// so many requests in some time (protocol.md 1.4).
const FIRST_STATISTICS: Duration = Duration::from_millis(10_600);

#[derive(Debug, Clone)]
struct Item {
    question: Question,
    /// `None` for a question that is asked when there is reason to.
    every: Option<Duration>,
    /// Added once, after the first answer: spreads an interval's questions over it.
    phase: Duration,
    due: Option<Instant>,
    deaths: u8,
}

/// The questions of one plug.
#[derive(Debug, Clone, Default)]
pub struct Agenda {
    items: Vec<Item>,
}

impl Agenda {
    /// The questions that the plug of `reading` is asked every `interval` (energy) or more rarely.
    pub fn new(reading: &Reading, tells_next_action: bool, interval: Duration, now: Instant) -> Agenda {
        let mut agenda = Agenda::default();
        let rare = interval.saturating_mul(RARE);
        let count = u32::try_from(reading.outlets.len()).unwrap_or(u32::MAX);
        let mut soon = (1..).map(|place| now + FIRST_APART * place);
        let mut add = |question, every, phase: Duration, due| {
            agenda.items.push(Item { question, every: Some(every), phase, due: Some(due), deaths: 0 });
        };
        let mut next = || soon.next().unwrap_or(now);
        add(Question::Cloud, rare, Duration::ZERO, next());
        add(Question::Clock, rare, Duration::ZERO, next());
        if reading.motion.is_some() {
            add(Question::Motion, interval, Duration::ZERO, next());
        }
        if !tells_next_action {
            add(Question::NextAction, rare, Duration::ZERO, next());
        }
        for (index, place) in (0..reading.outlets.len()).zip(0..).filter(|_| reading.has_meter()) {
            let first = if reading.is_strip() { now + OUTLETS_APART * place } else { next() };
            // From then on spread over the interval; what was apart already counts.
            let phase = |every: Duration, apart: Duration| (every / count).saturating_sub(apart) * place;
            if reading.is_strip() {
                add(Question::Energy(index), interval, phase(interval, OUTLETS_APART), first);
            }
            // In between, so that no two questions meet.
            let wait =
                if reading.is_strip() { FIRST_STATISTICS + OUTLETS_APART * place } else { Duration::ZERO };
            add(Question::Statistics(index), rare, phase(rare, OUTLETS_APART * 2), first + wait);
        }
        agenda
    }

    /// When the next question is due.
    pub fn due_at(&self) -> Option<Instant> {
        self.items.iter().filter_map(|item| item.due).min()
    }

    /// The question that is due at `now`, the longest waiting first. It is due again only after one of the answers.
    pub fn next_due(&self, now: Instant) -> Option<Question> {
        let due = self.items.iter().filter(|item| item.due.is_some_and(|due| due <= now));
        due.min_by_key(|item| item.due).map(|item| item.question)
    }

    /// The question was answered, or refused for the moment.
    pub fn answered(&mut self, question: Question, now: Instant) {
        if let Some(item) = self.item(question) {
            item.deaths = 0;
            item.due = item.every.map(|every| now + every + std::mem::take(&mut item.phase));
        }
    }

    /// The plug does not know the question.
    pub fn unknown(&mut self, question: Question) {
        if let Some(item) = self.item(question) {
            item.due = None;
            item.deaths = DEADLY;
        }
    }

    /// The plug was lost over the question. True when it is left alone from now on.
    pub fn lost(&mut self, question: Question, now: Instant) -> bool {
        let Some(item) = self.item(question) else { return false };
        item.deaths = item.deaths.saturating_add(1);
        let deadly = item.deaths >= DEADLY;
        item.due = Some(now + if deadly { WEEK } else { item.every.unwrap_or(FIRST_APART) });
        deadly
    }

    /// Ask at `at`, or earlier if it is due earlier. Only a timer's question is new to an agenda.
    pub fn hasten(&mut self, question: Question, at: Instant) {
        if let Some(item) = self.item(question) {
            // What the plug does not know or survive is in no hurry.
            if item.deaths < DEADLY {
                item.due = Some(item.due.map_or(at, |due| due.min(at)));
            }
        } else if matches!(question, Question::Timer(_)) {
            self.items.push(Item { question, every: None, phase: Duration::ZERO, due: Some(at), deaths: 0 });
        }
    }

    /// Nothing is asked before `moment`: the plug restarts.
    pub fn rest_until(&mut self, moment: Instant) {
        for item in &mut self.items {
            item.due = item.due.map(|due| due.max(moment));
        }
    }

    fn item(&mut self, question: Question) -> Option<&mut Item> {
        self.items.iter_mut().find(|item| item.question == question)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sysinfo::tests::{EP10_G3, STRIP, hs110, parse};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Runs an agenda for `span` with answers that take no time; what was asked at which second.
    fn asked(mut agenda: Agenda, start: Instant, span: Duration) -> Vec<(f64, Question)> {
        let mut asked = vec![];
        while let Some(due) = agenda.due_at().filter(|due| *due <= start + span) {
            let question = agenda.next_due(due).unwrap();
            asked.push((due.duration_since(start).as_secs_f64(), question));
            agenda.answered(question, due);
        }
        asked
    }

    fn count(asked: &[(f64, Question)], is: impl Fn(Question) -> bool) -> usize {
        asked.iter().filter(|(_, question)| is(*question)).count()
    }

    #[test]
    fn a_strips_outlets_are_asked_one_at_a_time_and_spread_over_the_interval() {
        let start = Instant::now();
        let strip = parse(STRIP).unwrap();
        let asked = asked(Agenda::new(&strip, true, MINUTE, start), start, 10 * MINUTE);
        let energy = |outlet| -> Vec<f64> {
            let of_outlet = asked.iter().filter(|(_, question)| *question == Question::Energy(outlet));
            of_outlet.map(|(at, _)| *at).collect()
        };
        assert_eq!(energy(0)[..4], [0.0, 60.0, 120.0, 180.0]);
        assert_eq!(energy(1)[..4], [1.0, 90.0, 150.0, 210.0], "half an interval apart, once started");
        assert_eq!(count(&asked, |question| question == Question::Statistics(0)), 2, "rarely: {asked:?}");
        assert_eq!(count(&asked, |question| matches!(question, Question::Motion | Question::NextAction)), 0);
        let mut moments: Vec<f64> = asked.iter().map(|(at, _)| *at).collect();
        moments.dedup();
        assert_eq!(moments.len(), asked.len(), "no two at once");
    }

    #[test]
    fn a_plug_is_asked_for_what_it_has() {
        let start = Instant::now();
        let plain = asked(Agenda::new(&parse(EP10_G3).unwrap(), true, MINUTE, start), start, MINUTE);
        assert_eq!(plain, [(0.25, Question::Cloud), (0.5, Question::Clock)]);
        let old = asked(Agenda::new(&hs110(), false, MINUTE, start), start, MINUTE);
        assert_eq!(count(&old, |question| question == Question::NextAction), 1);
        assert_eq!(count(&old, |question| question == Question::Statistics(0)), 1);
        assert_eq!(count(&old, |question| matches!(question, Question::Energy(_))), 0, "each poll asks");
    }

    #[test]
    fn what_a_plug_does_not_know_or_survive_is_not_asked_again() {
        let start = Instant::now();
        let mut agenda = Agenda::new(&parse(EP10_G3).unwrap(), true, MINUTE, start);
        agenda.unknown(Question::Cloud);
        assert!(!agenda.lost(Question::Clock, start), "once may be chance");
        assert_eq!(agenda.due_at(), Some(start + 5 * MINUTE));
        assert!(agenda.lost(Question::Clock, start));
        agenda.hasten(Question::Clock, start);
        assert_eq!(agenda.due_at(), Some(start + WEEK));
        agenda.hasten(Question::Timer(0), start + MINUTE);
        assert_eq!(agenda.next_due(start + MINUTE), Some(Question::Timer(0)));
        agenda.answered(Question::Timer(0), start + MINUTE);
        assert_eq!(agenda.due_at(), Some(start + WEEK), "a timer is asked for when there is reason to");
    }
}
