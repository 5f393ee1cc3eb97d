//! The key of every object in the bucket, and the ids that keys are made of.
//!
//! Keys are built and parsed only here. Results sort by row, no SKU can leave its prefix, and a job id is a hash of the
//! object version it belongs to.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::request::Fingerprint;

/// Number of rows in one part.
pub const ROWS_PER_PART: u64 = 1_000;

/// Prefix under which people upload catalogs.
pub const INCOMING: &str = "incoming/";
/// Prefix of results and of `job.json`.
pub const RESULTS: &str = "results/";

/// Extensions of catalogs' keys. The actual format is detected from the bytes.
pub const CATALOG_EXTENSIONS: [&str; 3] = [".csv", ".tsv", ".csv.gz"];

/// Bytes that are percent-encoded in a SKU: all but `[A-Za-z0-9._-]`.
const SKU_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');
/// The longest encoded SKU in bytes. Keeps a key far below S3's 1,024 bytes and a file name below 255.
const MAX_ENCODED_SKU: usize = 180;

/// Id of a job, which is one version of one input object: 16 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("pattern" = "^[0-9a-f]{16}$")))]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    /// Derives the id: the same object version always gets the same one. `edition` distinguishes jobs over the same version
    /// in a host where users choose options per job; it is empty on AWS.
    #[must_use]
    pub fn of(bucket: &str, key: &str, version: &str, edition: &str) -> Self {
        let mut hash = Sha256::new();
        for text in [bucket, key, version, edition] {
            // The length prefix makes the concatenation unambiguous.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        }
        Self(hex::encode(&hash.finalize()[..8]))
    }

    /// The 16 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses an id as [`JobId::of`] makes it; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
            .then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a catalog: the object key without `incoming/` and the extension. `incoming/spring/shoes.csv` is `spring/shoes`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Catalog(String);

impl Catalog {
    /// Derives the catalog of an object key. `None` if the prefix or extension is another one, or if the path could leave
    /// its prefix (`..`, empty segments).
    #[must_use]
    pub fn of(key: &str) -> Option<Self> {
        let path = key.strip_prefix(INCOMING)?;
        let stem = CATALOG_EXTENSIONS.into_iter().find_map(|extension| {
            let (stem, end) = path.split_at_checked(path.len().checked_sub(extension.len())?)?;
            end.eq_ignore_ascii_case(extension).then_some(stem)
        })?;
        let safe = stem.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        (safe && !stem.contains(['\\', '\0'])).then(|| Self(stem.to_owned()))
    }

    /// The name, which may contain `/`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Encodes a SKU as one segment of a key. No SKU can leave its prefix, and different SKUs stay different.
#[must_use]
pub fn encode_sku(sku: &str) -> String {
    let encoded = utf8_percent_encode(sku, SKU_ESCAPES).to_string();
    if encoded.bytes().all(|b| b == b'.') {
        // File systems and URL parsers give `.` and `..` a meaning.
        return encoded.replace('.', "%2E");
    }
    if encoded.len() <= MAX_ENCODED_SKU {
        return encoded;
    }
    // `~` is not in the alphabet above, so a shortened SKU never equals a whole one.
    let hash = hex::encode(&Sha256::digest(sku)[..16]);
    format!("{}~{hash}", &encoded[..MAX_ENCODED_SKU - hash.len() - 1])
}

/// The part that a row belongs to, from 0.
#[must_use]
pub fn part_of(row: u64) -> u64 {
    row.saturating_sub(1) / ROWS_PER_PART
}

/// The number of parts of a job with `rows` rows.
#[must_use]
pub fn parts(rows: u64) -> u64 {
    rows.div_ceil(ROWS_PER_PART)
}

/// The rows of one part of a job with `rows` rows.
#[must_use]
pub fn rows_of_part(part: u64, rows: u64) -> std::ops::RangeInclusive<u64> {
    part * ROWS_PER_PART + 1..=((part + 1) * ROWS_PER_PART).min(rows)
}

/// `results/<job>/job.json`
#[must_use]
pub fn job(job: &JobId) -> String {
    format!("results/{job}/job.json")
}

/// `results/<job>/<part>/`
#[must_use]
pub fn part_results(job: &JobId, part: u64) -> String {
    format!("results/{job}/{part:06}/")
}

/// `results/<job>/<part>/<row>-<sku>.jsonl`
#[must_use]
pub fn result(job: &JobId, row: u64, sku: &str) -> String {
    format!("results/{job}/{:06}/{row:09}-{}.jsonl", part_of(row), encode_sku(sku))
}

/// A parsed key under `results/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResultsKey {
    /// `job.json` of a job.
    Job(JobId),
    /// The result of a row.
    Row {
        /// The job that the row belongs to.
        job: JobId,
        /// The part that the row belongs to, from 0.
        part: u64,
        /// Row number, from 1.
        row: u64,
    },
}

impl ResultsKey {
    /// Parses a key; `None` for one that packshot does not write.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let mut segments = key.strip_prefix(RESULTS)?.split('/');
        let job = JobId::parse(segments.next()?)?;
        let second = segments.next()?;
        if second == "job.json" {
            return segments.next().is_none().then_some(Self::Job(job));
        }
        let (part, name) = (second.parse().ok()?, segments.next()?);
        let row: u64 = name.strip_suffix(".jsonl")?.split_once('-')?.0.parse().ok()?;
        (segments.next().is_none() && row > 0 && part_of(row) == part).then_some(Self::Row { job, part, row })
    }
}

/// `ledger/<first two hex>/<fingerprint>.json`
#[must_use]
pub fn ledger(fingerprint: &Fingerprint) -> String {
    format!("ledger/{}/{fingerprint}.json", &fingerprint.as_str()[..2])
}

/// `control/split/<job>.json`: how far the splitter has come.
#[must_use]
pub fn checkpoint(job: &JobId) -> String {
    format!("{CHECKPOINTS}{job}.json")
}

/// `control/merge/<job>/<part>.json`: the results that a part was made from.
#[must_use]
pub fn part_provenance(job: &JobId, part: u64) -> String {
    format!("control/merge/{job}/{part:06}.json")
}

/// `control/merge/<job>/so-far.json`: the counts of a running job.
#[must_use]
pub fn running_tally(job: &JobId) -> String {
    format!("control/merge/{job}/so-far.json")
}

/// Prefix of the splitter's checkpoints: one key per job.
pub const CHECKPOINTS: &str = "control/split/";

/// Prefix of the notification records: one key per job whose end was announced.
pub const NOTIFIED: &str = "control/notified/";

/// `control/notified/<job>.json`: the end of a job that was announced to subscribers.
#[must_use]
pub fn notified(job: &JobId) -> String {
    format!("{NOTIFIED}{job}.json")
}

/// Parses the job of a key under [`CHECKPOINTS`] or [`NOTIFIED`].
#[must_use]
pub fn job_of_control(key: &str) -> Option<JobId> {
    JobId::parse(key.rsplit_once('/')?.1.strip_suffix(".json")?)
}

/// State of the account breaker.
pub const BREAKER: &str = "control/breaker.json";

/// `control/abort/<job>.json`: exists if the job was stopped because too many of its rows failed.
#[must_use]
pub fn abort(job: &JobId) -> String {
    format!("control/abort/{job}.json")
}

/// `images/<catalog>/<sku>/<sku>_<n>.<extension>`; `n` is the image's number, from 1.
#[must_use]
pub fn image(catalog: &Catalog, sku: &str, n: usize, extension: &str) -> String {
    let sku = encode_sku(sku);
    format!("images/{catalog}/{sku}/{sku}_{n}.{extension}")
}

/// The file name of one page of the contact sheet: `review.html`, `review-2.html`, …
pub(crate) fn review_name(page: u64) -> String {
    if page == 1 { "review.html".to_owned() } else { format!("review-{page}.html") }
}

/// The keys of one job's manifest and of the files beside it, which the PIM and people read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifests {
    prefix: String,
    catalog: Catalog,
}

impl Manifests {
    /// The keys under `manifests/<catalog>/<job>/`.
    #[must_use]
    pub fn of(catalog: &Catalog, job: &JobId) -> Self {
        Self { prefix: format!("manifests/{catalog}/{job}/"), catalog: catalog.clone() }
    }

    /// `manifest.jsonl`: all results in row order.
    #[must_use]
    pub fn manifest(&self) -> String {
        format!("{}manifest.jsonl", self.prefix)
    }

    /// Prefix of the parts.
    #[must_use]
    pub fn parts(&self) -> String {
        format!("{}parts/", self.prefix)
    }

    /// `parts/<part>.jsonl`: the results of 1,000 rows.
    #[must_use]
    pub fn part(&self, part: u64) -> String {
        format!("{}parts/{part:06}.jsonl", self.prefix)
    }

    /// `failed.csv`: the failed rows with their original columns.
    #[must_use]
    pub fn failed_csv(&self) -> String {
        format!("{}failed.csv", self.prefix)
    }

    /// `summary.json`: status and counts of the job.
    #[must_use]
    pub fn summary(&self) -> String {
        format!("{}summary.json", self.prefix)
    }

    /// One page of the contact sheet, from 1.
    #[must_use]
    pub fn review(&self, page: u64) -> String {
        format!("{}{}", self.prefix, review_name(page))
    }

    /// Prefix of all pages of the contact sheet.
    #[must_use]
    pub fn reviews(&self) -> String {
        format!("{}review", self.prefix)
    }

    /// `manifests/<catalog>/latest.json`: points to the newest complete job.
    #[must_use]
    pub fn latest(&self) -> String {
        format!("manifests/{}/latest.json", self.catalog)
    }
}

/// The content type of an object, by the extension of its key.
#[must_use]
pub fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "json" => "application/json",
        "jsonl" => "application/x-ndjson",
        "csv" => "text/csv; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "png" => "image/png",
        "jpg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_job() -> JobId {
        JobId::of("b", "incoming/a.csv", "v1", "")
    }

    #[test]
    fn catalogs() {
        for (key, catalog) in [
            ("incoming/shoes.csv", Some("shoes")),
            ("incoming/spring/shoes.csv", Some("spring/shoes")),
            ("incoming/Frühling 2026/schuhe.v2.CSV", Some("Frühling 2026/schuhe.v2")),
            ("incoming/shoes.tsv", Some("shoes")),
            ("incoming/shoes.csv.GZ", Some("shoes")),
            ("incoming/shoes.gz", None),
            ("incoming/shoes.xlsx", None),
            ("incoming/.csv", None),
            ("incoming/.csv.gz", None),
            ("incoming/../results/x.csv", None),
            ("incoming/a//b.csv", None),
            ("incoming/readme.txt", None),
            ("results/a.csv", None),
            ("incoming/\u{fc}", None),
        ] {
            assert_eq!(Catalog::of(key).as_ref().map(Catalog::as_str), catalog, "{key}");
        }
    }

    #[test]
    fn skus_stay_in_their_prefix() {
        for (sku, encoded) in [
            ("SKU-1001", "SKU-1001"),
            ("../../x", "..%2F..%2Fx"),
            ("..", "%2E%2E"),
            (".", "%2E"),
            ("", ""),
            ("a b/ü", "a%20b%2F%C3%BC"),
            ("100%", "100%25"),
            ("~", "%7E"),
        ] {
            assert_eq!(encode_sku(sku), encoded);
        }
        let long = encode_sku(&"é".repeat(2_000));
        assert_eq!(long.len(), MAX_ENCODED_SKU);
        assert_ne!(long, encode_sku(&"é".repeat(2_001)));
    }

    #[test]
    fn job_ids_depend_on_every_text_and_not_on_their_seams() {
        let ids = [
            JobId::of("b", "k", "v", ""),
            JobId::of("bk", "", "v", ""),
            JobId::of("b", "k", "", "v"),
            JobId::of("b", "k", "w", ""),
        ];
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
        assert_eq!(JobId::parse(ids[0].as_str()).as_ref(), Some(&ids[0]));
        assert_eq!(JobId::parse("../../../../etc/"), None);
    }

    proptest! {
        #[test]
        fn a_result_key_says_its_row(row in 1u64..20_000_000, sku in ".{0,300}") {
            let job = a_job();
            let key = result(&job, row, &sku);
            prop_assert!(key.len() < 255);
            prop_assert!(key.starts_with(&part_results(&job, part_of(row))));
            prop_assert_eq!(ResultsKey::parse(&key), Some(ResultsKey::Row { job, part: part_of(row), row }));
        }

        #[test]
        fn keys_sort_like_rows(a in 1u64..999_999_999, b in 1u64..999_999_999, x in ".{0,20}", y in ".{0,20}") {
            prop_assume!(a < b);
            let job = a_job();
            prop_assert!(result(&job, a, &x) < result(&job, b, &y));
        }

        #[test]
        fn encoding_keeps_skus_apart(a in ".{0,300}", b in ".{0,300}") {
            prop_assert_eq!(a == b, encode_sku(&a) == encode_sku(&b));
            let safe = |c: char| c.is_ascii_alphanumeric() || "._-%~".contains(c);
            prop_assert!(encode_sku(&a).chars().all(safe));
        }

        #[test]
        fn every_row_is_in_exactly_one_part(rows in 0u64..5_000) {
            let all: Vec<u64> = (0..parts(rows)).flat_map(|part| rows_of_part(part, rows)).collect();
            prop_assert_eq!(all, (1..=rows).collect::<Vec<_>>());
        }
    }
}
