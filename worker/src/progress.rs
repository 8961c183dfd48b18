//! The view of a run under way, on standard error: redrawn in place on a terminal, a line now and then elsewhere.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use millrace_engine::{
    event::Time,
    learn::{ModelSummary, Standing, drift::watch::DriftState, validation::Figures},
};

use crate::host::status::Totals;

/// Draws no more often than useful.
pub struct Progress {
    started: Instant,
    drawn: Instant,
    read_then: u64,
    lines: usize,
    terminal: bool,
}

const TERMINAL_EVERY: Duration = Duration::from_millis(500);
const PLAIN_EVERY: Duration = Duration::from_secs(5);

impl Progress {
    /// `read`: records that were read before, by earlier runs.
    pub fn start(read: u64) -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        Self { started: now, drawn: now, read_then: read, lines: 0, terminal }
    }

    /// Is it time to draw again?
    pub fn is_due(&self) -> bool {
        self.drawn.elapsed() >= if self.terminal { TERMINAL_EVERY } else { PLAIN_EVERY }
    }

    /// `more`: lines that come last.
    pub fn draw(&mut self, totals: &Totals, more: &[String]) {
        let seconds = self.drawn.elapsed().as_secs_f64().max(1e-3);
        let per_second = totals.read.saturating_sub(self.read_then) as f64 / seconds;
        (self.drawn, self.read_then) = (Instant::now(), totals.read);
        let mut view = render(totals, per_second, self.started.elapsed());
        view.extend(more.iter().map(|line| format!("       {line}")));
        let mut err = std::io::stderr().lock();
        let drawn = if self.terminal {
            let up = if self.lines > 0 { format!("\x1b[{}F\x1b[J", self.lines) } else { String::new() };
            self.lines = view.len();
            writeln!(err, "{up}{}", view.join("\n"))
        } else {
            writeln!(err, "{}", view.join(" | "))
        };
        let _ = drawn; // nobody looks
    }
}

/// An event time for people.
pub fn time(time: Time) -> String {
    match time {
        Time::MIN => "-".into(),
        Time(micros) => Timestamp::from_microsecond(micros).map_or("-".into(), |t| format!("{t:.0}")),
    }
}

/// A figure for people; `-` while there is none.
pub fn figure(figure: Option<f64>, digits: usize) -> String {
    figure.map_or("-".into(), |f| format!("{f:.digits$}"))
}

/// A model's validation in a line.
pub fn model(name: &str, m: &Figures) -> String {
    format!(
        "model {name}: {} examples, {} positive, log loss {} (base rate alone {}), AUC {}, calibration {}",
        m.examples,
        m.positives,
        figure(m.log_loss, 5),
        figure(m.base_log_loss, 5),
        figure(m.auc, 4),
        figure(m.calibration, 3)
    )
}

/// What is amiss with a model's predictions, and what serves instead; none if nothing is.
pub fn drift(name: &str, m: &ModelSummary) -> Option<String> {
    let report = m.drift.as_ref()?;
    let what = match report.state {
        DriftState::Predictions => "predictions drift",
        DriftState::Columns => "features drift",
        DriftState::Stable if m.standing == Standing::Trusted => return None,
        DriftState::Stable => "predictions drifted",
    };
    let since =
        report.alarms.last().map_or(String::new(), |alarm| format!(", at example {}: {alarm}", alarm.found.example));
    let serves = match m.standing {
        Standing::Trusted => "",
        Standing::FellBackToDefault => "; default content is shown",
        Standing::FellBackToPrevious => "; its weights of before serve",
    };
    Some(format!("model {name}: {what}{since}{serves}"))
}

/// The view, line by line.
fn render(t: &Totals, per_second: f64, elapsed: Duration) -> Vec<String> {
    let rejected: u64 = t.rejected.values().sum();
    let mut lines = vec![
        format!(
            "{:>4}s  {:>9} records  {:>8.0}/s  accepted {}  watermark {}  lag {}",
            elapsed.as_secs(),
            t.read,
            per_second,
            t.accepted,
            t.watermark.map_or("-".into(), time),
            t.lag
        ),
        format!(
            "       late {}  future {}  duplicate {}  unconsented {}  rejected {}{}",
            t.late,
            t.future,
            t.duplicate,
            t.unconsented,
            rejected,
            t.rejected.iter().map(|(reason, n)| format!("  {reason} {n}")).collect::<String>()
        ),
    ];
    for (name, m) in &t.models {
        lines.push(format!("       {}", model(name, &m.validation.total)));
        lines.extend(drift(name, m).map(|drift| format!("       {drift}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_names_what_went_wrong() {
        let mut totals =
            Totals { read: 10, late: 2, watermark: Some(Time(1_700_000_000_000_000)), ..Totals::default() };
        totals.rejected.insert("malformed", 3);
        let view = render(&totals, 5.0, Duration::from_secs(2)).join("\n");
        assert!(
            view.contains("2023-11-14T22:13:20Z") && view.contains("late 2") && view.contains("malformed 3"),
            "{view}"
        );
    }
}
