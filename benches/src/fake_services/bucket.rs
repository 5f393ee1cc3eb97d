//! S3 with one bucket: a sorted map of objects in memory. PUT, GET with a range, HEAD, listings and multipart uploads, with
//! the preconditions `If-Match` and `If-None-Match`.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
    ops::Bound,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::{Bytes, BytesMut};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, RANGE},
    http::request::Parts,
};
use packshot_benches::samples::BUCKET;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use super::{
    answer::{self, Answer},
    counters::Counters,
    query::Query,
};

const MODIFIED: &str = "Sun, 01 Mar 2026 12:00:00 GMT";
const MODIFIED_ISO: &str = "2026-03-01T12:00:00.000Z";

#[derive(Default)]
pub(super) struct Bucket {
    objects: Mutex<BTreeMap<String, Object>>,
    uploads: Mutex<BTreeMap<String, BTreeMap<u32, Bytes>>>,
    next: AtomicU64,
}

#[derive(Clone)]
struct Object {
    body: Bytes,
    etag: String,
}

impl Bucket {
    pub(super) fn get(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().get(key).map(|object| object.body.clone())
    }

    pub(super) fn put(&self, key: String, body: Bytes) {
        let etag = etag(&body);
        self.objects.lock().insert(key, Object { body, etag });
    }

    /// Removes all objects outside `incoming/`.
    pub(super) fn clear(&self) {
        self.objects.lock().retain(|key, _| key.starts_with("incoming/"));
        self.uploads.lock().clear();
    }

    /// The first key with this prefix and this end.
    pub(super) fn find(&self, prefix: &str, end: &str) -> Option<String> {
        let objects = self.objects.lock();
        let mut keys = objects.range(prefix.to_owned()..).map(|(key, _)| key);
        keys.by_ref().take_while(|key| key.starts_with(prefix)).find(|key| key.ends_with(end)).cloned()
    }

    pub(super) fn answer(&self, counters: &Counters, caller: &str, head: &Parts, body: Bytes) -> Answer {
        let path = head.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket != BUCKET {
            return failure(StatusCode::NOT_FOUND, "NoSuchBucket");
        }
        let Ok(key) = percent_decode_str(key).decode_utf8() else {
            return answer::unsupported("a key that is not UTF-8");
        };
        let query = Query::parse(head.uri.query().unwrap_or_default());
        match (&head.method, query.get("uploadId")) {
            (&Method::PUT, None) => {
                counters.add(caller, |counts| counts.puts += 1);
                // The body is a slice of the connection's buffer; without the copy the object would keep the whole buffer.
                self.write(&key, Bytes::copy_from_slice(&body), &head.headers, |etag| stored(&etag))
            }
            (&Method::GET, None) if key.is_empty() && query.get("list-type").is_some() => {
                counters.add(caller, |counts| counts.lists += 1);
                self.list(&query)
            }
            (&Method::GET, None) => {
                counters.add(caller, |counts| counts.gets += 1);
                self.read(&key, &head.headers)
            }
            (&Method::HEAD, None) => {
                counters.add(caller, |counts| counts.heads += 1);
                match self.objects.lock().get(&*key) {
                    // HEAD needs the length of the body, which hyper takes from it; hyper does not send the body itself.
                    Some(object) => found(StatusCode::OK, object.body.clone(), &object.etag),
                    None => answer::status(StatusCode::NOT_FOUND, ""),
                }
            }
            (&Method::POST, None) if query.get("uploads").is_some() => {
                counters.add(caller, |counts| counts.multipart += 1);
                let id = format!("upload-{}", self.next.fetch_add(1, Ordering::Relaxed));
                self.uploads.lock().insert(id.clone(), BTreeMap::new());
                xml(format!(
                    "<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>"
                ))
            }
            (&Method::PUT, Some(upload)) => {
                counters.add(caller, |counts| counts.multipart += 1);
                let number = query.get("partNumber").and_then(|number| number.parse().ok()).unwrap_or_default();
                let etag = etag(&body);
                match self.uploads.lock().get_mut(&upload) {
                    Some(parts) => {
                        parts.insert(number, body);
                        stored(&etag)
                    }
                    None => failure(StatusCode::NOT_FOUND, "NoSuchUpload"),
                }
            }
            (&Method::POST, Some(upload)) => {
                counters.add(caller, |counts| counts.multipart += 1);
                let Some(parts) = self.uploads.lock().remove(&upload) else {
                    return failure(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                let room = BytesMut::with_capacity(parts.values().map(Bytes::len).sum());
                let whole = parts.values().fold(room, |mut whole, part| {
                    whole.extend_from_slice(part);
                    whole
                });
                self.write(&key, whole.freeze(), &head.headers, |etag| {
                    xml(format!(
                        "<CompleteMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{key}</Key>\
                         <ETag>\"{etag}\"</ETag></CompleteMultipartUploadResult>"
                    ))
                })
            }
            (&Method::DELETE, Some(upload)) => {
                self.uploads.lock().remove(&upload);
                answer::status(StatusCode::NO_CONTENT, "")
            }
            _ => answer::unsupported(&format!("{} {}", head.method, head.uri)),
        }
    }

    fn write(&self, key: &str, body: Bytes, headers: &HeaderMap, stored: impl FnOnce(String) -> Answer) -> Answer {
        let etag = etag(&body);
        let mut objects = self.objects.lock();
        let seen = objects.get(key).map(|object| object.etag.as_str());
        if headers.contains_key(IF_NONE_MATCH) && seen.is_some() {
            return failure(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        if let Some(wanted) = headers.get(IF_MATCH).and_then(|wanted| wanted.to_str().ok()) {
            match seen {
                None => return failure(StatusCode::NOT_FOUND, "NoSuchKey"),
                Some(seen) if seen == wanted.trim_matches('"') => {}
                Some(_) => return failure(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            }
        }
        objects.insert(key.to_owned(), Object { body, etag: etag.clone() });
        drop(objects);
        stored(etag)
    }

    fn read(&self, key: &str, headers: &HeaderMap) -> Answer {
        let Some(Object { body, etag }) = self.objects.lock().get(key).cloned() else {
            return failure(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        match headers.get(RANGE) {
            None => found(StatusCode::OK, body, &etag),
            Some(range) => match byte_range(range, body.len()) {
                Some((from, to)) => found(StatusCode::PARTIAL_CONTENT, body.slice(from..to), &etag),
                None => answer::unsupported("this range"),
            },
        }
    }

    fn list(&self, query: &Query) -> Answer {
        const KNOWN: [&str; 5] = ["list-type", "max-keys", "prefix", "start-after", "encoding-type"];
        if let Some(name) = query.other_than(&KNOWN) {
            return answer::unsupported(&format!("{name} in a listing"));
        }
        let prefix = query.get("prefix").unwrap_or_default();
        let limit = query.get("max-keys").and_then(|limit| limit.parse().ok()).unwrap_or(1_000);
        let begin = match query.get("start-after") {
            Some(after) if after > prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix.clone()),
        };
        let objects = self.objects.lock();
        let mut under = objects.range((begin, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(&prefix));
        let mut text = String::from("<ListBucketResult>");
        // No escaping: the keys of the samples have no character that XML reserves.
        for (key, object) in under.by_ref().take(limit) {
            text.push_str(&format!(
                "<Contents><Key>{key}</Key><LastModified>{MODIFIED_ISO}</LastModified><ETag>&quot;{}&quot;</ETag>\
                 <Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
                object.etag,
                object.body.len()
            ));
        }
        let more = under.next().is_some();
        text.push_str(&format!("<IsTruncated>{more}</IsTruncated></ListBucketResult>"));
        xml(text)
    }
}

/// Parses `bytes=A-` or `bytes=A-B`.
fn byte_range(range: &HeaderValue, length: usize) -> Option<(usize, usize)> {
    let (from, to) = range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { length } else { to.parse::<usize>().ok()?.saturating_add(1).min(length) };
    (from <= to).then_some((from, to))
}

/// Equal bytes get the same ETag, as on S3. A hash that is cheaper than MD5 is enough: no client computes it.
fn etag(body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("{:016x}{:016x}", hasher.finish(), body.len())
}

fn stored(etag: &str) -> Answer {
    with_etag(answer::status(StatusCode::OK, ""), etag)
}

fn found(code: StatusCode, body: Bytes, etag: &str) -> Answer {
    let mut answer = with_etag(answer::status(code, body), etag);
    answer.headers_mut().insert(LAST_MODIFIED, HeaderValue::from_static(MODIFIED));
    answer
}

fn with_etag(mut answer: Answer, etag: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        answer.headers_mut().insert(ETAG, value);
    }
    answer
}

fn xml(text: String) -> Answer {
    answer::typed(StatusCode::OK, "application/xml", text)
}

fn failure(code: StatusCode, word: &str) -> Answer {
    let text = format!("<Error><Code>{word}</Code><Message>{word}</Message></Error>");
    answer::typed(code, "application/xml", text)
}
