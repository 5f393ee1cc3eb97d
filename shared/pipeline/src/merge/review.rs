//! The contact sheet: every SKU's source picture beside what was made of it, for people who judge by looking.
//!
//! A page needs no server and no other file: style and script stand in it, allowed by their hashes and by nothing else. What
//! comes from a catalog or an API is text; an address becomes a link only if it is http(s) or one of our own keys.

use std::sync::LazyLock;

use askama::Template;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::{
    catalog::prompt::{CLOSING, OPENING},
    model::{
        error_class::ErrorClass,
        job::Job,
        keys::{Manifests, review_name},
        result::{Completed, Failed, RowResult},
        summary::{Counts, Summary},
    },
};

/// SKUs on one page: what a browser and a person can take.
pub(crate) const PER_PAGE: u64 = 1_000;
/// Characters of an error that are shown.
const MAX_ERROR: usize = 2_000;

const STYLE: &str = include_str!("../../templates/review.css");
const SCRIPT: &str = include_str!("../../templates/review.js");

/// Pictures may come from anywhere, because the addresses are the API's and the shops'; nothing else may come at all.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; img-src 'self' https: http: file: data:; style-src 'sha256-{}'; script-src 'sha256-{}'; \
         base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// Every byte of a key that a URL's path could take for something else, the percent sign included.
const SEGMENT_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'~').remove(b'/');

/// The contact sheet of one job.
pub(crate) struct Review<'a> {
    job: &'a Job,
    summary: &'a Summary,
    /// From a page to the bucket's root: `../../../`.
    root: String,
}

impl<'a> Review<'a> {
    pub(crate) fn new(job: &'a Job, summary: &'a Summary) -> Self {
        let page = Manifests::of(&job.catalog, &job.job).review(1);
        Self { job, summary, root: "../".repeat(page.matches('/').count()) }
    }

    /// How many pages there are. It follows from the rows alone, so no later composition leaves a page behind.
    pub(crate) fn pages(&self) -> u64 {
        self.job.rows.div_ceil(PER_PAGE).max(1)
    }

    pub(crate) fn head(&self) -> String {
        rendered(&Head {
            summary: self.summary,
            counts: &self.summary.counts,
            columns: self.job.defaults.n.clamp(1, 4),
            policy: &POLICY,
            style: STYLE,
            script: SCRIPT,
        })
    }

    pub(crate) fn card(&self, result: &RowResult) -> String {
        rendered(&match result {
            RowResult::Completed(row) => self.completed(row),
            RowResult::Failed(row) => self.failed(row),
        })
    }

    pub(crate) fn foot(&self, page: u64) -> String {
        let last = self.pages();
        rendered(&Foot { counts: &self.summary.counts, page, last, link: review_name })
    }

    fn completed<'r>(&self, row: &'r Completed) -> Card<'r> {
        let kept = row.assets.iter().map(|asset| asset.n).max().unwrap_or(0);
        let pictures = (1..=row.image_count.max(kept).max(row.image_urls.len())).map(|n| {
            let remote = row.image_urls.get(n - 1).and_then(|url| web_address(url)).map(str::to_owned);
            match row.assets.iter().find(|asset| asset.n == n) {
                Some(asset) => Shown {
                    n,
                    src: Some(format!("{}{}", self.root, utf8_percent_encode(&asset.key, SEGMENT_ESCAPES))),
                    fallback: remote,
                    size: Some((asset.width, asset.height)),
                },
                None => Shown { n, src: remote, fallback: None, size: None },
            }
        });
        let (title, prompt) = told(row.prompt.as_deref());
        let time = if row.reused { "reused".to_owned() } else { format!("{:.1} s", row.latency_ms as f64 / 1_000.0) };
        Card {
            row: row.row,
            sku: &row.sku,
            state: if row.short { "short" } else { "complete" },
            tag: row.short.then_some("Fewer pictures than asked for"),
            title,
            prompt,
            lost: row.archive_error.as_deref(),
            facts: format!("Row {} · {} · {time}", row.row, row.model_actual.as_ref().unwrap_or(&row.model)),
            source: row.image_url.as_deref().and_then(web_address),
            pictures: pictures.collect(),
            why: None,
        }
    }

    fn failed<'r>(&self, row: &'r Failed) -> Card<'r> {
        let column = |name: &str| {
            let value = self.job.mapping.get(name).and_then(|column| row.input.get(column));
            value.and_then(|value| value.as_str()).map(str::trim).filter(|text| !text.is_empty())
        };
        let calls = match row.attempts {
            0 => "no call".to_owned(),
            1 => "1 call".to_owned(),
            calls => format!("{calls} calls"),
        };
        Card {
            row: row.row,
            sku: if row.sku.is_empty() { "(no SKU)" } else { &row.sku },
            state: "failed",
            tag: Some("Failed"),
            title: column("title"),
            prompt: None,
            lost: None,
            facts: format!("Row {} · line {} · {calls}", row.row, row.line),
            source: column("image_url").and_then(web_address),
            pictures: Vec::new(),
            why: Some(Why { code: &row.error_code, error: shortened(&row.error), remedy: remedy(row.error_class) }),
        }
    }
}

/// Title and rest of the vendor's sentence without what is the same on every card; any other prompt as it is.
fn told(prompt: Option<&str>) -> (Option<&str>, Option<&str>) {
    let Some(own) = prompt.and_then(|prompt| prompt.strip_prefix(OPENING)) else { return (None, prompt) };
    let own = own.strip_suffix(CLOSING).unwrap_or(own).trim_end();
    own.split_once(". ").map_or((Some(own.trim_end_matches('.')), None), |(title, rest)| (Some(title), Some(rest)))
}

/// The address itself if a browser may follow it. Whatever else it may be (`javascript:`, `data:`, a path), it is not shown.
fn web_address(url: &str) -> Option<&str> {
    let scheme = url.split_once("://")?.0;
    let web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
    (web && !url.contains(|c: char| c.is_whitespace() || c.is_control())).then_some(url)
}

fn shortened(text: &str) -> String {
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(MAX_ERROR).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    short
}

fn remedy(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Row => "Mend this row in failed.csv and drop that file as a new catalog.",
        ErrorClass::Transient => "It may work later: run the same command again, or redrive the retry queue.",
        ErrorClass::Account => "Top up the API account or correct its key, then run again or redrive.",
        ErrorClass::Unknown => "This call may have been charged. Look at the API's account before you run it again.",
        ErrorClass::Aborted => {
            "The job was stopped because too many rows failed. Mend the cause, then run again or redrive."
        }
    }
}

/// Templates over our own types write to memory and call no failing filter.
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
struct Head<'a> {
    summary: &'a Summary,
    counts: &'a Counts,
    columns: u8,
    policy: &'a str,
    style: &'static str,
    script: &'static str,
}

#[derive(Template)]
#[template(path = "review.html", block = "card")]
struct Card<'a> {
    row: u64,
    sku: &'a str,
    state: &'static str,
    tag: Option<&'static str>,
    title: Option<&'a str>,
    prompt: Option<&'a str>,
    lost: Option<&'a str>,
    facts: String,
    source: Option<&'a str>,
    pictures: Vec<Shown>,
    why: Option<Why<'a>>,
}

#[derive(Template)]
#[template(path = "review.html", block = "foot")]
struct Foot<'a> {
    counts: &'a Counts,
    page: u64,
    last: u64,
    link: fn(u64) -> String,
}

struct Shown {
    n: usize,
    src: Option<String>,
    /// Where the picture may still be if our copy is out of reach, as behind a presigned page.
    fallback: Option<String>,
    size: Option<(usize, usize)>,
}

struct Why<'a> {
    code: &'a str,
    error: String,
    remedy: &'static str,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job() -> Job {
        serde_json::from_value(json!({
            "v": 1, "job": "0123456789abcdef", "catalog": "spring/shoes", "rows": 2_001, "valid": 2_000, "rejected": 1,
            "source": { "bucket": "b", "key": "incoming/spring/shoes.csv", "version_id": null, "etag": "e", "bytes": 1,
                "last_modified": "2026-01-02T03:04:05Z" },
            "images": 8_000, "columns": ["Artikel", "Name", "Foto"],
            "mapping": { "sku": "Artikel", "title": "Name", "image_url": "Foto" },
            "defaults": { "model": "m", "size": "s", "quality": "q", "n": 4 }, "created_at": "2026-01-02T03:04:05Z"
        }))
        .unwrap()
    }

    fn failed(sku: &str, foto: &str) -> RowResult {
        serde_json::from_value(json!({
            "sku": sku, "status": "failed", "error": "HTTP 400: <img src=x onerror=alert(1)>", "row": 7,
            "job": "0123456789abcdef", "fingerprint": null, "attempts": 1, "reused": false, "model": null,
            "latency_ms": null, "failed_at": "2026-01-02T03:04:05Z", "error_code": "bad\"><script>", "error_class": "row",
            "http_status": 400, "line": 8, "input": { "Artikel": sku, "Name": "Mug & saucer", "Foto": foto }
        }))
        .unwrap()
    }

    fn completed(changes: &serde_json::Value) -> RowResult {
        let mut row = json!({
            "sku": "a/b", "status": "completed", "image_count": 2, "image_urls": ["https://x.test/1.png"],
            "request_id": null, "model_actual": null, "row": 1, "job": "0123456789abcdef", "fingerprint": "f",
            "attempts": 1, "reused": false, "model": "m", "latency_ms": 1_250, "completed_at": "2026-01-02T03:04:05Z",
            "assets": [{ "n": 1, "key": "images/spring/shoes/a%2Fb/a%2Fb_1.png", "content_type": "image/png", "bytes": 9,
                "sha256": "0", "width": 64, "height": 32 }]
        });
        let row_fields = row.as_object_mut().unwrap();
        row_fields.extend(changes.as_object().unwrap().clone());
        serde_json::from_value(row).unwrap()
    }

    fn card(result: &RowResult) -> String {
        let job = job();
        let summary = crate::model::summary::Tally::default().so_far(&job);
        Review::new(&job, &summary).card(result)
    }

    #[test]
    fn what_comes_from_outside_stays_text() {
        for hostile in ["<script>alert(1)</script>", "\"><script>", "' onload=x '", "</article><script>"] {
            let html = card(&failed(hostile, "https://x.test/\"onerror=alert(1)//.png"));
            assert!(!html.contains("<script"), "{html}");
            assert!(!html.contains("<img src=x"), "{html}");
            assert_eq!(html.matches("</article>").count(), 1, "{html}");
            assert!(!html.contains("\"onerror"), "{html}");
            assert!(html.contains("Mug &#38; saucer"), "{html}");
        }
    }

    #[test]
    fn only_web_addresses_are_followed() {
        for (url, shown) in [
            ("https://x.test/a.png?b=1&c=2", true),
            ("HTTP://x.test/a.png", true),
            ("javascript:alert(1)", false),
            ("javascript://x.test/%0aalert(1)", false),
            ("data:text/html,<script>", false),
            ("//x.test/a.png", false),
            ("file:///etc/passwd", false),
            ("java\nscript://x", false),
            ("https://x.test/a b", false),
        ] {
            assert_eq!(web_address(url).is_some(), shown, "{url}");
            let pages = [
                card(&failed("A", url)),
                card(&completed(&json!({ "image_url": url, "image_urls": [url, url], "assets": [] }))),
            ];
            for html in pages {
                assert_eq!(html.contains("<a href="), shown, "{url}: {html}");
            }
        }
    }

    #[test]
    fn a_kept_picture_is_linked_by_its_key_and_falls_back_to_the_api() {
        let html = card(&completed(&json!({})));
        assert!(html.contains("href=\"../../../../images/spring/shoes/a%252Fb/a%252Fb_1.png\""), "{html}");
        assert!(html.contains("data-fallback=\"https://x.test/1.png\""), "{html}");
        assert!(html.contains("width=\"64\" height=\"32\""), "{html}");
        assert!(html.contains("not kept"), "the second picture has neither a copy nor an address: {html}");
        assert!(html.contains("Row 1 · m · 1.2 s"), "{html}");
        assert!(card(&completed(&json!({ "short": true }))).contains("data-state=\"short\""));
    }

    #[test]
    fn a_card_says_what_was_asked_for_and_not_what_is_said_on_all() {
        let same = format!(" {CLOSING}");
        for (prompt, title, rest) in [
            (
                format!("{OPENING}Mug. Brand identity: North. Style cues: a, b.{same}"),
                Some("Mug"),
                Some("Brand identity: North. Style cues: a, b."),
            ),
            (format!("{OPENING}Mug.{same}"), Some("Mug"), None),
            ("A mug. On the moon.".to_owned(), None, Some("A mug. On the moon.")),
        ] {
            assert_eq!(told(Some(&prompt)), (title, rest));
        }
        assert_eq!(told(None), (None, None));
    }

    #[test]
    fn pages_follow_from_the_rows() {
        let mut job = job();
        for (rows, pages) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_001, 3)] {
            job.rows = rows;
            let summary = crate::model::summary::Tally::default().so_far(&job);
            let review = Review::new(&job, &summary);
            assert_eq!(review.pages(), pages);
            assert_eq!(review.foot(1).contains("review-2.html"), pages > 1);
            assert!(!review.foot(pages).contains("rel=\"next\""));
        }
    }

    #[test]
    fn the_policy_allows_the_style_and_the_script_as_they_stand_in_the_page() {
        let job = job();
        let summary = crate::model::summary::Tally::default().so_far(&job);
        let head = Review::new(&job, &summary).head();
        for (open, close, directive) in [("<style>", "</style>", "style-src"), ("<script>", "</script>", "script-src")]
        {
            let inside = head.split_once(open).unwrap().1.split_once(close).unwrap().0;
            let hash = BASE64_STANDARD.encode(Sha256::digest(inside));
            let escaped = format!("{directive} &#39;sha256-{}&#39;", hash.replace('=', "&#61;"));
            assert!(
                head.contains(&escaped) || head.contains(&escaped.replace("&#61;", "=")),
                "{directive} {hash} is not in the policy"
            );
        }
        assert!(!head.contains("unsafe-"));
        assert!(head.contains("2,001"));
    }
}
