//! Opens the file that both passes read.
//!
//! An event may be older than the object: where it names a version, that version is read; otherwise its ETag must match.

use crate::{
    catalog::{
        columns::Columns,
        reader::{CatalogReader, ReadError},
        validate::Validator,
    },
    model::{catalog_error::CatalogError, column::ColumnMap, defaults::Defaults, job::Source},
    ports::{Ports, StoreError},
    storage,
};

/// An object that appeared under `incoming/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitInput {
    /// Bucket name.
    pub bucket: String,
    /// Key, decoded.
    pub key: String,
    /// The object's version, where the bucket has versions.
    pub version_id: Option<String>,
    /// ETag of the content that the event announces, where it names one.
    pub etag: Option<String>,
    /// Distinguishes jobs over the same version where a host has options per job. Empty on AWS.
    pub edition: String,
    /// Round of the messages; 0 on AWS. A host without a durable queue sends every row again in a higher round.
    pub round: u64,
}

/// Opens the object, unless it has been replaced or removed since the event.
pub(super) async fn open(
    ports: &Ports,
    source: &SplitInput,
    map: &ColumnMap,
) -> Result<Option<(CatalogReader, Source)>, StoreError> {
    let version = source.version_id.as_deref();
    let opened = storage::repeat_read(ports, || ports.store.open(&source.key, version)).await?;
    let Some(object) = opened else { return Ok(None) };
    if version.is_none() && source.etag.as_ref().is_some_and(|etag| *etag != object.meta.etag.0) {
        return Ok(None);
    }
    let found = Source {
        bucket: source.bucket.clone(),
        key: source.key.clone(),
        version_id: source.version_id.clone(),
        etag: object.meta.etag,
        bytes: object.meta.bytes,
        last_modified: object.meta.last_modified,
    };
    Ok(Some((CatalogReader::with_map(object.body, map.clone()), found)))
}

/// Reads the header, which says how the rows are validated.
pub(super) async fn header(
    reader: &mut CatalogReader,
    map: &ColumnMap,
    defaults: Defaults,
) -> Result<Validator, ReadError> {
    let Some(header) = reader.next().await? else {
        let what = "the file is empty; its first line must name the columns: sku,title,image_url,brand,style_tags";
        return Err(CatalogError::new("empty_file", what).into());
    };
    Ok(Validator::new(Columns::read(&header, map)?, defaults)?)
}
