//! Keeps images under `images/`, because the addresses that image APIs return expire.
//!
//! Each image is fetched if it came as an address, recognised by its first bytes, measured, and written. An image that cannot
//! be kept is reported and does not fail the row.

use bytes::Bytes;
use futures::future::join_all;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::{
    model::{
        keys::{self, Catalog},
        result::Asset,
    },
    ports::{FetchError, GeneratedImage, Ports, Precondition},
    storage,
};

/// The largest image that is kept, in bytes.
pub const MAX_IMAGE_BYTES: usize = 32 * 1024 * 1024;
/// The number of images that a process fetches at once. Independent of the batch size, so that the memory does not grow with
/// the batch.
pub const AT_ONCE: usize = 16;
/// Attempts to fetch one image.
const TRIES: usize = 3;

/// The images of one row that were kept, and the errors of the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveOutcome {
    /// The kept images, in the API's order.
    pub assets: Vec<Asset>,
    /// Why the others could not be kept, one clause for each.
    pub error: Option<String>,
}

/// Keeps images under `images/`. Idempotent: the same images give the same objects. Never fails as a whole, because an image
/// that cannot be kept must not lose the paid outcome. Each fetch takes one of `slots`.
pub async fn keep(
    ports: &Ports,
    slots: &Semaphore,
    catalog: &Catalog,
    sku: &str,
    images: &[(usize, GeneratedImage)],
) -> ArchiveOutcome {
    let kept = join_all(images.iter().map(|(n, image)| keep_one(ports, slots, catalog, sku, *n, image))).await;
    let mut archived = ArchiveOutcome::default();
    let mut errors = Vec::new();
    for ((n, _), outcome) in images.iter().zip(kept) {
        match outcome {
            Ok(asset) => archived.assets.push(asset),
            Err(error) => errors.push(format!("image {n}: {error}")),
        }
    }
    archived.error = (!errors.is_empty()).then(|| errors.join("; "));
    archived
}

async fn keep_one(
    ports: &Ports,
    slots: &Semaphore,
    catalog: &Catalog,
    sku: &str,
    n: usize,
    image: &GeneratedImage,
) -> Result<Asset, String> {
    // Inline images are in memory already. Waiting for a slot would delay the recording of a paid outcome.
    let _slot = match image {
        GeneratedImage::Url(_) => slots.acquire().await.ok(),
        GeneratedImage::Inline(_) => None,
    };
    let bytes = match image {
        GeneratedImage::Inline(bytes) => bytes.clone(),
        GeneratedImage::Url(url) => fetch(ports, url).await.map_err(|error| error.to_string())?,
    };
    let (extension, content_type) = kind(&bytes).ok_or("not an image (PNG, JPEG, WebP or GIF) by its first bytes")?;
    let size = imagesize::blob_size(&bytes).map_err(|error| format!("its size cannot be read: {error}"))?;
    let asset = Asset {
        n,
        key: keys::image(catalog, sku, n, extension),
        content_type: content_type.to_owned(),
        bytes: bytes.len(),
        sha256: hex::encode(Sha256::digest(&bytes)),
        width: size.width,
        height: size.height,
    };
    storage::write(ports, &asset.key, bytes, Precondition::None).await.map_err(|error| error.to_string())?;
    Ok(asset)
}

async fn fetch(ports: &Ports, url: &str) -> Result<Bytes, FetchError> {
    use backon::Retryable as _;
    (|| async { ports.images.fetch(url, MAX_IMAGE_BYTES).await })
        .retry(
            backon::ExponentialBuilder::default()
                .with_max_times(TRIES - 1)
                .with_jitter()
                .with_jitter_seed(ports.clock.random()),
        )
        .when(|error| matches!(error, FetchError::Unavailable { .. }))
        .await
}

/// Extension and MIME type of an image, by its first bytes.
fn kind(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match imagesize::image_type(bytes).ok()? {
        imagesize::ImageType::Png => Some(("png", "image/png")),
        imagesize::ImageType::Jpeg => Some(("jpg", "image/jpeg")),
        imagesize::ImageType::Webp => Some(("webp", "image/webp")),
        imagesize::ImageType::Gif => Some(("gif", "image/gif")),
        _ => None,
    }
}
