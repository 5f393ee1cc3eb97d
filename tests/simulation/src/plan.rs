//! What a seed stands for: catalogs, settings, hosts, weather. Drawn once, before anything runs.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use fastrand::Rng;
use packshot_pipeline::{
    model::{
        defaults::Defaults,
        request::{Fingerprint, Request},
    },
    settings::{AccountPolicy, GenerateSettings, SplitSettings},
};

use super::bug::Bug;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything about one run that is not the product's own doing.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where it came from.
    pub seed: u64,
    /// Something the world does wrong on purpose.
    pub bug: Option<Bug>,
    pub(super) generate: GenerateSettings,
    pub(super) split: SplitSettings,
    pub(super) faults: FaultPlan,
    pub(super) weather: Weather,
    pub(super) hosts: Hosts,
    pub(super) drops: Vec<Drop>,
    /// When something that is not a message turns up in the rows queue.
    pub(super) poison: Vec<Duration>,
    /// When a person redrives the retry queue.
    pub(super) redrives: Vec<Duration>,
    /// When the clock wakes a merger to look after jobs; it does so once more when all trouble is over.
    pub(super) sweeps: Vec<Duration>,
    /// Whether a person redrives once more when all trouble is over.
    pub(super) final_redrive: bool,
}

#[derive(Debug, Clone)]
pub(super) struct FaultPlan {
    /// Out of 10,000 port calls.
    pub(super) rate: u32,
    /// Of the faults, in percent.
    pub(super) deaths: u32,
    /// Longest stall.
    pub(super) stall: Duration,
    /// Out of 10,000 events or deletions.
    pub(super) events: u32,
    /// No faults from then on.
    pub(super) until: Duration,
    /// Die at these port calls of the run, before or after the effect, and nothing else.
    pub(super) crashes: Vec<(u64, Moment)>,
}

/// When a worker dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the port call has an effect.
    Before,
    /// After it, before the answer.
    After,
}

/// What the images API is like.
#[derive(Debug, Clone)]
pub(super) struct Weather {
    /// Of the calls, in percent, that meet trouble while there is any.
    pub(super) trouble: u32,
    /// Of the fingerprints, in percent, that moderation blocks for ever.
    pub(super) blocked: u32,
    /// When the account is not well.
    pub(super) broke: Vec<(Duration, Duration)>,
    /// How long a call takes at most.
    pub(super) slowest: Duration,
    /// Every answer is links to all the pictures that were asked for.
    pub(super) plain: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Hosts {
    pub(super) splitters: usize,
    pub(super) generators: usize,
    /// Messages that a generator process handles at once in batches of their own; more than one only in a local run.
    pub(super) slots: usize,
    pub(super) mergers: usize,
    pub(super) batch: usize,
    pub(super) merge_batch: usize,
    pub(super) window: Duration,
    pub(super) split_timeout: Duration,
    pub(super) generate_timeout: Duration,
    pub(super) rows_visibility: Duration,
    pub(super) merge_visibility: Duration,
}

/// A file dropped into the bucket.
#[derive(Debug, Clone)]
pub(super) struct Drop {
    pub(super) at: Duration,
    pub(super) key: String,
    pub(super) body: Vec<u8>,
    pub(super) expected: Expected,
}

/// What must become of a file.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    Rows(Vec<ExpectedRow>),
    Rejected { code: &'static str, has_line: bool },
}

#[derive(Debug, Clone)]
pub(super) struct ExpectedRow {
    pub(super) sku: String,
    pub(super) line: u64,
    /// What is paid for, or why the row is rejected.
    pub(super) verdict: Result<Fingerprint, &'static str>,
}

/// A generator of chance for one concern, so that a change in one does not shuffle all others.
pub(super) fn rng(seed: u64, concern: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ concern.wrapping_mul(0xd134_2543_de82_ef95))
}

pub(super) fn percent(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(0..100) < percent
}

/// Anything up to `limit`, in milliseconds.
pub(super) fn up_to(rng: &mut Rng, limit: Duration) -> Duration {
    Duration::from_millis(rng.u64(0..=u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
}

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}

impl Plan {
    /// The world of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut rng = rng(seed, 0);
        let rng = &mut rng;
        let request_timeout = pick(rng, &[30, 60, 120, 300]) * SECOND;
        let until = MINUTE + up_to(rng, 40 * MINUTE);
        let local = percent(rng, 15);
        let reuse = pick(rng, &[30 * DAY, 30 * DAY, 30 * DAY, 7 * DAY, 7 * DAY, Duration::ZERO]);
        let generate = GenerateSettings {
            request_timeout,
            retries: rng.u32(0..=3),
            retry_after_ceiling: pick(rng, &[10, 60]) * SECOND,
            unknown_outcome_retries: rng.u32(0..=2),
            reuse,
            archive: percent(rng, 30),
            account_errors: if percent(rng, 70) { AccountPolicy::Pause } else { AccountPolicy::Fail },
            requests_per_minute: if percent(rng, 20) { NonZeroU32::new(rng.u32(20..=300)) } else { None },
            max_failed_percent: percent(rng, 15).then(|| rng.u8(10..=80)),
            sole_worker: local,
        };
        let max_images = percent(rng, 5).then_some(20);
        let split = SplitSettings { max_images, ..SplitSettings::default() };
        let faults = FaultPlan {
            rate: pick(rng, &[0, 50, 200, 500, 1_000]),
            deaths: pick(rng, &[0, 10, 30]),
            stall: pick(rng, &[SECOND, 30 * SECOND, 5 * MINUTE, 15 * MINUTE]),
            events: pick(rng, &[0, 500, 2_000]),
            until,
            crashes: Vec::new(),
        };
        let broke = if percent(rng, 30) {
            let from = up_to(rng, until / 2);
            vec![(from, (from + up_to(rng, 20 * MINUTE)).min(until))]
        } else {
            Vec::new()
        };
        let weather = Weather {
            trouble: pick(rng, &[0, 5, 20, 50, 80]),
            blocked: pick(rng, &[0, 5, 20]),
            broke,
            slowest: request_timeout / 2,
            plain: false,
        };
        let generate_timeout = request_timeout + 30 * SECOND + pick(rng, &[5, 60, 300, 600]) * SECOND;
        let window = pick(rng, &[0, 1, 20]) * SECOND;
        let hosts = Hosts {
            splitters: 2,
            generators: if local { 1 } else { rng.usize(1..=4) },
            slots: if local { rng.usize(1..=6) } else { 1 },
            mergers: 2,
            batch: if local { 1 } else { rng.usize(1..=5) },
            merge_batch: rng.usize(1..=10),
            window,
            split_timeout: pick(rng, &[21, 60, 900]) * SECOND,
            generate_timeout,
            // The template's rule is six times the timeout; shorter ones hand a message to two workers at once.
            rows_visibility: pick(rng, &[generate_timeout * 6, generate_timeout * 6, 45 * SECOND]),
            merge_visibility: window + pick(rng, &[20, 60, 360]) * SECOND,
        };
        let drops = drops(rng, &generate, &split);
        let poison = (0..pick(rng, &[0, 0, 0, 1, 2])).map(|_| up_to(rng, 5 * MINUTE)).collect();
        let redrives = (0..pick(rng, &[0, 0, 1, 2, 4])).map(|_| up_to(rng, until)).collect();
        let final_redrive = percent(rng, 60);
        let sweeps = (0..rng.usize(0..4)).map(|_| up_to(rng, until)).collect();
        Self {
            seed,
            bug: None,
            generate,
            split,
            faults,
            weather,
            hosts,
            drops,
            poison,
            redrives,
            sweeps,
            final_redrive,
        }
    }

    /// The world of a seed, with something wrong in it.
    #[must_use]
    pub fn with_bug(seed: u64, bug: Bug) -> Self {
        let mut plan = Self { bug: Some(bug), ..Self::of(seed) };
        // Ended without a redrive, a job may well end with rows that the bug has failed.
        plan.final_redrive |= bug == Bug::RetryQueueLoses;
        plan
    }

    pub(super) fn rows(&self) -> u64 {
        let rows = |drop: &Drop| if let Expected::Rows(rows) = &drop.expected { rows.len() as u64 } else { 0 };
        self.drops.iter().map(rows).sum()
    }

    /// Three rows, two of them alike, and no trouble but workers that die at the given port calls of the run.
    #[must_use]
    pub fn crashing(crashes: Vec<(u64, Moment)>) -> Self {
        let plan = Self::of(0);
        let rows = [row(1), row(2), Row { sku: "again".into(), ..row(1) }];
        let generate = GenerateSettings { archive: false, ..GenerateSettings::default() };
        let (body, expected) = write_catalog(&rows, &plan.split.defaults);
        Self {
            generate,
            split: SplitSettings::default(),
            faults: FaultPlan { rate: 0, deaths: 0, events: 0, stall: SECOND, until: Duration::ZERO, crashes },
            weather: Weather { trouble: 0, blocked: 0, broke: Vec::new(), slowest: MINUTE, plain: false },
            hosts: Hosts {
                splitters: 1,
                generators: 2,
                slots: 1,
                mergers: 2,
                batch: 2,
                merge_batch: 10,
                window: Duration::ZERO,
                split_timeout: 900 * SECOND,
                generate_timeout: 900 * SECOND,
                rows_visibility: 5_400 * SECOND,
                merge_visibility: 360 * SECOND,
            },
            drops: vec![Drop { at: Duration::ZERO, key: "incoming/three.csv".into(), body, expected }],
            poison: Vec::new(),
            redrives: Vec::new(),
            sweeps: Vec::new(),
            final_redrive: true,
            ..plan
        }
    }
}

impl Plan {
    /// One catalog of so many different rows, of which none meets any trouble, on hosts of the size of a large deployment: what
    /// a row takes when nothing goes wrong.
    #[must_use]
    pub fn calm(rows: u64, archive: bool) -> Self {
        let plan = Self::crashing(Vec::new());
        let rows: Vec<_> = (1..=rows).map(row).collect();
        let (body, expected) = write_catalog(&rows, &plan.split.defaults);
        Self {
            generate: GenerateSettings { archive, ..GenerateSettings::default() },
            split: SplitSettings { max_rows: u64::MAX, ..SplitSettings::default() },
            weather: Weather { slowest: 38 * SECOND, plain: true, ..plan.weather },
            hosts: Hosts { generators: 10, batch: 50, merge_batch: 1_000, window: 10 * SECOND, ..plan.hosts },
            drops: vec![Drop { at: Duration::ZERO, key: "incoming/calm.csv".into(), body, expected }],
            final_redrive: false,
            ..plan
        }
    }
}

/// A row as it stands in the file.
#[derive(Debug, Clone)]
struct Row {
    sku: String,
    title: String,
    image_url: String,
    brand: String,
    n: String,
    revision: String,
    /// With one field too few.
    cut: bool,
}

fn row(product: u64) -> Row {
    Row {
        sku: format!("SKU-{product}"),
        title: format!("Product {product}"),
        image_url: format!("https://shop.example/{product}.jpg"),
        brand: "Northline".into(),
        n: String::new(),
        revision: String::new(),
        cut: false,
    }
}

fn drops(rng: &mut Rng, generate: &GenerateSettings, split: &SplitSettings) -> Vec<Drop> {
    let count = match rng.u32(0..2_000) {
        // Two parts; and more than the splitter sends between two checkpoints.
        0..3 => rng.usize(1_001..1_300),
        3 => rng.usize(2_001..2_200),
        4..220 => rng.usize(1..=50),
        220..240 => 0,
        _ => rng.usize(1..=10),
    };
    let odd = pick(rng, &[0, 10, 40]);
    let mut rows = catalog(rng, count, odd);
    let mut drops = Vec::new();
    let mut at = Duration::ZERO;
    for number in 0..pick(rng, &[1, 1, 2, 2, 3]) {
        let mut key = "incoming/spring/shoes.csv";
        if number > 0 {
            at += match rng.u32(0..10) {
                0..2 => Duration::ZERO,
                2..5 => up_to(rng, 5 * SECOND),
                5..8 => up_to(rng, 20 * MINUTE),
                // When what was paid for may no longer be reused.
                _ if percent(rng, 50) => generate.reuse + SECOND,
                _ => 2 * DAY,
            };
            match rng.u32(0..10) {
                // The same file again.
                0..4 => {}
                // One row edited.
                4..6 if !rows.is_empty() => {
                    let row = rng.usize(0..rows.len());
                    rows[row].title.push_str(" (new)");
                }
                6 if !rows.is_empty() => {
                    let row = rng.usize(0..rows.len());
                    rows[row].revision = format!("{number}");
                }
                // Another file over the same products.
                _ => {
                    key = "incoming/autumn.csv";
                    rows = catalog(rng, rng.clone().usize(0..20), odd);
                }
            }
        }
        let (body, expected) =
            if percent(rng, 4) { not_a_catalog(rng, &rows) } else { write_catalog(&rows, &split.defaults) };
        let expected = match expected {
            Expected::Rows(rows) if too_many_images(&rows, split) => {
                Expected::Rejected { code: "too_many_images", has_line: true }
            }
            expected => expected,
        };
        drops.push(Drop { at, key: key.to_owned(), body, expected });
    }
    drops
}

fn too_many_images(rows: &[ExpectedRow], split: &SplitSettings) -> bool {
    let images = rows.iter().filter(|row| row.verdict.is_ok()).count() as u64 * u64::from(split.defaults.n);
    split.max_images.is_some_and(|max| images > max)
}

fn catalog(rng: &mut Rng, count: usize, odd: u32) -> Vec<Row> {
    let first = rng.u64(0..4);
    let mut rows: Vec<Row> = Vec::with_capacity(count);
    for number in 0..count as u64 {
        let mut next = row(first + number);
        if percent(rng, odd) {
            let other = (!rows.is_empty()).then(|| rows[rng.usize(0..rows.len())].clone());
            match (rng.u32(0..12), other) {
                // Another SKU with the same request.
                (0..3, Some(other)) => next = Row { sku: next.sku, ..other },
                // The same row again.
                (3..5, Some(other)) => next = other,
                // The same SKU with another request.
                (5, Some(other)) => next.sku = other.sku,
                (6, _) => next.title = " ".into(),
                (7, _) => next.image_url = "ftp://shop.example/1.jpg".into(),
                (8, _) => next.n = "7".into(),
                (9, _) => next.cut = true,
                (10, _) => next.sku = pick(rng, &["../../x", "a b/ü \"c\"", "..", "100%"]).to_owned() + &next.sku,
                _ => next.brand = "Over\ntwo lines".into(),
            }
        }
        rows.push(next);
    }
    rows
}

fn write_catalog(rows: &[Row], defaults: &Defaults) -> (Vec<u8>, Expected) {
    let mut text = String::from("note,sku,title,image_url,brand,style_tags,n,revision\n");
    let mut seen: BTreeMap<String, Fingerprint> = BTreeMap::new();
    let mut expected = Vec::with_capacity(rows.len());
    let mut line = 2;
    for row in rows {
        let fields = ["kept", &row.sku, &row.title, &row.image_url, &row.brand, "", &row.n, &row.revision];
        let fields = if row.cut { &fields[..7] } else { &fields };
        let quoted: Vec<_> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
        let record = quoted.join(",") + "\n";
        expected.push(ExpectedRow { sku: row.sku.clone(), line, verdict: judge(row, defaults, &mut seen) });
        line += record.matches('\n').count() as u64;
        text.push_str(&record);
    }
    (text.into_bytes(), Expected::Rows(expected))
}

/// What the contract says about a row, in the words of the contract and not of the code under test.
fn judge(
    row: &Row,
    defaults: &Defaults,
    seen: &mut BTreeMap<String, Fingerprint>,
) -> Result<Fingerprint, &'static str> {
    if row.cut {
        return Err("field_count");
    }
    if row.title.trim().is_empty() {
        return Err("empty_field");
    }
    if !row.image_url.starts_with("https://") {
        return Err("invalid_image_url");
    }
    if !row.n.is_empty() {
        return Err("invalid_n");
    }
    let request = Request {
        model: defaults.model.clone(),
        prompt: format!(
            "E-commerce hero product photo of {}. Brand identity: {}. Photorealistic, centered composition, clean edges, no \
             watermark, no extra text.",
            row.title.trim(),
            row.brand
        ),
        image_url: row.image_url.clone(),
        size: defaults.size.clone(),
        quality: defaults.quality.clone(),
        n: defaults.n,
        background: None,
        revision: (!row.revision.is_empty()).then(|| row.revision.clone()),
    };
    let fingerprint = request.fingerprint();
    if *seen.entry(row.sku.clone()).or_insert_with(|| fingerprint.clone()) != fingerprint {
        return Err("duplicate_sku");
    }
    Ok(fingerprint)
}

fn not_a_catalog(rng: &mut Rng, rows: &[Row]) -> (Vec<u8>, Expected) {
    // Few, so that no limit is met before the trouble.
    let (mut body, _) = write_catalog(&rows[..rows.len().min(2)], &Defaults::default());
    let (code, has_line) = match rng.u32(0..3) {
        0 => {
            body.clear();
            ("empty_file", false)
        }
        1 => {
            let title = body.windows(5).position(|word| word == b"title").unwrap_or_default();
            body.splice(title..title + 5, *b"xyzzy");
            ("missing_column", true)
        }
        _ => {
            body.splice(..4, *b"sku");
            ("duplicate_column", true)
        }
    };
    (body, Expected::Rejected { code, has_line })
}
