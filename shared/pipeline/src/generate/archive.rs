//! Keeping the pictures: the addresses that image APIs hand out expire.

use bytes::Bytes;
use futures::future::join_all;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::model::result::Asset;
use crate::{
    model::{
        keys::{self, Catalog},
        request::hex,
    },
    ports::{FetchError, Picture, Ports, Precondition},
    storage,
};

/// The largest picture that is kept, in bytes.
pub const MAX_PICTURE_BYTES: usize = 32 * 1024 * 1024;
/// Pictures that a process fetches at once, whatever the number of its rows: what they take in memory does not grow with the
/// batch.
pub const AT_ONCE: usize = 16;
/// Tries at fetching one picture.
const TRIES: usize = 3;

/// What became of the pictures of one row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archived {
    /// Those that were kept, in order.
    pub assets: Vec<Asset>,
    /// Why others were not, one sentence each.
    pub error: Option<String>,
}

/// Keeps pictures under `images/`. Never fails as a whole: a picture that cannot be kept does not lose the paid result.
/// The same pictures kept twice give the same objects.
pub async fn keep(
    ports: &Ports,
    places: &Semaphore,
    catalog: &Catalog,
    sku: &str,
    pictures: &[(usize, Picture)],
) -> Archived {
    let kept = join_all(pictures.iter().map(|(n, picture)| keep_one(ports, places, catalog, sku, *n, picture))).await;
    let mut archived = Archived::default();
    let mut errors = Vec::new();
    for ((n, _), outcome) in pictures.iter().zip(kept) {
        match outcome {
            Ok(asset) => archived.assets.push(asset),
            Err(error) => errors.push(format!("picture {n}: {error}")),
        }
    }
    archived.error = (!errors.is_empty()).then(|| errors.join("; "));
    archived
}

async fn keep_one(
    ports: &Ports,
    places: &Semaphore,
    catalog: &Catalog,
    sku: &str,
    n: usize,
    picture: &Picture,
) -> Result<Asset, String> {
    // What came inline is in memory already, and waiting would keep a paid outcome from being recorded.
    let _place = match picture {
        Picture::Url(_) => places.acquire().await.ok(),
        Picture::Inline(_) => None,
    };
    let bytes = match picture {
        Picture::Inline(bytes) => bytes.clone(),
        Picture::Url(url) => fetch(ports, url).await.map_err(|error| error.to_string())?,
    };
    let (extension, content_type) = kind(&bytes).ok_or("not a picture (PNG, JPEG, WebP or GIF) by its first bytes")?;
    let size = imagesize::blob_size(&bytes).map_err(|error| format!("its size cannot be read: {error}"))?;
    let asset = Asset {
        n,
        key: keys::image(catalog, sku, n, extension),
        content_type: content_type.to_owned(),
        bytes: bytes.len(),
        sha256: hex(&Sha256::digest(&bytes)),
        width: size.width,
        height: size.height,
    };
    storage::write(ports, &asset.key, bytes, Precondition::None).await.map_err(|error| error.to_string())?;
    Ok(asset)
}

async fn fetch(ports: &Ports, url: &str) -> Result<Bytes, FetchError> {
    use backon::Retryable as _;
    (|| async { ports.images.fetch(url, MAX_PICTURE_BYTES).await })
        .retry(
            backon::ExponentialBuilder::default()
                .with_max_times(TRIES - 1)
                .with_jitter()
                .with_jitter_seed(ports.clock.random()),
        )
        .when(|error| matches!(error, FetchError::Unavailable { .. }))
        .await
}

fn kind(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    match imagesize::image_type(bytes).ok()? {
        imagesize::ImageType::Png => Some(("png", "image/png")),
        imagesize::ImageType::Jpeg => Some(("jpg", "image/jpeg")),
        imagesize::ImageType::Webp => Some(("webp", "image/webp")),
        imagesize::ImageType::Gif => Some(("gif", "image/gif")),
        _ => None,
    }
}
