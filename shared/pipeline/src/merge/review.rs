//! The contact sheet: the source image of every SKU beside the images made of it, for people who judge by looking.
//!
//! A page needs no server and no other file: it contains its style and its script, which its policy allows by their hashes
//! and nothing else. What comes from a catalog or an API is escaped text; an address becomes a link only if it is http(s) or
//! one of our own keys.
//!
//! Failures come first, so the parts are streamed twice, which keeps memory bounded. The cards of both streams are dealt to
//! pages of 1,000.

use std::sync::LazyLock;

use askama::Template;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future, stream};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::{
    merge::{
        context::Context,
        part_stream::{Rows, rows},
        snapshot::Snapshot,
    },
    model::{
        error_class::ErrorClass,
        job::Job,
        keys::{Manifests, review_name},
        result::{Completed, Failed, RowResult},
        summary::{Counts, Summary},
        text::excerpt,
        vendor_prompt::{CLOSING, OPENING},
    },
    ports::StoreError,
};

/// SKUs on one page: as many as a browser and a person can handle.
const PER_PAGE: u64 = 1_000;
/// The characters of an error that are shown.
const MAX_ERROR: usize = 2_000;

const STYLE: &str = include_str!("../../templates/review.css");
const SCRIPT: &str = include_str!("../../templates/review.js");

/// Images may come from anywhere, because their addresses are the API's and the shops'; everything else is refused.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; img-src 'self' https: http: file: data:; style-src 'sha256-{}'; script-src 'sha256-{}'; \
         base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// Writes the pages, one after the other.
pub(super) async fn write_review(
    context: &Context<'_>,
    snapshot: &Snapshot,
    summary: &Summary,
) -> Result<(), StoreError> {
    let Context { ports, job, files } = context;
    let review = Review::new(job, summary);
    let rows = |which| rows(ports, snapshot.parts(), which, &summary.counts);
    let cards = rows(Rows::Failed).chain(rows(Rows::Completed));
    let mut cards = cards.map_ok(|row| Bytes::from(review.card(&row))).boxed();
    for page in 1..=review.pages() {
        let key = files.review(page);
        let end = |html: String| stream::once(future::ready(Ok(Bytes::from(html))));
        let body = end(review.head()).chain(cards.by_ref().take(PER_PAGE as usize)).chain(end(review.foot(page)));
        ports.store.put_stream(&key, body.boxed(), snapshot.review_unchanged(&key)).await?;
    }
    Ok(())
}

/// Every byte of a key that has a meaning in the path of a URL, the percent sign included.
const SEGMENT_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'~').remove(b'/');

/// The contact sheet of one job.
struct Review<'a> {
    job: &'a Job,
    summary: &'a Summary,
    /// From a page to the bucket's root: `../../../`.
    root: String,
}

impl<'a> Review<'a> {
    fn new(job: &'a Job, summary: &'a Summary) -> Self {
        let page = Manifests::of(&job.catalog, &job.job).review(1);
        Self { job, summary, root: "../".repeat(page.matches('/').count()) }
    }

    /// Number of pages. It depends on the rows alone, so no later composition leaves an old page behind.
    fn pages(&self) -> u64 {
        self.job.rows.div_ceil(PER_PAGE).max(1)
    }

    fn head(&self) -> String {
        rendered(&HeaderView {
            summary: self.summary,
            counts: &self.summary.counts,
            columns: self.job.defaults.n.clamp(1, 4),
            policy: &POLICY,
            style: STYLE,
            script: SCRIPT,
        })
    }

    fn card(&self, result: &RowResult) -> String {
        rendered(&match result {
            RowResult::Completed(row) => self.completed(row),
            RowResult::Failed(row) => self.failed(row),
        })
    }

    fn foot(&self, page: u64) -> String {
        let last = self.pages();
        rendered(&FooterView { counts: &self.summary.counts, page, last, link: review_name })
    }

    fn completed<'r>(&self, row: &'r Completed) -> CardView<'r> {
        let kept = row.assets.iter().map(|asset| asset.n).max().unwrap_or(0);
        let images = (1..=row.image_count.max(kept).max(row.image_urls.len())).map(|n| {
            let remote = row.image_urls.get(n - 1).and_then(|url| web_address(url)).map(str::to_owned);
            match row.assets.iter().find(|asset| asset.n == n) {
                Some(asset) => ImageView {
                    n,
                    src: Some(format!("{}{}", self.root, utf8_percent_encode(&asset.key, SEGMENT_ESCAPES))),
                    fallback: remote,
                    size: Some((asset.width, asset.height)),
                },
                None => ImageView { n, src: remote, fallback: None, size: None },
            }
        });
        let (title, prompt) = title_and_prompt(row.prompt.as_deref());
        let time = if row.reused { "reused".to_owned() } else { format!("{:.1} s", row.latency_ms as f64 / 1_000.0) };
        CardView {
            row: row.row,
            sku: &row.sku,
            state: if row.short { "short" } else { "complete" },
            tag: row.short.then_some("Fewer images than asked for"),
            title,
            prompt,
            lost: row.archive_error.as_deref(),
            facts: format!("Row {} · {} · {time}", row.row, row.model_actual.as_ref().unwrap_or(&row.model)),
            source: row.image_url.as_deref().and_then(web_address),
            images: images.collect(),
            why: None,
        }
    }

    fn failed<'r>(&self, row: &'r Failed) -> CardView<'r> {
        let column = |name: &str| {
            let value = self.job.mapping.get(name).and_then(|column| row.input.get(column));
            value.and_then(|value| value.as_str()).map(str::trim).filter(|text| !text.is_empty())
        };
        let calls = match row.attempts {
            0 => "no call".to_owned(),
            1 => "1 call".to_owned(),
            calls => format!("{calls} calls"),
        };
        CardView {
            row: row.row,
            sku: if row.sku.is_empty() { "(no SKU)" } else { &row.sku },
            state: "failed",
            tag: Some("Failed"),
            title: column("title"),
            prompt: None,
            lost: None,
            facts: format!("Row {} · line {} · {calls}", row.row, row.line),
            source: column("image_url").and_then(web_address),
            images: Vec::new(),
            why: Some(FailureView {
                code: &row.error_code,
                error: excerpt(&row.error, MAX_ERROR),
                remedy: remedy(row.error_class),
            }),
        }
    }
}

/// Title and rest of the vendor's sentence without the words that all cards share; any other prompt as it is.
fn title_and_prompt(prompt: Option<&str>) -> (Option<&str>, Option<&str>) {
    let Some(own) = prompt.and_then(|prompt| prompt.strip_prefix(OPENING)) else { return (None, prompt) };
    let own = own.strip_suffix(CLOSING).unwrap_or(own).trim_end();
    own.split_once(". ").map_or((Some(own.trim_end_matches('.')), None), |(title, rest)| (Some(title), Some(rest)))
}

/// The address if a browser may follow it. Any other kind (`javascript:`, `data:`, a path) is not shown.
fn web_address(url: &str) -> Option<&str> {
    let scheme = url.split_once("://")?.0;
    let web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    (web && !url.contains(|c: char| c.is_whitespace() || c.is_control())).then_some(url)
}

fn remedy(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Row => "Fix this row in failed.csv and drop that file as a new catalog.",
        ErrorClass::Transient => "It may work later: run the same command again, or redrive the retry queue.",
        ErrorClass::Account => "Top up the API account or correct its key, then run again or redrive.",
        ErrorClass::Unknown => "This call may have been charged. Look at the API's account before you run it again.",
        ErrorClass::Aborted => {
            "The job was stopped because too many rows failed. Fix the cause, then run again or redrive."
        }
    }
}

/// Cannot fail: templates over our own types write to memory and call no failing filter.
fn rendered(template: &impl Template) -> String {
    template.render().unwrap_or_else(|error| unreachable!("a template over our own types always renders: {error}"))
}

#[expect(unreachable_pub, reason = "the macro makes the filter's visibility wider than written")]
mod filters {
    /// `1,234,567`
    #[askama::filter_fn]
    pub(super) fn grouped(value: &u64, _: &dyn askama::Values) -> askama::Result<String> {
        let digits = value.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (index, digit) in digits.char_indices() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        Ok(text)
    }
}

#[derive(Template)]
#[template(path = "review.html", block = "head")]
struct HeaderView<'a> {
    summary: &'a Summary,
    counts: &'a Counts,
    columns: u8,
    policy: &'a str,
    style: &'static str,
    script: &'static str,
}

#[derive(Template)]
#[template(path = "review.html", block = "card")]
struct CardView<'a> {
    row: u64,
    sku: &'a str,
    state: &'static str,
    tag: Option<&'static str>,
    title: Option<&'a str>,
    prompt: Option<&'a str>,
    lost: Option<&'a str>,
    facts: String,
    source: Option<&'a str>,
    images: Vec<ImageView>,
    why: Option<FailureView<'a>>,
}

#[derive(Template)]
#[template(path = "review.html", block = "foot")]
struct FooterView<'a> {
    counts: &'a Counts,
    page: u64,
    last: u64,
    link: fn(u64) -> String,
}

struct ImageView {
    n: usize,
    src: Option<String>,
    /// Where the image may still be if our copy is out of reach, for example behind a presigned page.
    fallback: Option<String>,
    size: Option<(usize, usize)>,
}

struct FailureView<'a> {
    code: &'a str,
    error: String,
    remedy: &'static str,
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
