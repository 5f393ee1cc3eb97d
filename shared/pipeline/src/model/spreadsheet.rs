//! Protects CSV files against formula injection: spreadsheets execute cells that begin like a formula.
//!
//! Every CSV that packshot writes has such cells prefixed with an apostrophe ([`defuse`]). A `failed.csv` that is read as a
//! catalog again has exactly that undone ([`restore`]).

use std::borrow::Cow;

/// The columns that `failed.csv` adds to the catalog's own. A file that has both is a `failed.csv`.
pub const ERROR_COLUMNS: [&str; 2] = ["error_code", "error"];

/// Whether a spreadsheet would execute the cell. Cells that already look defused count too; otherwise [`restore`] could not
/// tell packshot's apostrophe from the author's.
fn is_risky(cell: &str) -> bool {
    cell.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// Makes a cell safe: no spreadsheet executes it.
#[must_use]
pub fn defuse(cell: &str) -> Cow<'_, str> {
    if is_risky(cell) { Cow::Owned(format!("'{cell}")) } else { Cow::Borrowed(cell) }
}

/// Undoes [`defuse`].
#[must_use]
pub fn restore(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|rest| is_risky(rest)).unwrap_or(cell)
}

/// Whether a cell looks like an output of [`defuse`].
#[must_use]
pub fn is_defused(cell: &str) -> bool {
    cell.starts_with('\'') && is_risky(cell)
}

/// Whether a file with these columns is a `failed.csv` of packshot.
#[must_use]
pub fn is_failed_csv<T: AsRef<str>>(columns: &[T]) -> bool {
    ERROR_COLUMNS.iter().all(|name| columns.iter().any(|column| column.as_ref() == *name))
}

/// The catalog's own columns. Without this filter, a `failed.csv` that is uploaded again and fails again would grow.
pub fn own_columns(columns: &[String]) -> impl Iterator<Item = &str> {
    let ours = is_failed_csv(columns);
    columns.iter().map(String::as_str).filter(move |name| !ours || !ERROR_COLUMNS.contains(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formulas_are_defused() {
        for (cell, defused) in [
            ("=HYPERLINK(\"https://evil.example\")", "'=HYPERLINK(\"https://evil.example\")"),
            ("+49 30 1234", "'+49 30 1234"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("'=1", "''=1"),
            ("it's", "it's"),
            ("'quoted'", "'quoted'"),
            ("", ""),
        ] {
            assert_eq!(defuse(cell), defused);
            assert_eq!(is_defused(defused), cell != defused, "{defused}");
        }
    }

    #[test]
    fn a_failed_csv_that_fails_again_does_not_grow() {
        let columns = ["sku", "title", "error_code", "error"].map(str::to_owned);
        assert_eq!(own_columns(&columns).collect::<Vec<_>>(), ["sku", "title"]);
        let columns = ["sku", "error"].map(str::to_owned);
        assert_eq!(own_columns(&columns).collect::<Vec<_>>(), ["sku", "error"]);
    }

    proptest! {
        #[test]
        fn undoing_is_exact(cell in "['=+@\t\ra-]{0,6}.{0,3}") {
            let defused = defuse(&cell);
            prop_assert_eq!(restore(&defused), &cell);
        }
    }
}
