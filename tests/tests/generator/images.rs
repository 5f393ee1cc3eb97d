//! Archiving the images of a call: links and inline images, failures, limits, and reused outcomes.

use bytes::Bytes;
use packshot_pipeline::{
    generate::archive,
    model::result::Asset,
    ports::{FetchError, GeneratedImage},
};
use sha2::{Digest as _, Sha256};

use crate::harness::{Answer, Harness, message, urls};

const ONE: &str = "https://images.test/one";
const TWO: &str = "https://images.test/two";

/// The beginning of a PNG, which is enough to recognise its type and size.
fn png(width: u32, height: u32) -> Bytes {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([8, 2, 0, 0, 0]);
    bytes.into()
}

fn asset(n: usize, bytes: &Bytes, width: usize, height: usize) -> Asset {
    Asset {
        n,
        key: format!("images/spring/shoes/SKU-1/SKU-1_{n}.png"),
        content_type: "image/png".into(),
        bytes: bytes.len(),
        sha256: hex::encode(Sha256::digest(bytes)),
        width,
        height,
    }
}

fn archiving() -> Harness {
    Harness::with(|settings| settings.archive = true)
}

#[tokio::test(start_paused = true)]
async fn linked_and_inline_images_are_archived() {
    let (first, second) = (png(640, 480), png(32, 1_000));
    let (url, inline) =
        (|url: &str| GeneratedImage::Url(url.to_owned()), |bytes: &Bytes| GeneratedImage::Inline(bytes.clone()));
    for (answer, count_of_urls) in [
        (vec![url(ONE), url(TWO)], 2),
        (vec![inline(&first), inline(&second)], 0),
        (vec![url(ONE), inline(&second)], 1),
        (vec![inline(&first), url(TWO)], 1),
    ] {
        let (harness, mug) = (archiving(), message(1, "mug"));
        harness.serve_image(ONE, Ok(first.clone()));
        harness.serve_image(TWO, Ok(second.clone()));
        harness.script("mug", [Answer::Images(answer)]);
        harness.run(std::slice::from_ref(&mug)).await;
        let completed = harness.completed(&mug).await;
        assert_eq!((completed.image_count, completed.image_urls.len()), (2, count_of_urls));
        assert_eq!(completed.archive_error, None);
        let mut assets = completed.assets;
        assert_eq!(assets.len(), 2);
        for asset in &assets {
            let kept = harness.read(&asset.key).await.unwrap();
            assert_eq!(Sha256::digest(&kept), Sha256::digest(if asset.width == 640 { &first } else { &second }));
        }
        // In a mixed answer, which no known API gives, the inline images follow the linked ones.
        if count_of_urls != 1 {
            assert_eq!(assets, [asset(1, &first, 640, 480), asset(2, &second, 32, 1_000)]);
        }
        assets.dedup_by_key(|asset| asset.sha256.clone());
        assert_eq!(assets.len(), 2, "no image replaces another");
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_archived_does_not_fail_the_row() {
    let unavailable = FetchError::Unavailable { detail: "HTTP 503".into() };
    let refused = FetchError::Refused { detail: "a forbidden address".into() };
    for (second, fetches, error) in [
        (Err(unavailable), 1 + 3, "image 2: HTTP 503"),
        (Err(refused), 1 + 1, "image 2: a forbidden address"),
        (Ok(Bytes::from_static(b"<html>")), 1 + 1, "image 2: not an image (PNG, JPEG, WebP or GIF) by its first bytes"),
        (Ok(Bytes::new()), 1 + 1, "image 2: not an image (PNG, JPEG, WebP or GIF) by its first bytes"),
    ] {
        let (harness, mug) = (archiving(), message(1, "mug"));
        harness.serve_image(ONE, Ok(png(1, 1)));
        harness.serve_image(TWO, second);
        harness.script("mug", [urls(&[ONE, TWO])]);
        harness.run(std::slice::from_ref(&mug)).await;
        let completed = harness.completed(&mug).await;
        assert_eq!((completed.image_count, completed.image_urls), (2, vec![ONE.to_owned(), TWO.to_owned()]));
        assert_eq!(completed.assets, [asset(1, &png(1, 1), 1, 1)]);
        assert_eq!((completed.archive_error.as_deref(), harness.fetches()), (Some(error), fetches));
        assert_eq!(harness.calls().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_concurrent_fetches_of_a_batch_are_limited() {
    let harness = archiving();
    let messages: Vec<_> = (1..=10).map(|row| message(row, &format!("mug {row}"))).collect();
    for row in 1..=10 {
        let links: Vec<_> = (1..=4).map(|n| format!("https://images.test/{row}/{n}.png")).collect();
        links.iter().for_each(|link| harness.serve_image(link, Ok(png(1, 1))));
        harness.script(&format!("mug {row}"), [urls(&links.iter().map(String::as_str).collect::<Vec<_>>())]);
    }
    harness.run(&messages).await;
    for message in &messages {
        assert_eq!(harness.completed(message).await.assets.len(), 4);
    }
    assert_eq!((harness.fetches(), harness.most_fetches_at_once()), (40, archive::AT_ONCE as u64));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_reuses_an_outcome_reuses_its_assets() {
    let (harness, first, second) = (archiving(), message(1, "mug"), message(2, "mug"));
    for url in [ONE, TWO] {
        harness.serve_image(url, Ok(png(1, 1)));
    }
    harness.script("mug", [urls(&[ONE, TWO])]);
    harness.run(&[first.clone(), second.clone()]).await;
    let (first, second) = (harness.completed(&first).await, harness.completed(&second).await);
    assert_eq!((first.reused, second.reused), (false, true));
    assert_eq!((first.assets.len(), &first.assets), (2, &second.assets));
    assert_eq!(harness.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn inline_images_are_always_archived() {
    let (harness, mug) = (Harness::with(|settings| settings.archive = false), message(1, "mug"));
    harness.script("mug", [Answer::Images(vec![GeneratedImage::Inline(png(1, 1)), GeneratedImage::Url(TWO.into())])]);
    harness.run(std::slice::from_ref(&mug)).await;
    let completed = harness.completed(&mug).await;
    assert_eq!((completed.assets.len(), completed.image_urls.len(), harness.fetches()), (1, 1, 0));
}
