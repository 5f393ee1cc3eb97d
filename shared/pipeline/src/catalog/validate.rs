//! From a record to a request, or to the reason why not.

use std::{
    borrow::Cow,
    fmt::Display,
    hash::{BuildHasher as _, Hash},
};

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::{
    catalog::{
        columns::Columns,
        prompt::{Prompt, PromptFields},
        records::{Record, is_plain},
    },
    model::{
        catalog_error::NotACatalog, column::Column, defaults::Defaults, json, message::MAX_ROW_BYTES, request::Request,
        spreadsheet,
    },
};

/// A row and what is to be done with it. Borrowed, because this is what the splitter does millions of times, twice.
pub struct Judged<'a> {
    /// Its original columns.
    pub input: Input<'a>,
    /// Whether it will be generated.
    pub verdict: Result<Accepted<'a>, Rejected>,
}

/// A row that will be generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// Canonical product key.
    pub sku: &'a str,
    /// The complete API request.
    pub request: Request<Cow<'a, str>>,
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
    /// Where the prompt of the row at hand is written.
    text: String,
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

/// Were two SKUs alike in these 96 bits, the second row would be rejected as a repetition of the first; among ten million
/// SKUs that happens by chance once in 10^15 files.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SkuHash([u32; 3]);

impl SkuHash {
    fn of(sku: &str) -> Self {
        let (low, high) = (hash(0, sku), hash(1, sku));
        Self([low as u32, (low >> 32) as u32, high as u32])
    }

    /// A hash needs no hashing.
    fn slot(&self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }
}

/// The same in every process, so that whoever reads a file again judges it alike.
fn hash(seed: u64, value: &(impl Hash + ?Sized)) -> u64 {
    FixedState::with_seed(seed).hash_one(value)
}

impl Seen {
    /// The line of an earlier row with this SKU and another request.
    fn first_other(&mut self, sku: &str, request: &Request<Cow<'_, str>>, line: u64) -> Option<u32> {
        let (sku, request) = (SkuHash::of(sku), hash(0, request).to_le_bytes());
        let Self { firsts, places } = self;
        if let Some(&place) = places.find(sku.slot(), |&place| firsts[place as usize].sku == sku) {
            let first = &firsts[place as usize];
            return (first.request != request).then_some(first.line);
        }
        places.insert_unique(sku.slot(), firsts.len() as u32, |&place| firsts[place as usize].sku.slot());
        firsts.push(First { sku, line: u32::try_from(line).unwrap_or(u32::MAX), request });
        None
    }
}

impl Validator {
    /// Begins a catalog with its header.
    pub fn new(columns: Columns, defaults: Defaults) -> Result<Self, NotACatalog> {
        let prompt = Prompt::new(defaults.prompt_template.as_deref())
            .map_err(|error| NotACatalog::new("template_error", error.to_string()))?;
        Ok(Self { columns, defaults, prompt, product: String::new(), text: String::new(), seen: Seen::default() })
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

    /// Judges the next row. The error ends the file: a prompt template that fails on a row fails on the job.
    pub fn judge<'a>(&'a mut self, record: Record<'a>) -> Result<Judged<'a>, NotACatalog> {
        let Self { columns, defaults, prompt, text, seen, .. } = self;
        let row = Row { columns, record, sku: columns.get(&record, Column::Sku) };
        let verdict = match row.check(defaults) {
            Err(rejected) => Err(rejected),
            Ok(n) => {
                let request = row.request(n, defaults, row.prompt(prompt, text)?);
                row.check_among_others(&request, seen).map(|()| Accepted { sku: row.sku, request })
            }
        };
        Ok(Judged { input: Input { columns, record }, verdict })
    }
}

/// The row at hand.
struct Row<'a> {
    columns: &'a Columns,
    record: Record<'a>,
    sku: &'a str,
}

impl<'a> Row<'a> {
    fn get(&self, column: Column) -> &'a str {
        self.columns.get(&self.record, column)
    }

    fn reject(&self, code: &'static str, column: Option<Column>, what: impl Display) -> Rejected {
        let column = column.map(|c| format!(", column {}", self.columns.called(c))).unwrap_or_default();
        let message = format!("line {}{column}: {what}", self.record.line);
        Rejected { sku: self.sku.to_owned(), code, message }
    }

    /// What can be said of the row by itself; answers with its number of pictures.
    fn check(&self, defaults: &Defaults) -> Result<u8, Rejected> {
        self.check_shape()?;
        for column in Column::REQUIRED {
            if self.get(column).is_empty() {
                return Err(self.reject("empty_field", Some(column), "empty; every product needs one"));
            }
        }
        check_sku(self.sku).map_err(|(code, what)| self.reject(code, Some(Column::Sku), what))?;
        if self.record.may_hold_controls() {
            self.check_characters()?;
        }
        check_image_url(self.get(Column::ImageUrl))
            .map_err(|what| self.reject("invalid_image_url", Some(Column::ImageUrl), what))?;
        match self.get(Column::N) {
            "" => Ok(defaults.n),
            text => text.parse().ok().filter(|n| (1..=4).contains(n)).ok_or_else(|| {
                self.reject("invalid_n", Some(Column::N), format!("`{}` is not 1, 2, 3 or 4", excerpt(text)))
            }),
        }
    }

    fn check_shape(&self) -> Result<(), Rejected> {
        let (found, expected) = (self.record.len(), self.columns.names.len());
        let spans = || match self.record.last_line() {
            last if last > self.record.line => {
                format!(" (the row goes on to line {last}: is a quotation mark not closed?)")
            }
            _ => String::new(),
        };
        if self.record.stray_quote {
            let what = format!(
                "text follows a closing quotation mark{}; write quotation marks inside a quoted field twice (\"\")",
                spans()
            );
            return Err(self.reject("stray_quote", None, what));
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
            return Err(self.reject("field_count", None, what));
        }
        Ok(())
    }

    fn check_characters(&self) -> Result<(), Rejected> {
        for column in Column::ALL {
            if let Some(control) = self.get(column).chars().find(is_forbidden) {
                let what = format!("has a control character (U+{:04X}); remove it", u32::from(control));
                return Err(self.reject("control_character", Some(column), what));
            }
        }
        Ok(())
    }

    /// What can be said of it beside the rows before it, and beside a queue's limits.
    fn check_among_others(&self, request: &Request<Cow<'_, str>>, seen: &mut Seen) -> Result<(), Rejected> {
        if worst_case_bytes(&self.record, &self.columns.names, request) > MAX_ROW_BYTES {
            let what = "the row is too large for a queue message; shorten its texts";
            return Err(self.reject("row_too_large", None, what));
        }
        let Some(line) = seen.first_other(self.sku, request, self.record.line) else { return Ok(()) };
        let what =
            format!("`{}` stands in line {line} already, with another request; keep one of them", excerpt(self.sku));
        Err(self.reject("duplicate_sku", Some(Column::Sku), what))
    }

    fn prompt(&self, prompt: &Prompt, text: &'a mut String) -> Result<&'a str, NotACatalog> {
        let own = self.get(Column::Prompt);
        if !own.is_empty() {
            return Ok(own);
        }
        let fields = PromptFields {
            title: self.get(Column::Title),
            brand: self.get(Column::Brand),
            style_tags: self.get(Column::StyleTags),
        };
        let columns = self.columns.names.iter().map(String::as_str).zip(self.columns.fields(&self.record));
        prompt
            .render(fields, columns, text)
            .map_err(|error| NotACatalog::new("template_error", error.to_string()).on(self.record.line))
    }

    fn request(&self, n: u8, defaults: &'a Defaults, prompt: &'a str) -> Request<Cow<'a, str>> {
        let own = |column| Some(self.get(column)).filter(|field| !field.is_empty());
        let or = |column, default: &'a str| Cow::Borrowed(own(column).unwrap_or(default));
        Request {
            model: or(Column::Model, &defaults.model),
            prompt: prompt.into(),
            image_url: self.get(Column::ImageUrl).into(),
            size: or(Column::Size, &defaults.size),
            quality: or(Column::Quality, &defaults.quality),
            n,
            background: own(Column::Background).or(defaults.background.as_deref()).map(Cow::Borrowed),
            // Both, so that a new revision for the whole file also renews the rows that name their own.
            revision: match (defaults.revision.as_deref(), own(Column::Revision)) {
                (Some(default), Some(own)) => Some(Cow::Owned(format!("{default}/{own}"))),
                (default, own) => own.or(default).map(Cow::Borrowed),
            },
        }
    }
}

/// The original columns of a row, for `failed.csv` and whoever looks at a message. Fields beyond the header get numbers.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    columns: &'a Columns,
    record: Record<'a>,
}

impl<'a> Input<'a> {
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
    let hidden = || sku.chars().find(|&c| c.is_control() || is_deceptive(c));
    if !is_plain(sku)
        && let Some(c) = hidden()
    {
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
    let Some((scheme, rest)) = url.split_once(':').and_then(|(scheme, rest)| Some((scheme, rest.strip_prefix("//")?)))
    else {
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
    if url.contains(' ') || !is_plain(url) && url.chars().any(|c| c.is_whitespace() || c.is_control()) {
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

/// An upper bound of a row's body, cheap enough for every row: JSON makes at most six bytes of one.
pub(crate) fn worst_case_bytes(record: &Record<'_>, names: &[String], request: &Request<Cow<'_, str>>) -> usize {
    let input: usize =
        record.fields().map(str::len).sum::<usize>() + names.iter().map(|name| name.len() + 6).sum::<usize>();
    let bound = 6 * (input + request.prompt.len() + 2 * request.image_url.len()) + 4 * 1024;
    if bound <= MAX_ROW_BYTES {
        return bound;
    }
    // Rare: measure what the bound only feared.
    let fields: usize = record.fields().map(|field| json::to_vec(field).len() + 1).sum();
    fields
        + names.iter().map(|n| json::to_vec(n.as_str()).len() + 1).sum::<usize>()
        + json::to_vec(request).len()
        + 4 * 1024
}
