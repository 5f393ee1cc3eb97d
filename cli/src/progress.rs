//! How far a run is: a bar on a terminal, plain lines otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on standard error.
pub struct Progress {
    bar: ProgressBar,
    terminal: bool,
    last_line: Option<Instant>,
}

impl Progress {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Self {
        let terminal = console_is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            let style = "{bar:30} {pos}/{len} rows  {elapsed} gone, {eta} to go  {msg}";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Self { bar, terminal, last_line: None }
    }

    /// Prints a sentence beside the bar.
    pub fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// `done` of `rows` rows have ended.
    pub fn update(&mut self, done: u64, rows: u64, note: &str) {
        self.bar.set_length(rows);
        self.bar.set_position(done);
        self.bar.set_message(note.to_owned());
        let due = self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if !self.terminal && due && done < rows {
            self.last_line = Some(Instant::now());
            eprintln!("{done}/{rows} rows{}{note}", if note.is_empty() { "" } else { ", " });
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

fn console_is_terminal() -> bool {
    use std::io::IsTerminal as _;
    std::io::stderr().is_terminal()
}
