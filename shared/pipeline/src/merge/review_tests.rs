//! Tests of the contact sheet: what its pages contain, and what they refuse to contain.

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
fn a_kept_image_is_linked_by_its_key_and_falls_back_to_the_api() {
    let html = card(&completed(&json!({})));
    assert!(html.contains("href=\"../../../../images/spring/shoes/a%252Fb/a%252Fb_1.png\""), "{html}");
    assert!(html.contains("data-fallback=\"https://x.test/1.png\""), "{html}");
    assert!(html.contains("width=\"64\" height=\"32\""), "{html}");
    assert!(html.contains("not kept"), "the second image has neither a copy nor an address: {html}");
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
        assert_eq!(title_and_prompt(Some(&prompt)), (title, rest));
    }
    assert_eq!(title_and_prompt(None), (None, None));
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
fn the_policy_allows_the_style_and_the_script_as_the_page_contains_them() {
    let job = job();
    let summary = crate::model::summary::Tally::default().so_far(&job);
    let head = Review::new(&job, &summary).head();
    for (open, close, directive) in [("<style>", "</style>", "style-src"), ("<script>", "</script>", "script-src")] {
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
