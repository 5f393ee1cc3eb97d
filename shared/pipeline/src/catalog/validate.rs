//! Validates the rows of a catalog: each record becomes a request, or the reason why the row is rejected.
//!
//! [`Validator`] first checks a row by itself (shape, required fields, characters, addresses), then renders its request, then
//! compares it with the rows before it: a SKU may repeat only with the same request. It remembers every SKU and nothing else.

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
        catalog_error::CatalogError, column::Column, defaults::Defaults, json, message::MAX_ROW_BYTES,
        request::Request, spreadsheet, text::excerpt,
    },
};

/// The characters of a cell that a message quotes.
const MAX_EXCERPT: usize = 60;

/// A validated row. It borrows everything, because the splitter validates millions of rows, twice.
pub struct Validated<'a> {
    /// The row's original columns.
    pub input: Input<'a>,
    /// The request to generate, or why the row is rejected.
    pub verdict: Result<Accepted<'a>, Rejected>,
}

/// A valid row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// Canonical product key, as in the file.
    pub sku: &'a str,
    /// The complete API request.
    pub request: Request<Cow<'a, str>>,
}

/// A rejected row. It becomes a failed result without a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Canonical product key, as far as it could be read.
    pub sku: String,
    /// Machine-readable code, for example `duplicate_sku`.
    pub code: &'static str,
    /// Line, column, what is wrong and what to do about it, for people.
    pub message: String,
}

/// Validates the rows of one catalog, in order.
pub struct Validator {
    columns: Columns,
    defaults: Defaults,
    prompt: Prompt,
    /// The product of the record before, which the next record may continue.
    product: String,
    /// Buffer for the prompt of the current row.
    text: String,
    skus: SkuIndex,
}

/// The first row of every SKU. A plain map would take up to 60 bytes per row, and half as much again while it grows. This
/// takes 24 bytes for each row and 6 to 12 for its hash table slot.
#[derive(Default)]
struct SkuIndex {
    rows: Vec<FirstRow>,
    /// Positions in `rows`, by the SKU's hash.
    slots: HashTable<u32>,
}

/// The first row with a SKU.
struct FirstRow {
    sku: SkuHash,
    /// Physical line. Numbers beyond 32 bits are stored as the largest one; the row limit is far below.
    line: u32,
    /// Hash of the request, to detect another request. A collision costs nothing, because each row keeps its own fingerprint.
    request: [u8; 8],
}

/// 96 bits of a SKU's hash. If two SKUs had the same bits, the second row would be rejected as a repetition of the first. For
/// ten million SKUs that happens by chance in one of 10^15 files.
#[derive(Clone, Copy, PartialEq, Eq)]
struct SkuHash([u32; 3]);

impl SkuHash {
    fn of(sku: &str) -> Self {
        let (low, high) = (hash(0, sku), hash(1, sku));
        Self([low as u32, (low >> 32) as u32, high as u32])
    }

    /// 64 of the bits, as the hash for the table.
    fn table_hash(&self) -> u64 {
        u64::from(self.0[1]) << 32 | u64::from(self.0[0])
    }
}

/// A hash that is the same in every process, so that validating a file again gives the same verdicts.
fn hash(seed: u64, value: &(impl Hash + ?Sized)) -> u64 {
    FixedState::with_seed(seed).hash_one(value)
}

impl SkuIndex {
    /// Registers a row. Returns the line of an earlier row that has the SKU with another request.
    fn conflicting_line(&mut self, sku: &str, request: &Request<Cow<'_, str>>, line: u64) -> Option<u32> {
        let (sku, request) = (SkuHash::of(sku), hash(0, request).to_le_bytes());
        let Self { rows, slots } = self;
        if let Some(&at) = slots.find(sku.table_hash(), |&at| rows[at as usize].sku == sku) {
            let first = &rows[at as usize];
            return (first.request != request).then_some(first.line);
        }
        slots.insert_unique(sku.table_hash(), rows.len() as u32, |&at| rows[at as usize].sku.table_hash());
        rows.push(FirstRow { sku, line: u32::try_from(line).unwrap_or(u32::MAX), request });
        None
    }
}

impl Validator {
    /// Creates a validator for the catalog with this header.
    pub fn new(columns: Columns, defaults: Defaults) -> Result<Self, CatalogError> {
        let prompt = Prompt::new(defaults.prompt_template.as_deref())
            .map_err(|error| CatalogError::new("template_error", error.to_string()))?;
        Ok(Self { columns, defaults, prompt, product: String::new(), text: String::new(), skus: SkuIndex::default() })
    }

    /// The detected columns.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Whether the next record only continues the product above, as another variant or another image. Such a record does not
    /// count as a row and is not validated.
    pub fn continues(&mut self, record: &Record<'_>) -> bool {
        self.columns.continues(record, &mut self.product)
    }

    /// Validates the next row. An error ends the whole file: a prompt template that fails for one row fails the job.
    pub fn validate<'a>(&'a mut self, record: Record<'a>) -> Result<Validated<'a>, CatalogError> {
        let Self { columns, defaults, prompt, text, skus, .. } = self;
        let row = CatalogRow { columns, record, sku: columns.get(&record, Column::Sku) };
        let verdict = match row.check(defaults) {
            Err(rejected) => Err(rejected),
            Ok(n) => {
                let request = row.request(n, defaults, row.prompt(prompt, text)?);
                row.check_size_and_sku(&request, skus).map(|()| Accepted { sku: row.sku, request })
            }
        };
        Ok(Validated { input: Input { columns, record }, verdict })
    }
}

/// The row that is being validated.
struct CatalogRow<'a> {
    columns: &'a Columns,
    record: Record<'a>,
    sku: &'a str,
}

impl<'a> CatalogRow<'a> {
    fn get(&self, column: Column) -> &'a str {
        self.columns.get(&self.record, column)
    }

    fn reject(&self, code: &'static str, column: Option<Column>, what: impl Display) -> Rejected {
        let column = column.map(|c| format!(", column {}", self.columns.display_name(c))).unwrap_or_default();
        let message = format!("line {}{column}: {what}", self.record.line);
        Rejected { sku: self.sku.to_owned(), code, message }
    }

    /// Checks what depends on the row alone. Returns the number of images.
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
                self.reject(
                    "invalid_n",
                    Some(Column::N),
                    format!("`{}` is not 1, 2, 3 or 4", excerpt(text, MAX_EXCERPT)),
                )
            }),
        }
    }

    /// Checks quotation marks and the number of fields.
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

    /// Checks the size of the row's message, and the SKU against the rows before.
    fn check_size_and_sku(&self, request: &Request<Cow<'_, str>>, skus: &mut SkuIndex) -> Result<(), Rejected> {
        if worst_case_bytes(&self.record, &self.columns.names, request) > MAX_ROW_BYTES {
            let what = "the row is too large for a queue message; shorten its texts";
            return Err(self.reject("row_too_large", None, what));
        }
        let Some(line) = skus.conflicting_line(self.sku, request, self.record.line) else { return Ok(()) };
        let what = format!(
            "line {line} already has `{}`, with another request; keep one of them",
            excerpt(self.sku, MAX_EXCERPT)
        );
        Err(self.reject("duplicate_sku", Some(Column::Sku), what))
    }

    fn prompt(&self, prompt: &Prompt, text: &'a mut String) -> Result<&'a str, CatalogError> {
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
            .map_err(|error| CatalogError::new("template_error", error.to_string()).on(self.record.line))
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
            // Both, so that a new revision for the whole file also regenerates the rows that have their own.
            revision: match (defaults.revision.as_deref(), own(Column::Revision)) {
                (Some(default), Some(own)) => Some(Cow::Owned(format!("{default}/{own}"))),
                (default, own) => own.or(default).map(Cow::Borrowed),
            },
        }
    }
}

/// The original columns of a row, for `failed.csv` and for people who read a message. Fields beyond the header are numbered.
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

    /// The columns as a JSON object, as in a result.
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

/// Whether a field must not contain this control character. Tabs and line ends are allowed.
fn is_forbidden(c: &char) -> bool {
    c.is_control() && !matches!(c, '\t' | '\r' | '\n')
}

/// Checks a SKU. It is never normalised: two SKUs that differ in case or in the form of an accent are different.
fn check_sku(sku: &str) -> Result<(), (&'static str, String)> {
    let invisible = || sku.chars().find(|&c| c.is_control() || is_deceptive(c));
    if !is_plain(sku)
        && let Some(c) = invisible()
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

/// Whether a character has no width, changes the reading direction of the text around it, or is a noncharacter. Joiners are
/// allowed, because scripts and emoji need them.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Whether a spreadsheet has replaced the SKU: with `1.23457E+12` for a long number, or with an error such as `#N/A`.
fn is_mangled(sku: &str) -> bool {
    const ERRORS: [&str; 7] = ["#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!"];
    let number = sku.split_once('E').and_then(|(mantissa, exponent)| Some((mantissa, exponent.strip_prefix('+')?)));
    let Some((mantissa, exponent)) = number else { return ERRORS.contains(&sku) };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, ""));
    whole.len() == 1 && digits(whole) && digits(fraction) && (2..=3).contains(&exponent.len()) && digits(exponent)
}

/// Checks that the photo's address is an absolute http(s) URL without credentials and white space.
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

/// An upper bound of the size of a row's message, in bytes. Cheap enough for every row: JSON escapes one byte as at most six.
pub(crate) fn worst_case_bytes(record: &Record<'_>, names: &[String], request: &Request<Cow<'_, str>>) -> usize {
    let input: usize =
        record.fields().map(str::len).sum::<usize>() + names.iter().map(|name| name.len() + 6).sum::<usize>();
    let bound = 6 * (input + request.prompt.len() + 2 * request.image_url.len()) + 4 * 1024;
    if bound <= MAX_ROW_BYTES {
        return bound;
    }
    // Rare, so the exact size may cost more.
    let fields: usize = record.fields().map(|field| json::to_vec(field).len() + 1).sum();
    fields
        + names.iter().map(|n| json::to_vec(n.as_str()).len() + 1).sum::<usize>()
        + json::to_vec(request).len()
        + 4 * 1024
}
