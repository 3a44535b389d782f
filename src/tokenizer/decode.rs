//! From ids to text, whole characters at a time.

use super::vocab::MAX_PIECE_LEN;
use super::{PieceKind, Tokenizer};
use crate::{Error, Result};

/// What SentencePiece shows for the unknown token.
const UNKNOWN: &str = " \u{2047} ";

/// Turns ids into text as they come, never cutting a character in two.
///
/// A character that no piece reads comes as its UTF-8 bytes, one id each: it is held back until it is whole. Bytes
/// that are not UTF-8 become U+FFFD, one for each byte, as SentencePiece has it. Control tokens have no text.
/// Nothing is stripped: Gemma's vocabulary begins no text with an added space.
///
/// Allocates once, when made.
///
/// ```no_run
/// # fn main() -> carat::Result<()> {
/// # let gguf = carat::gguf::Gguf::open("gemma.gguf")?;
/// let tokenizer = carat::Tokenizer::from_gguf(&gguf, &Default::default())?;
/// let mut decoder = carat::StreamDecoder::new(&tokenizer)?;
/// for id in tokenizer.encode("Grüezi 🏔️")? {
///     print!("{}", decoder.push(id)?);
/// }
/// print!("{}", decoder.flush());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    bytes: Utf8Bytes,
    out: String,
}

impl StreamDecoder {
    /// The most bytes that one takes, whatever the vocabulary.
    pub(crate) const MOST_BYTES: usize = MAX_PIECE_LEN + Utf8Bytes::MAX_OUT;

    /// A decoder at the beginning of a text.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new(tokenizer: &Tokenizer) -> Result<StreamDecoder> {
        // At most a whole piece after the bytes that were held back.
        let len = tokenizer.vocab().max_len.max(UNKNOWN.len()) + Utf8Bytes::MAX_OUT;
        let out = crate::error::try_text(len, "the decoder's text")?;
        Ok(StreamDecoder { tokenizer: tokenizer.clone(), bytes: Utf8Bytes::default(), out })
    }

    /// Takes the next id and returns the text that is now certain, which may be empty.
    ///
    /// # Errors
    ///
    /// [`Error::TokenOutOfRange`] when there is no such piece; the decoder is as it was before.
    pub fn push(&mut self, id: u32) -> Result<&str> {
        self.tokenizer.check(id, 0)?;
        self.out.clear();
        append(&self.tokenizer, id, &mut self.bytes, &mut self.out);
        Ok(&self.out)
    }

    /// The end of the text: what was held back becomes U+FFFD. The decoder is then at the beginning of a text again.
    pub fn flush(&mut self) -> &str {
        self.out.clear();
        self.bytes.flush(&mut self.out);
        &self.out
    }

    /// Forgets what was held back.
    pub fn reset(&mut self) {
        self.bytes = Utf8Bytes::default();
    }
}

pub(super) fn decode(tokenizer: &Tokenizer, ids: &[u32]) -> Result<String> {
    let vocab = tokenizer.vocab();
    let mut out = String::new();
    let mut bytes = Utf8Bytes::default();
    for (position, &id) in ids.iter().enumerate() {
        tokenizer.check(id, position)?;
        let room = vocab.table.get(id).len().max(UNKNOWN.len()) + Utf8Bytes::MAX_OUT;
        out.try_reserve(room)
            .map_err(|_| Error::OutOfMemory { what: "the decoded text", bytes: out.len() + room })?;
        append(tokenizer, id, &mut bytes, &mut out);
    }
    bytes.flush(&mut out);
    Ok(out)
}

/// Appends what `id`, which must be a piece, adds to a text.
fn append(tokenizer: &Tokenizer, id: u32, bytes: &mut Utf8Bytes, out: &mut String) {
    let vocab = tokenizer.vocab();
    let kind = vocab.kinds[id as usize];
    if kind == PieceKind::Byte {
        bytes.push(tokenizer.byte_of(id), out);
        return;
    }
    bytes.flush(out);
    match kind {
        PieceKind::Control => {}
        PieceKind::Unknown => out.push_str(UNKNOWN),
        PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused | PieceKind::Byte => {
            out.push_str(vocab.table.text(id));
        }
    }
}

/// The bytes of a character that is not whole yet.
#[derive(Clone, Copy, Default, Debug)]
struct Utf8Bytes {
    bytes: [u8; 4],
    len: usize,
}

impl Utf8Bytes {
    /// The most bytes of text that one call appends: U+FFFD for each of four bytes.
    const MAX_OUT: usize = 12;

    fn push(&mut self, byte: u8, out: &mut String) {
        // At most three are held between calls: four bytes are a character or none.
        self.bytes[self.len] = byte;
        self.len += 1;
        while self.len > 0 {
            match std::str::from_utf8(&self.bytes[..self.len]) {
                Ok(text) => {
                    out.push_str(text);
                    self.len = 0;
                }
                Err(e) if e.valid_up_to() > 0 => {
                    let valid = e.valid_up_to();
                    out.push_str(std::str::from_utf8(&self.bytes[..valid]).expect("measured"));
                    self.drop_first(valid);
                }
                Err(e) if e.error_len().is_some() => {
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.drop_first(1);
                }
                Err(_) => return,
            }
        }
    }

    fn flush(&mut self, out: &mut String) {
        out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, self.len));
        self.len = 0;
    }

    fn drop_first(&mut self, n: usize) {
        self.bytes.copy_within(n..self.len, 0);
        self.len -= n;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(input: &[u8]) -> String {
        let mut out = String::new();
        let mut bytes = Utf8Bytes::default();
        for b in input {
            let before = out.len();
            bytes.push(*b, &mut out);
            assert!(out.len() - before <= Utf8Bytes::MAX_OUT);
            assert!(bytes.len <= 3);
        }
        bytes.flush(&mut out);
        out
    }

    #[test]
    fn whole_characters_pass_and_each_stray_byte_is_one_replacement() {
        assert_eq!(through("aé漢🙂\u{10ffff}".as_bytes()), "aé漢🙂\u{10ffff}");
        assert_eq!(through(b"\xf0\x9f\x99"), "\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(through(b"\xf0\x9fa"), "\u{fffd}\u{fffd}a");
        assert_eq!(through(b"\xf0\x9f\xc3\xa9"), "\u{fffd}\u{fffd}é");
        assert_eq!(through(b"\xe0\x80\x80"), "\u{fffd}\u{fffd}\u{fffd}"); // overlong
        assert_eq!(through(b"\xed\xa0\x80"), "\u{fffd}\u{fffd}\u{fffd}"); // a surrogate
        assert_eq!(through(b"\xff\x80\xc3"), "\u{fffd}\u{fffd}\u{fffd}");
    }
}
