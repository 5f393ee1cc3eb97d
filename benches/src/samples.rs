//! Catalogs, messages and results with the size and shape of real ones. A row's content depends on its number alone, so the
//! harness can compute what any process should have read or written.

use std::io::{self, Write};

use jiff::Timestamp;
use packshot_pipeline::model::{
    keys::{Catalog, JobId},
    message::{self, RowMessage},
    request::Request,
    result::{Asset, Completed, CompletedStatus, RowResult},
};

/// The bucket of all measurements.
pub const BUCKET: &str = "bench";

/// The object key of the measured catalog.
pub const CATALOG_KEY: &str = "incoming/bench.csv";

const KINDS: [&str; 8] =
    ["Trail runner", "Leather satchel", "Enamel mug", "Linen shirt", "Desk lamp", "Rain jacket", "Oak stool", "Teapot"];
const STYLES: [&str; 4] =
    ["outdoor, breathable, lightweight", "minimal, studio", "vintage, warm light", "bold, high contrast, floating"];
const BRANDS: [&str; 4] = ["Northwind", "Acme & Sons", "Café Noir", "Kōyō"];

fn pick<'a>(words: &[&'a str], row: u64) -> &'a str {
    words.get((row % words.len() as u64) as usize).copied().unwrap_or_default()
}

/// The SKU of a row.
#[must_use]
pub fn sku(row: u64) -> String {
    format!("SKU-{row:08}")
}

/// The header of [`catalog_row`].
pub const HEADER: &str = "sku,title,image_url,brand,style_tags\n";

/// Writes one row, about 150 bytes, one field quoted.
pub fn catalog_row(to: &mut impl Write, row: u64) -> io::Result<()> {
    writeln!(
        to,
        "SKU-{row:08},{} no. {row} with reinforced seams,https://img.example.com/products/{:03}/SKU-{row:08}.jpg,{},\"{}\"",
        pick(&KINDS, row),
        row % 997,
        pick(&BRANDS, row / 7),
        pick(&STYLES, row / 3),
    )
}

/// Writes a catalog with this number of rows.
pub fn catalog(to: &mut impl Write, rows: u64) -> io::Result<()> {
    to.write_all(HEADER.as_bytes())?;
    (1..=rows).try_for_each(|row| catalog_row(to, row))
}

/// The request that the splitter builds from a row.
#[must_use]
pub fn request(row: u64) -> Request {
    Request {
        model: "gpt-image-1".into(),
        prompt: format!(
            "E-commerce hero product photo of {} no. {row} with reinforced seams. Brand identity: {}. Style cues: {}. \
             Photorealistic, centered composition, clean edges, no watermark, no extra text.",
            pick(&KINDS, row),
            pick(&BRANDS, row / 7),
            pick(&STYLES, row / 3)
        ),
        image_url: format!("https://img.example.com/products/{:03}/SKU-{row:08}.jpg", row % 997),
        size: "1024x1024".into(),
        quality: "high".into(),
        n: 4,
        background: None,
        revision: None,
    }
}

/// The id of the job that the measured catalog becomes. The fake bucket has no versions.
#[must_use]
pub fn job() -> JobId {
    JobId::of(BUCKET, CATALOG_KEY, "1", "")
}

/// The message that the splitter sends for a row.
#[must_use]
pub fn message(job: &JobId, row: u64) -> RowMessage {
    let request = request(row);
    let input = [
        ("sku", sku(row)),
        ("title", format!("{} no. {row} with reinforced seams", pick(&KINDS, row))),
        ("image_url", request.image_url.clone()),
        ("brand", pick(&BRANDS, row / 7).to_owned()),
        ("style_tags", pick(&STYLES, row / 3).to_owned()),
    ];
    RowMessage {
        v: message::VERSION,
        job: job.clone(),
        catalog: catalog_id(),
        row,
        line: row + 1,
        sku: sku(row),
        fingerprint: request.fingerprint(),
        round: 0,
        request,
        input: input.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
    }
}

/// The catalog of [`CATALOG_KEY`].
#[must_use]
#[expect(clippy::expect_used, reason = "a constant")]
pub fn catalog_id() -> Catalog {
    Catalog::of(CATALOG_KEY).expect("a catalog's key")
}

/// The completed result of a row: four image URLs, no image archived.
#[must_use]
pub fn result(job: &JobId, row: u64) -> RowResult {
    let request = request(row);
    let assets: Vec<Asset> = Vec::new();
    RowResult::Completed(Box::new(Completed {
        sku: sku(row),
        status: CompletedStatus::Completed,
        image_count: 4,
        image_urls: (1..=4).map(|n| format!("https://cdn.example.com/gen/{row:016x}/{n}.png")).collect(),
        request_id: Some(format!("gen_{row:012}")),
        model_actual: Some("openai/gpt-image-1".into()),
        row,
        job: job.clone(),
        fingerprint: request.fingerprint(),
        attempts: 1,
        reused: false,
        model: request.model,
        latency_ms: 20_000 + row % 1_000,
        completed_at: Timestamp::UNIX_EPOCH,
        assets,
        short: false,
        unknown_outcomes: 0,
        archive_error: None,
        image_url: Some(request.image_url),
        prompt: Some(request.prompt),
    }))
}
