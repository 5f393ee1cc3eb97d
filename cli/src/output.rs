//! All output of the command. No other module prints.
//!
//! Results (tables, paths, the `Done.` line, JSON) go to standard output; what a person reads while waiting goes to standard
//! error: a progress bar on a terminal, plain lines otherwise.
//!
//! A reader may close its end of a pipe early (`packshot check shoes.csv | head`). That ends the output and never the command:
//! the work goes on, and the exit status is the same as without the pipe. Other errors of standard output are errors of the
//! command, because its result is lost. Errors of standard error are ignored: there is no other place to report them.

use std::{
    fmt::{self, Display, Write as _},
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// How often a plain line of progress is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);
const BAR: &str = "{bar:30} {pos}/{len} rows  {elapsed} elapsed, {eta} left  {msg}";

/// Standard output cannot be written, for another reason than a closed pipe.
#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}")]
pub(crate) struct OutputError(#[from] io::Error);

/// Prints a result.
pub(crate) fn print(text: impl Display) -> Result<(), OutputError> {
    print_to(&mut stdout(), &text)
}

fn print_to(output: &mut impl Write, text: &impl Display) -> Result<(), OutputError> {
    match output.write_all(line(text).as_bytes()).and_then(|()| output.flush()) {
        Err(error) if is_closed(&error) => Ok(()),
        written => Ok(written?),
    }
}

/// Standard output, for results that do not fit into memory. The caller stops where [`is_closed`] says so.
pub(crate) fn stdout() -> impl Write {
    io::stdout().lock()
}

/// The reader has closed the pipe: it needs no more output.
pub(crate) fn is_closed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Tells the user something, on standard error.
pub(crate) fn say(text: impl Display) {
    let _ = io::stderr().write_all(line(&text).as_bytes());
}

/// With a newline at its end.
fn line(text: &impl Display) -> String {
    let mut text = text.to_string();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Sends the log to standard error.
pub(crate) fn start_log(verbose: bool) {
    let level = if verbose { tracing::Level::DEBUG } else { tracing::Level::ERROR };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false)
        // It would panic if standard error is closed.
        .log_internal_errors(false)
        .init();
}

/// Shows on standard error how many rows have ended.
pub(crate) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    last_line: Option<Instant>,
}

impl Progress {
    /// Shows nothing before the first update.
    pub(crate) fn new() -> Self {
        let terminal = io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Self { bar, terminal, last_line: None }
    }

    /// Prints a line above the bar.
    pub(crate) fn say(&self, text: impl Display) {
        self.bar.suspend(|| say(text));
    }

    /// `done` of `rows` rows have ended.
    pub(crate) fn update(&mut self, done: u64, rows: u64, note: &str) {
        self.bar.set_length(rows);
        self.bar.set_position(done);
        self.bar.set_message(note.to_owned());
        let due = self.last_line.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if !self.terminal && due && done < rows {
            self.last_line = Some(Instant::now());
            let separator = if note.is_empty() { "" } else { ", " };
            say(format_args!("{done}/{rows} rows{separator}{note}"));
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Named values under a title, one a line.
pub(crate) struct Fields(String);

impl Fields {
    pub(crate) fn new(title: impl Display) -> Self {
        Self(format!("{title}\n"))
    }

    pub(crate) fn add(&mut self, name: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {name:<10} {value}");
    }
}

impl Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lines of cells, aligned to columns; from column `numbers` on they are aligned to the right.
pub(crate) fn table<const N: usize>(lines: &[[String; N]], numbers: usize) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).enumerate();
        let padded = cells.map(
            |(column, (cell, width))| {
                if column < numbers { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            },
        );
        text.push_str(&padded.collect::<Vec<_>>().join("  "));
        text.push('\n');
    }
    text
}

/// The first line of a text that may have many.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        print_to(&mut Failing(io::ErrorKind::BrokenPipe), &"text").unwrap();
        let error = print_to(&mut Failing(io::ErrorKind::StorageFull), &"text").unwrap_err();
        assert!(error.to_string().starts_with("standard output: "), "{error}");
    }

    #[test]
    fn every_text_ends_its_line_once() {
        let mut written = Vec::new();
        print_to(&mut written, &"one").unwrap();
        print_to(&mut written, &"two\n").unwrap();
        assert_eq!(written, b"one\ntwo\n");
    }

    #[test]
    fn columns_of_a_table_are_aligned() {
        let lines = [["NAME", "ROWS"], ["größe", "7"]].map(|line| line.map(str::to_owned));
        assert_eq!(table(&lines, 1), "NAME   ROWS\ngröße     7\n");
    }
}
