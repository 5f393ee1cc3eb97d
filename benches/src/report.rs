//! The table, its JSON, and the comparison with the numbers that were committed.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::Outcome;

/// Worse than before by more than this is a failure of `bench-check`.
const TOLERANCE: f64 = 0.2;

/// All cases of a run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) cases: Vec<Case>,
}

/// One line of the table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows: Option<u64>,
    /// By the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_per_row: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peak_mib: Option<f64>,
    /// What ours is compared with, for people.
    pub(crate) floor: String,
    pub(crate) ratio: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Target>,
}

/// What the ratio should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }

    /// Whether a ratio is worse than the one before by more than is chance.
    fn is_worse(self, ratio: f64, before: f64) -> bool {
        match self {
            Self::AtLeast(_) => ratio < before * (1.0 - TOLERANCE),
            Self::AtMost(_) => ratio > before * (1.0 + TOLERANCE),
        }
    }
}

impl Report {
    /// Adds a case and shows it at once: the whole takes minutes.
    pub(crate) fn add(&mut self, case: Case) {
        eprintln!("{}", case.line());
        self.cases.push(case);
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for case in &self.cases {
            text.push_str(&case.line());
            text.push('\n');
        }
        let aimed = self.cases.iter().filter(|case| case.target.is_some()).count();
        let met = self.cases.iter().filter(|case| case.is_met() == Some(true)).count();
        text.push_str(&format!("{met} of {aimed} targets met\n"));
        text
    }

    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// The cases whose ratio is worse than in `before`, and those that are not there any more.
    pub(crate) fn worse_than(&self, before: &Self) -> Vec<String> {
        let mut worse = Vec::new();
        for old in before.cases.iter().filter(|old| old.target.is_some()) {
            match self.cases.iter().find(|case| case.name == old.name) {
                None => worse.push(format!("{}: not measured", old.name)),
                Some(case) if old.target.is_some_and(|target| target.is_worse(case.ratio, old.ratio)) => {
                    worse.push(format!("{}: {:.2}, and was {:.2}", old.name, case.ratio, old.ratio));
                }
                Some(_) => {}
            }
        }
        worse
    }
}

const HEADER: &str = "case                                              rows/s  CPU us/row  peak MiB  compared with              ratio  target  met";

impl Case {
    fn is_met(&self) -> Option<bool> {
        self.target.map(|target| target.is_met(self.ratio))
    }

    fn line(&self) -> String {
        let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        let target = match self.target {
            Some(Target::AtLeast(least)) => format!(">= {least}"),
            Some(Target::AtMost(most)) => format!("<= {most}"),
            None => "-".into(),
        };
        let met = match self.is_met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        format!(
            "{:<46}{:>10}{:>12}{:>10}  {:<24}{:>8.2}  {target:<7} {met}",
            self.name,
            number(self.rows_per_second, 0),
            number(self.cpu_us_per_row, 1),
            number(self.peak_mib, 1),
            self.floor,
            self.ratio,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(cases: &[(&str, f64, Option<Target>)]) -> Report {
        let case =
            |&(name, ratio, target): &(&str, f64, _)| Case { name: name.into(), ratio, target, ..Case::default() };
        Report { cases: cases.iter().map(case).collect() }
    }

    #[test]
    fn what_got_worse_is_named() {
        let (least, most) = (Some(Target::AtLeast(0.85)), Some(Target::AtMost(1.3)));
        let before = report(&[("speed", 0.9, least), ("size", 1.0, most), ("gone", 1.0, most), ("aside", 1.0, None)]);
        let fine = report(&[("speed", 0.73, least), ("size", 1.19, most), ("gone", 0.1, most)]);
        assert!(fine.worse_than(&before).is_empty());
        let worse = report(&[("speed", 0.71, least), ("size", 1.21, most), ("aside", 9.0, None)]);
        assert_eq!(
            worse.worse_than(&before),
            ["speed: 0.71, and was 0.90", "size: 1.21, and was 1.00", "gone: not measured"]
        );
    }

    #[test]
    fn a_target_has_a_direction() {
        assert!(Target::AtLeast(0.85).is_met(0.85) && !Target::AtLeast(0.85).is_met(0.84));
        assert!(Target::AtMost(1.3).is_met(1.3) && !Target::AtMost(1.3).is_met(1.31));
    }
}
