//! Sanitizing of untrusted text (from devices, files, tenants, processes, plans): characters that control or
//! hide in a terminal or a page are replaced where the text enters.

use std::path::Path;

use unicode_general_category::{GeneralCategory, get_general_category};

/// What a message repeats of one text that was read.
const EXCERPT_CHARS: usize = 200;

/// Control characters, formatting characters (those that turn the direction of text among them), and
/// separators of lines and paragraphs. The two joiners stay: Persian and the scripts of India are not
/// spelled without them, and they move nothing.
fn steers(letter: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    let joiner = matches!(letter, '\u{200c}' | '\u{200d}');
    !joiner && matches!(get_general_category(letter), Control | Format | LineSeparator | ParagraphSeparator)
}

/// Whether nothing in it would be replaced: what efface writes into a record always is.
pub fn is_printable(text: &str) -> bool {
    !text.contains(steers)
}

/// The text with U+FFFD in place of what steers.
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if steers(letter) { '\u{fffd}' } else { letter }).collect()
}

/// A path as people and records see it: what of it is not UTF-8 is replaced too.
pub fn printable_path(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// So much of a text as is repeated in a message.
pub fn excerpt(text: &str) -> String {
    shortened(text, EXCERPT_CHARS)
}

/// The text, or its beginning and end, `chars_max` characters in all.
pub fn shortened(text: &str, chars_max: usize) -> String {
    if text.chars().nth(chars_max).is_none() {
        return printable(text);
    }
    let half = chars_max / 2;
    let start = |(at, _): (usize, char)| at;
    let head_end = text.char_indices().nth(half).map_or(text.len(), start);
    let tail_start = text.char_indices().rev().take(half).last().map_or(text.len(), start);
    printable(&format!("{} […] {}", &text[..head_end], &text[tail_start..]))
}

/// A path in a record or a plan.
pub mod lossy {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::printable_path(path))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        String::deserialize(deserializer).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_steers_a_terminal_or_a_page_is_replaced() {
        assert_eq!(printable("a\u{1b}[2Jb\n\u{9b}c é"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}c é");
        let controls = (0..0x20).chain(0x7f..0xa0);
        let formats = [0xad, 0x61c, 0x6dd, 0x180e, 0x200b, 0x200e, 0x200f, 0x2028, 0x2029, 0xfeff, 0xfff9]
            .into_iter()
            .chain(0x202a..=0x202e)
            .chain(0x2060..=0x2064)
            .chain(0x2066..=0x206f)
            .chain(0xe0020..=0xe007f);
        for number in controls.chain(formats) {
            let text = format!("a{}b", char::from_u32(number).unwrap());
            assert_eq!(
                (printable(&text).as_str(), is_printable(&text)),
                ("a\u{fffd}b", false),
                "{number:#x}"
            );
        }
    }

    #[test]
    fn text_of_every_script_stays_what_it_is() {
        for text in ["Müller & Söhne", "می\u{200c}خواهم", "क्\u{200d}ष", "テスト 1", "\u{fffd}", "ZC18-XYZ9"]
        {
            assert_eq!((printable(text).as_str(), is_printable(text)), (text, true));
        }
    }

    #[test]
    fn a_long_text_keeps_its_beginning_and_its_end() {
        assert_eq!(excerpt("short"), "short");
        let exact = "é".repeat(EXCERPT_CHARS);
        assert_eq!(excerpt(&exact), exact);
        let long = excerpt(&format!("begin {} \u{202e}end", "é".repeat(1 << 20)));
        assert!(long.starts_with("begin é") && long.ends_with("é \u{fffd}end"), "{long}");
        assert_eq!(long.chars().count(), EXCERPT_CHARS + " […] ".chars().count());
    }
}
