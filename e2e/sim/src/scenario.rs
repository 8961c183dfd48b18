//! A world as text: its seed, its size and what goes wrong. What a seed draws, and what is left of it once it was made as
//! small as it can be.

use millrace_e2e::rng::Rng;

use crate::faults::Faults;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenario {
    pub seed: u64,
    pub nodes: u64,
    pub events: u64,
    /// Ticks with faults, and then at most so many until all is well.
    pub ticks: u64,
    pub heals_within: u64,
    pub faults: Faults,
}

/// A line that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{text}` is not a name and a number; names: {}", names().join(", "))]
pub struct NotAScenario {
    pub line: usize,
    pub text: String,
}

fn names() -> Vec<&'static str> {
    Scenario::default().fields().into_iter().map(|(name, _)| name).collect()
}

impl Scenario {
    pub fn drawn(seed: u64) -> Self {
        let faults = Faults::draw(&mut Rng::new(seed));
        Self { seed, nodes: 3, events: 300, ticks: 1_500, heals_within: 3_000, faults }
    }

    /// The same events, and nothing goes wrong.
    pub fn undisturbed(&self) -> Self {
        Self { nodes: 1, faults: Faults::none(), ..self.clone() }
    }

    fn fields(&mut self) -> Vec<(&'static str, &mut u64)> {
        let size = [
            ("seed", &mut self.seed),
            ("nodes", &mut self.nodes),
            ("events", &mut self.events),
            ("ticks", &mut self.ticks),
            ("heals_within", &mut self.heals_within),
        ];
        size.into_iter().chain(self.faults.fields()).collect()
    }

    /// A line for each number that is not 0.
    pub fn to_text(&self) -> String {
        let mut own = self.clone();
        let lines = own.fields().into_iter().filter(|(_, value)| **value != 0);
        lines.map(|(name, value)| format!("{name} {value}\n")).collect()
    }

    /// Lines that begin with `#` are for people.
    pub fn from_text(text: &str) -> Result<Self, NotAScenario> {
        let mut scenario = Self::default();
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        for (n, line) in lines {
            let wrong = || NotAScenario { line: n + 1, text: line.to_owned() };
            let (name, value) = line.split_once(' ').ok_or_else(wrong)?;
            let value: u64 = value.trim().parse().map_err(|_| wrong())?;
            let mut fields = scenario.fields();
            let (_, field) = fields.iter_mut().find(|(known, _)| *known == name).ok_or_else(wrong)?;
            **field = value;
        }
        Ok(scenario)
    }

    /// The smallest scenario found that still `fails`: without one fault after the other, then with fewer events, nodes and
    /// ticks, as long as anything helps (delta debugging: Zeller and Hildebrandt, 2002).
    pub fn minimized(&self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut least = self.clone();
        loop {
            let before = least.clone();
            for smaller in least.clone().smaller() {
                if fails(&smaller) {
                    least = smaller;
                    break;
                }
            }
            if least == before {
                return least;
            }
        }
    }

    fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let mut own = self.clone();
        for n in 0..own.faults.fields().len() {
            let mut without = self.clone();
            let mut fields = without.faults.fields();
            let (name, value) = &mut fields[n];
            // Something always takes a moment.
            let least = u64::from(*name == "delay_ticks");
            if **value > least {
                **value = least;
                all.push(without);
            }
        }
        let less = |value: u64, by: u64, least: u64| value.saturating_sub(by).max(least).min(value);
        all.push(Self { events: less(self.events, self.events / 2, 1), ..self.clone() });
        all.push(Self { events: less(self.events, self.events / 8, 1), ..self.clone() });
        all.push(Self { ticks: less(self.ticks, self.ticks / 2, 10), ..self.clone() });
        all.push(Self { ticks: less(self.ticks, self.ticks / 8, 10), ..self.clone() });
        all.push(Self { nodes: less(self.nodes, 1, 1), ..self.clone() });
        all.retain(|smaller| smaller != self);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_comes_back_from_its_text() {
        let drawn = Scenario::drawn(7);
        assert_eq!(Scenario::from_text(&format!("# seven\n\n{}", drawn.to_text())), Ok(drawn));
        let wrong = Scenario::from_text("seed 1\ncrashes 3\n").unwrap_err();
        assert_eq!((wrong.line, wrong.text.as_str()), (2, "crashes 3"));
        assert!(Scenario::from_text("seed one").is_err() && Scenario::from_text("seed").is_err());
    }

    #[test]
    fn only_what_matters_is_left() {
        let drawn = (1..).map(Scenario::drawn).find(|s| s.faults.crash > 0 && s.faults.pause > 0).unwrap();
        let least = drawn.minimized(|s| s.faults.crash > 0 && s.events >= 40);
        let faults = Faults { crash: drawn.faults.crash, delay_ticks: 1, ..Faults::default() };
        assert_eq!((least.faults, least.nodes, least.ticks), (faults, 1, 10));
        assert!((40..48).contains(&least.events), "{}", least.events);
    }
}
