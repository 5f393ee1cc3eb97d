//! Cuts texts that come from outside (API answers, cells, column names) to a length that results and messages can hold.

/// Cuts a text to at most `max_bytes` bytes of UTF-8, at a character boundary; a cut text ends in `…`.
#[must_use]
pub fn shorten(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}

/// The first `max_characters` characters of a text, for messages that people read; a cut text ends in `…`.
#[must_use]
pub fn excerpt(text: &str, max_characters: usize) -> String {
    match text.char_indices().nth(max_characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_character_is_split() {
        for (text, max, expected) in
            [("", 4, ""), ("abcd", 4, "abcd"), ("abcde", 4, "a…"), ("ééé", 6, "ééé"), ("éééé", 6, "é…"), ("éa", 2, "…")]
        {
            assert_eq!(shorten(text.to_owned(), max), expected, "{text} {max}");
        }
        for (text, max, expected) in [("", 2, ""), ("éé", 2, "éé"), ("ééé", 2, "éé…"), ("日本語", 1, "日…")]
        {
            assert_eq!(excerpt(text, max), expected, "{text} {max}");
        }
    }
}
