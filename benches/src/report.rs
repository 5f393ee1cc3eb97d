//! The results: a table for people, the same as JSON, and the comparison of the ratios with a committed file.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// The share by which a ratio may be worse than the committed one; more fails `bench-check`.
const TOLERANCE: f64 = 0.2;

/// The cases of a run, in the order in which they were measured.
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
    /// By wall-clock time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_per_row: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peak_mib: Option<f64>,
    /// What the product is compared with, as text for people.
    pub(crate) floor: String,
    pub(crate) ratio: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Target>,
}

/// The ratio that the project aims for.
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

    /// Whether a ratio is worse than the one before by more than the tolerance. NaN counts as worse.
    fn is_worse(self, ratio: f64, before: f64) -> bool {
        !match self {
            Self::AtLeast(_) => ratio >= before * (1.0 - TOLERANCE),
            Self::AtMost(_) => ratio <= before * (1.0 + TOLERANCE),
        }
    }
}

impl Report {
    /// Adds a case and prints it at once, because a run takes minutes.
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
        let with_target = self.cases.iter().filter(|case| case.target.is_some()).count();
        let met = self.cases.iter().filter(|case| case.is_met() == Some(true)).count();
        text.push_str(&format!("{met} of {with_target} targets met\n"));
        text
    }

    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Compares the ratios of all cases that have a target with those of an earlier run.
    pub(crate) fn compare(&self, before: &Self) -> Comparison {
        let mut compared = Comparison::default();
        for old in &before.cases {
            let Some(target) = old.target else { continue };
            match self.cases.iter().find(|case| case.is_same(old)) {
                None => compared.missing.push(old.name.clone()),
                Some(case) if target.is_worse(case.ratio, old.ratio) => {
                    compared.worse.push(format!("{}: {:.2}, and was {:.2}", old.name, case.ratio, old.ratio));
                }
                Some(_) => {}
            }
        }
        let with_target = self.cases.iter().filter(|case| case.target.is_some());
        let new = with_target.filter(|case| !before.cases.iter().any(|old| case.is_same(old)));
        compared.new.extend(new.map(|case| case.name.clone()));
        compared
    }
}

/// How a run differs from an earlier one. All lists name cases.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// The ratio is worse by more than the tolerance.
    pub(crate) worse: Vec<String>,
    /// Measured in the earlier run only.
    pub(crate) missing: Vec<String>,
    /// Measured in this run only.
    pub(crate) new: Vec<String>,
}

const HEADER: &str = "case                                              rows/s  CPU us/row  peak MiB  compared with              ratio  target  met";

impl Case {
    /// A case is identified by its name and its number of rows.
    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.rows == other.rows
    }

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
        let before = report(&[("speed", 0.9, least), ("size", 1.0, most), ("aside", 1.0, None)]);
        let fine = report(&[("speed", 0.73, least), ("size", 1.19, most)]);
        assert_eq!(fine.compare(&before), Comparison::default());
        let worse = report(&[("speed", 0.71, least), ("size", 1.21, most), ("aside", 9.0, None)]);
        assert_eq!(worse.compare(&before).worse, ["speed: 0.71, and was 0.90", "size: 1.21, and was 1.00"]);
        let broken = report(&[("speed", f64::NAN, least), ("size", f64::NAN, most)]);
        assert_eq!(broken.compare(&before).worse.len(), 2);
    }

    #[test]
    fn what_cannot_be_compared_is_named() {
        let most = Some(Target::AtMost(1.3));
        let before = report(&[("gone", 1.0, most), ("size", 1.0, most), ("aside", 1.0, None)]);
        let mut now = report(&[("size", 1.0, most), ("more", 1.0, most), ("beside", 1.0, None)]);
        let compared = now.compare(&before);
        assert_eq!((compared.missing, compared.new), (vec!["gone".to_owned()], vec!["more".to_owned()]));
        now.cases[0].rows = Some(7);
        assert_eq!(now.compare(&before).missing, ["gone", "size"]);
    }

    #[test]
    fn a_target_has_a_direction() {
        assert!(Target::AtLeast(0.85).is_met(0.85) && !Target::AtLeast(0.85).is_met(0.84));
        assert!(Target::AtMost(1.3).is_met(1.3) && !Target::AtMost(1.3).is_met(1.31));
    }
}
