//! What was measured, as a table that can be pasted into docs/performance.md.

use std::fmt;
use std::time::Duration;

/// One row.
pub struct Row {
    figure: String,
    measured: String,
    compared: String,
    goal: String,
}

/// Rows in the order in which they came.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// A figure, what it is compared with in the same run (or nothing), and what it ought to be.
    pub fn row(
        &mut self,
        figure: impl Into<String>,
        measured: impl Into<String>,
        compared: impl Into<String>,
        goal: impl Into<String>,
    ) {
        let row = Row {
            figure: figure.into(),
            measured: measured.into(),
            compared: compared.into(),
            goal: goal.into(),
        };
        // At once, for whoever waits.
        eprintln!("{row}");
        self.rows.push(row);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "| {} | {} | {} | {} |", self.figure, self.measured, self.compared, self.goal)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "| figure | measured | against | goal |\n|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

/// The value below which this share of all lies.
pub fn percentile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort();
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

pub fn median(values: &[Duration]) -> Duration {
    percentile(values, 0.5)
}

pub fn ms(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1e3)
}

pub fn us(duration: Duration) -> String {
    format!("{:.1} µs", duration.as_secs_f64() * 1e6)
}

pub fn ratio(of: Duration, to: Duration) -> String {
    format!("{:.2} x", of.as_secs_f64() / to.as_secs_f64())
}
