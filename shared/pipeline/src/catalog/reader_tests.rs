//! Tests of the whole way from bytes to records, in chunks of every size.

use futures::{StreamExt as _, TryStreamExt as _};
use proptest::prelude::*;

use super::*;
use crate::model::{
    catalog_error::CatalogError,
    format::{Compression, Encoding, LineEnding},
};

type Read = Vec<(u64, Vec<String>)>;

async fn read_whole(bytes: &[u8], chunk: usize) -> Result<(Read, Format), CatalogError> {
    let chunks: Vec<_> = bytes.chunks(chunk).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    let mut reader = CatalogReader::new(futures::stream::iter(chunks).boxed());
    let mut records = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(record)) => records.push((record.line, record.fields().map(str::to_owned).collect())),
            Ok(None) => return Ok((records, reader.format())),
            Err(ReadError::Catalog(problem)) => return Err(problem),
            Err(ReadError::Store(error)) => panic!("{error}"),
        }
    }
}

async fn read(bytes: &[u8], chunk: usize) -> Result<Read, String> {
    read_whole(bytes, chunk).await.map(|(records, _)| records).map_err(|problem| problem.to_string())
}

fn record(line: u64, fields: &[&str]) -> (u64, Vec<String>) {
    (line, fields.iter().map(|&f| f.to_owned()).collect())
}

#[tokio::test]
async fn records_know_their_physical_line() {
    let cases: &[(&str, Read)] = &[
        ("", vec![]),
        ("\n\n", vec![]),
        ("a,b", vec![record(1, &["a", "b"])]),
        ("\u{feff}a,b\n1,2\n", vec![record(1, &["a", "b"]), record(2, &["1", "2"])]),
        ("a\r\n\r\n\r\nb\r\n", vec![record(1, &["a"]), record(4, &["b"])]),
        ("a\rb\r\rc", vec![record(1, &["a"]), record(2, &["b"]), record(4, &["c"])]),
        ("a,\"x\r\ny\r\n\"\r\nb,\"\"\"\"", vec![record(1, &["a", "x\r\ny\r\n"]), record(4, &["b", "\""])]),
        ("a\n   \nb\n", vec![record(1, &["a"]), record(3, &["b"])]),
        (",,\n a,b\n,,\n", vec![record(2, &[" a", "b"])]),
        ("sep=;\r\na;b\r\n1;2,3\r\n", vec![record(2, &["a", "b"]), record(3, &["1", "2,3"])]),
        ("a,b\n1,2\n\u{1a}", vec![record(1, &["a", "b"]), record(2, &["1", "2"])]),
        ("a,b\n1,2\u{1a}", vec![record(1, &["a", "b"]), record(2, &["1", "2"])]),
        ("a,b\n1,2\n\u{1a}\r\n", vec![record(1, &["a", "b"]), record(2, &["1", "2"])]),
        ("a,b\n1,\u{1a}2\n", vec![record(1, &["a", "b"]), record(2, &["1", "\u{1a}2"])]),
    ];
    for (text, expected) in cases {
        for chunk in [1, 2, 3, 1_000] {
            assert_eq!(read(text.as_bytes(), chunk).await.as_ref(), Ok(expected), "{text:?} in chunks of {chunk}");
        }
    }
}

#[tokio::test]
async fn an_unclosed_quote_is_reported_where_it_opened() {
    let endless = "never closed\n".repeat(20_000);
    for (text, line, field) in [
        (format!("sku,title\na,b\nc,\"{endless}"), 3, "field 2"),
        (format!("sku,title,x\na,b,c\nc,\"d\n\ne\",\"{endless}"), 5, "field 3"),
        ("sku,title\na,\"b\nc,d\n".to_owned(), 2, "field 2"),
        ("sku,title\r\na,\"b\"\"".to_owned(), 2, "field 2"),
    ] {
        for chunk in [1, 4_096] {
            let problem = read_whole(text.as_bytes(), chunk).await.unwrap_err();
            assert_eq!((&*problem.code, problem.line), ("unclosed_quote", Some(line)), "{problem}");
            assert!(problem.reason.contains(field), "{problem}");
        }
    }
    let wide = format!("sku,title\na,b\n{}\n", "x".repeat(MAX_RECORD_BYTES + 1));
    let problem = read_whole(wide.as_bytes(), 4_096).await.unwrap_err();
    assert_eq!((&*problem.code, problem.line, problem.byte), ("record_too_large", Some(3), Some(14)));
}

#[tokio::test]
async fn text_behind_a_closing_quote_is_reported() {
    for (row, stray) in [
        ("a,\"b\"c,d", true),
        ("a,\"b\" ,d", true),
        ("a,\"b\"\"\"c,d", true),
        ("a,\"b\"\"c\",d", false),
        ("a,12\" wide,\"\"", false),
        ("\"\",\"\",\"x,y\"", false),
    ] {
        for chunk in [1, 2, 3, 1_000] {
            let text = format!("\"a\",b,c\n{row}\nd,e,f\n");
            let chunks: Vec<_> = text.as_bytes().chunks(chunk).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
            let mut reader = CatalogReader::new(futures::stream::iter(chunks).boxed());
            let mut found = Vec::new();
            while let Some(record) = reader.next().await.unwrap() {
                found.push(record.stray_quote);
            }
            assert_eq!(found, [false, stray, false], "{row} in chunks of {chunk}");
        }
    }
}

fn utf16(text: &str, big: bool) -> Vec<u8> {
    let units = std::iter::once(0xfeff).chain(text.encode_utf16());
    units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
}

#[tokio::test]
async fn encodings() {
    let text = "sku;title\r\nä;Größe 42 👟\r\n";
    let expected = vec![record(1, &["sku", "title"]), record(2, &["ä", "Größe 42 👟"])];
    let ansi = b"sku;title\r\n\xe4;Gr\xf6\xdfe 42 \x80\r\n".to_vec();
    let ansi_expected = vec![record(1, &["sku", "title"]), record(2, &["ä", "Größe 42 €"])];
    for (bytes, encoding, expected) in [
        (text.as_bytes().to_vec(), Encoding::Utf8, &expected),
        (format!("\u{feff}{text}").into_bytes(), Encoding::Utf8, &expected),
        (utf16(text, false), Encoding::Utf16Le, &expected),
        (utf16(text, true), Encoding::Utf16Be, &expected),
        (ansi, Encoding::Windows1252, &ansi_expected),
    ] {
        for chunk in [1, 2, 3, 7, 1_000] {
            let (records, format) = read_whole(&bytes, chunk).await.unwrap();
            assert_eq!((&records, format.encoding), (expected, encoding), "in chunks of {chunk}");
            assert_eq!((format.delimiter, format.line_ending), (';', Some(LineEnding::CrLf)));
        }
    }
}

#[tokio::test]
async fn a_file_of_two_encodings_is_refused_where_the_second_begins() {
    let long = "x,y\n".repeat(5_000);
    for (bytes, line) in [
        ("sku,title\né,\"x\ny".as_bytes().iter().chain(b"\xff\"\n").copied().collect::<Vec<u8>>(), 3),
        ([format!("sku,title\né,x\n{long}").as_bytes(), b"\xe9,z\n"].concat(), 5_003),
        ("\u{feff}sku,title\n".as_bytes().iter().chain(b"\xe9,z\n").copied().collect(), 2),
    ] {
        for chunk in [1, 4, 4_096] {
            let problem = read_whole(&bytes, chunk).await.unwrap_err();
            assert_eq!((&*problem.code, problem.line), ("not_utf8", Some(line)), "{problem} in chunks of {chunk}");
        }
    }
    // A file that was ASCII so far can still be Windows-1252, however late that appears.
    let late = [format!("sku,title\n{long}").as_bytes(), b"\xe9,z\n"].concat();
    let (records, format) = read_whole(&late, 4_096).await.unwrap();
    assert_eq!((records.last(), format.encoding), (Some(&record(5_002, &["é", "z"])), Encoding::Windows1252));
}

#[tokio::test]
async fn a_lone_surrogate_is_not_utf16() {
    let mut bytes = utf16("sku,title\na,b\nc,", false);
    bytes.extend([0x00, 0xd8, b'x', 0]);
    let problem = read_whole(&bytes, 3).await.unwrap_err();
    assert_eq!((&*problem.code, problem.line), ("not_utf16", Some(3)));
}

async fn gzip(text: &[u8]) -> Vec<u8> {
    let encoder = async_compression::tokio::bufread::GzipEncoder::new(text);
    let packed: Vec<Bytes> = tokio_util::io::ReaderStream::new(encoder).try_collect().await.unwrap();
    packed.concat()
}

#[tokio::test]
async fn gzip_is_unpacked_member_by_member() {
    let packed = [gzip(b"sku,title\na,").await, gzip("ä\n".as_bytes()).await].concat();
    for chunk in [1, 7, 4_096] {
        let (records, format) = read_whole(&packed, chunk).await.unwrap();
        assert_eq!(records, [record(1, &["sku", "title"]), record(2, &["a", "ä"])]);
        assert_eq!(format.compression, Some(Compression::Gzip));
    }
    let long: String = (0..100_000u64).map(|n| format!("{},x\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let packed = gzip(long.as_bytes()).await;
    for (bytes, says) in
        [(&packed[..packed.len() / 2], "ends in the middle"), (&[&packed[..], b"junk"].concat(), "damaged")]
    {
        let problem = read_whole(bytes, 4_096).await.unwrap_err();
        assert!(problem.reason.contains(says), "{problem}");
        assert_eq!(problem.code, "damaged_gzip");
    }
    let problem = read_whole(&gzip(&gzip(b"sku,title\n").await).await, 4_096).await.unwrap_err();
    assert!(problem.reason.contains("gzip twice"), "{problem}");
}

proptest! {
    /// Reads everything that the csv crate writes, in chunks of any size.
    #[test]
    fn reads_what_was_written(rows in proptest::collection::vec(proptest::collection::vec("[a-z,\"\r\n ü]{1,8}x", 2..5), 0..6), chunk in 1usize..40) {
        let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
        writer.write_record(["sku", "title", "image_url"]).unwrap();
        for row in &rows {
            writer.write_record(row).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let read = runtime.block_on(read(&bytes, chunk)).unwrap();
        prop_assert_eq!(read.into_iter().skip(1).map(|(_, fields)| fields).collect::<Vec<_>>(), rows);
    }
}
