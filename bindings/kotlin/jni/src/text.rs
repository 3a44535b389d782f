//! UTF-16 as the JVM has it, and UTF-8 as carat has it.

/// The UTF-8 of UTF-16; a surrogate without its other half becomes U+FFFD.
pub fn from_utf16(units: &[u16]) -> String {
    let mut text = String::with_capacity(units.len());
    text.extend(char::decode_utf16(units.iter().copied()).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
    text
}

/// As [`from_utf16`], where replacing would change the meaning: the index of the first lone surrogate otherwise.
pub fn from_utf16_strict(units: &[u16]) -> Result<String, usize> {
    let mut text = String::with_capacity(units.len());
    let mut at = 0;
    for c in char::decode_utf16(units.iter().copied()) {
        let c = c.map_err(|_| at)?;
        at += c.len_utf16();
        text.push(c);
    }
    Ok(text)
}

/// The UTF-16 of UTF-8; carat hands out nothing else, so bytes that are not become U+FFFD rather than an error.
pub fn to_utf16(bytes: &[u8]) -> Vec<u16> {
    let mut units = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        units.extend(chunk.valid().encode_utf16());
        if !chunk.invalid().is_empty() {
            units.push(char::REPLACEMENT_CHARACTER as u16);
        }
    }
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_point_comes_back() {
        let mut all = String::new();
        all.extend((0..=0x10ffff).filter_map(char::from_u32));
        assert_eq!(all.chars().count(), 0x110000 - 0x800);
        let units = to_utf16(all.as_bytes());
        assert_eq!(units.len(), all.chars().map(char::len_utf16).sum::<usize>());
        assert_eq!(from_utf16(&units), all);
        assert_eq!(from_utf16_strict(&units).as_ref(), Ok(&all));
    }

    #[test]
    fn every_lone_surrogate_is_replaced_or_reported() {
        for surrogate in 0xd800..=0xdfff {
            let units = ['a' as u16, surrogate, 'b' as u16];
            assert_eq!(from_utf16(&units), "a\u{fffd}b");
            assert_eq!(from_utf16_strict(&units), Err(1));
        }
        // The second half before the first: two of them.
        assert_eq!(from_utf16(&[0xde00, 0xd83d]), "\u{fffd}\u{fffd}");
        assert_eq!(from_utf16_strict(&[0xd83d, 0xde00, 0xd83d]), Err(2));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(to_utf16(b"a\xffb"), [0x61, 0xfffd, 0x62]);
    }
}
