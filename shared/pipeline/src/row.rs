//! From a record to a request, or to the reason why not.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use hashbrown::HashTable;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    columns::{Column, Columns},
    intake::Record,
    job::NotACatalog,
    message::{MAX_ROW_BYTES, worst_case_bytes},
    prompt::{Prompt, PromptFields},
    request::Request,
    settings::Defaults,
    spreadsheet,
};

/// A row that will be generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Canonical product key.
    pub sku: String,
    /// The complete API request.
    pub request: Request,
}

/// A row that will not, and why. Becomes a failed result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The SKU as far as it could be read.
    pub sku: String,
    /// A word for machines.
    pub code: &'static str,
    /// Line, column, what is wrong and what to do.
    pub message: String,
}

/// Judges the rows of one catalog, in order. Remembers every SKU, nothing else.
pub struct Validator {
    columns: Columns,
    defaults: Defaults,
    prompt: Prompt,
    /// The product of the row before, where rows may go on with it.
    product: String,
    seen: Seen,
}

/// The first row of every SKU. A plain map of these would take up to 60 bytes a row, and half as much again whenever it
/// grows; this takes 24 for what is known of a row and 6 to 12 for finding it.
#[derive(Default)]
struct Seen {
    firsts: Vec<First>,
    /// Where in `firsts` a SKU stands.
    places: HashTable<u32>,
}

/// The first row with a SKU.
struct First {
    sku: SkuHash,
    /// Line numbers beyond 32 bits are reported as the last one; the row limit comes first.
    line: u32,
    /// Only tells "again the same" from "another": a false "same" costs nothing, since each row keeps its fingerprint.
    request: [u8; 8],
}

/// 96 bits of SHA-256. Were two SKUs alike in them, the second row would be rejected as a repetition of the first; among
/// ten million SKUs that happens by chance once in 10^15 files.
type SkuHash = [u8; 12];

impl Seen {
    /// The line of an earlier row with this SKU and another request.
    fn first_other(&mut self, sku: &str, request: &Request, line: u64) -> Option<u32> {
        let mut hasher = DefaultHasher::new();
        request.hash(&mut hasher);
        let request = hasher.finish().to_le_bytes();
        let mut hash = SkuHash::default();
        let length = hash.len();
        hash.copy_from_slice(&Sha256::digest(sku)[..length]);
        let Self { firsts, places } = self;
        if let Some(&place) = places.find(slot(&hash), |&place| firsts[place as usize].sku == hash) {
            let first = &firsts[place as usize];
            return (first.request != request).then_some(first.line);
        }
        places.insert_unique(slot(&hash), firsts.len() as u32, |&place| slot(&firsts[place as usize].sku));
        firsts.push(First { sku: hash, line: u32::try_from(line).unwrap_or(u32::MAX), request });
        None
    }
}

/// A hash needs no hashing.
fn slot(sku: &SkuHash) -> u64 {
    sku.iter().take(8).fold(0, |slot, &byte| slot << 8 | u64::from(byte))
}

impl Validator {
    /// Begins a catalog with its header.
    pub fn new(columns: Columns, defaults: Defaults) -> Result<Self, NotACatalog> {
        let prompt = Prompt::new(defaults.prompt_template.as_deref())
            .map_err(|error| NotACatalog::new("template_error", error.to_string()))?;
        Ok(Self { columns, defaults, prompt, product: String::new(), seen: Seen::default() })
    }

    /// The header.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Whether the next record only goes on with the product above (another variant, another picture). Such a record is
    /// no row: it is neither numbered nor judged.
    pub fn continues(&mut self, record: &Record<'_>) -> bool {
        self.columns.continues(record, &mut self.product)
    }

    /// Judges the next row. The outer error ends the file: a prompt template that fails on a row fails on the job.
    pub fn judge(&mut self, record: &Record<'_>) -> Result<Result<Accepted, Rejected>, NotACatalog> {
        let sku = self.columns.get(record, Column::Sku);
        let reject = |code, column: Option<Column>, what: String| {
            let column = column.map(|c| format!(", column {}", self.columns.called(c))).unwrap_or_default();
            let message = format!("line {}{column}: {what}", record.line);
            Ok(Err(Rejected { sku: sku.to_owned(), code, message }))
        };

        let (found, expected) = (record.len(), self.columns.names.len());
        let spans = || match record.last_line() {
            last if last > record.line => format!(" (the row goes on to line {last}: is a quotation mark not closed?)"),
            _ => String::new(),
        };
        if record.stray_quote {
            let what = format!(
                "text follows a closing quotation mark{}; write quotation marks inside a quoted field twice (\"\")",
                spans()
            );
            return reject("stray_quote", None, what);
        }
        if found != expected {
            let what = format!(
                "{found} fields where the header has {expected}{}; {}",
                spans(),
                if found < expected {
                    "add the missing ones"
                } else {
                    "put fields that contain the delimiter into quotation marks"
                }
            );
            return reject("field_count", None, what);
        }
        for column in Column::REQUIRED {
            if self.columns.get(record, column).is_empty() {
                return reject("empty_field", Some(column), "empty; every product needs one".into());
            }
        }
        if let Err((code, what)) = check_sku(sku) {
            return reject(code, Some(Column::Sku), what);
        }
        for column in Column::ALL.into_iter().filter(|_| !record.is_plain()) {
            if let Some(control) = self.columns.get(record, column).chars().find(is_forbidden) {
                let what = format!("has a control character (U+{:04X}); remove it", u32::from(control));
                return reject("control_character", Some(column), what);
            }
        }
        let image_url = self.columns.get(record, Column::ImageUrl);
        if let Err(what) = check_image_url(image_url) {
            return reject("invalid_image_url", Some(Column::ImageUrl), what.into());
        }
        let n = match self.columns.get(record, Column::N) {
            "" => self.defaults.n,
            text => match text.parse() {
                Ok(n @ 1..=4) => n,
                _ => return reject("invalid_n", Some(Column::N), format!("`{}` is not 1, 2, 3 or 4", excerpt(text))),
            },
        };
        let request = self.request(record, n, image_url)?;
        if worst_case_bytes(record, &self.columns.names, &request) > MAX_ROW_BYTES {
            return reject("row_too_large", None, "the row is too large for a queue message; shorten its texts".into());
        }
        if let Some(line) = self.seen.first_other(sku, &request, record.line) {
            return reject(
                "duplicate_sku",
                Some(Column::Sku),
                format!("`{}` stands in line {line} already, with another request; keep one of them", excerpt(sku)),
            );
        }
        Ok(Ok(Accepted { sku: sku.to_owned(), request }))
    }

    fn request(&self, record: &Record<'_>, n: u8, image_url: &str) -> Result<Request, NotACatalog> {
        let get = |column| self.columns.get(record, column);
        let or = |column, default: &str| Some(get(column)).filter(|f| !f.is_empty()).unwrap_or(default).to_owned();
        let optional = |column, default: Option<&String>| {
            Some(get(column)).filter(|f| !f.is_empty()).map(str::to_owned).or_else(|| default.cloned())
        };
        let prompt = match get(Column::Prompt) {
            "" => {
                let fields = PromptFields {
                    title: get(Column::Title),
                    brand: get(Column::Brand),
                    style_tags: get(Column::StyleTags),
                };
                let columns = self.columns.names.iter().map(String::as_str).zip(self.columns.fields(record));
                self.prompt
                    .render(fields, columns)
                    .map_err(|error| NotACatalog::new("template_error", error.to_string()).on(record.line))?
            }
            prompt => prompt.to_owned(),
        };
        Ok(Request {
            model: or(Column::Model, &self.defaults.model),
            prompt,
            image_url: image_url.to_owned(),
            size: or(Column::Size, &self.defaults.size),
            quality: or(Column::Quality, &self.defaults.quality),
            n,
            background: optional(Column::Background, self.defaults.background.as_ref()),
            // Both, so that a new revision for the whole file also renews the rows that name their own.
            revision: match (self.defaults.revision.as_deref(), get(Column::Revision)) {
                (default, "") => default.map(str::to_owned),
                (None, own) => Some(own.to_owned()),
                (Some(default), own) => Some(format!("{default}/{own}")),
            },
        })
    }
}

/// The original columns of a row, for `failed.csv` and whoever looks at a message. Fields beyond the header get numbers.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    columns: &'a Columns,
    record: Record<'a>,
}

impl<'a> Input<'a> {
    /// Those of a record.
    #[must_use]
    pub fn of(columns: &'a Columns, record: Record<'a>) -> Self {
        Self { columns, record }
    }

    fn pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, &'a str)> {
        let names = self.columns.names.iter().map(|name| Cow::Borrowed(name.as_str()));
        let beyond = (self.columns.names.len() + 1..).map(|n| Cow::Owned(format!("(field {n})")));
        names.chain(beyond).zip(self.columns.fields(&self.record))
    }

    /// As a result keeps them.
    #[must_use]
    pub fn to_map(self) -> Map<String, Value> {
        self.pairs().map(|(name, field)| (name.into_owned(), Value::from(field))).collect()
    }
}

impl Serialize for Input<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.pairs())
    }
}

/// Line ends and tabs are text; no program means the others.
fn is_forbidden(c: &char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\r' | '\n')
}

/// A SKU is taken as it is or not at all: two that differ in case or in the form of an accent are two.
fn check_sku(sku: &str) -> Result<(), (&'static str, String)> {
    if let Some(c) = sku.chars().find(|&c| c.is_control() || is_deceptive(c)) {
        return Err((
            "invalid_sku",
            format!("has a character that cannot be seen (U+{:04X}); remove it", u32::from(c)),
        ));
    }
    if spreadsheet::is_defused(sku) {
        return Err((
            "invalid_sku",
            "begins with an apostrophe that keeps spreadsheets from running it; remove it".into(),
        ));
    }
    if is_mangled(sku) {
        let what = format!(
            "`{sku}` is what a spreadsheet makes of a long number or of a formula that fails; format the column as text, \
             enter the SKU again, and export it again"
        );
        return Err(("mangled_sku", what));
    }
    Ok(())
}

/// Has no width, turns the reading direction of what stands around it, or is no character at all. The joiners are not
/// among them: scripts and emoji need them.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// `1.23457E+12`, as Excel shows and saves what had more digits; `#N/A`, `#REF!`.
fn is_mangled(sku: &str) -> bool {
    const ERRORS: [&str; 7] = ["#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!"];
    let number = sku.split_once('E').and_then(|(mantissa, exponent)| Some((mantissa, exponent.strip_prefix('+')?)));
    let Some((mantissa, exponent)) = number else { return ERRORS.contains(&sku) };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, ""));
    whole.len() == 1 && digits(whole) && digits(fraction) && (2..=3).contains(&exponent.len()) && digits(exponent)
}

fn check_image_url(url: &str) -> Result<(), &'static str> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("not an http(s) address; it must begin with https://");
    };
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return Err("not an http(s) address; it must begin with https://");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.is_empty() {
        return Err("an address without a host; write the whole address");
    }
    if authority.contains('@') {
        return Err("carries a user name or password; use an address that needs none");
    }
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("contains white space; write %20 instead");
    }
    Ok(())
}

/// The beginning of a text, for messages.
fn excerpt(text: &str) -> String {
    let mut chars = text.chars();
    let mut start: String = chars.by_ref().take(60).collect();
    if chars.next().is_some() {
        start.push('…');
    }
    start
}
