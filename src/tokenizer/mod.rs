//! The tokenizer: SentencePiece's byte-pair encoding over a file's own vocabulary.
//!
//! [`Tokenizer`] turns text into ids and back. There are two engines with the same results: the built-in one, and
//! Google's SentencePiece through its C++ library ([`Engine`]).

mod bpe;
mod decode;
mod matcher;
#[cfg(feature = "sentencepiece")]
mod sentencepiece;
mod source;
mod table;
mod vocab;

use std::borrow::Cow;
use std::sync::Arc;

pub use decode::StreamDecoder;

use crate::gguf::Gguf;
use crate::{CancelToken, Error, Result};
use table::reserve;
use vocab::{Builder, Vocabulary};

/// The character that stands for a space inside SentencePiece. A text that holds it is taken to hold a space.
const SPACE_SYMBOL: char = '\u{2581}';

/// Which implementation turns text into ids. The ids are the same.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Engine {
    /// The one in this library: ready in milliseconds, can be cancelled.
    #[default]
    Builtin,
    /// Google's SentencePiece. Needs the feature `sentencepiece`; takes longer to load and more memory; a text once
    /// begun is not cancelled before the next control token in it.
    SentencePiece,
}

/// How to make a [`Tokenizer`].
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct TokenizerOptions {
    /// Which implementation to use.
    pub engine: Engine,
    /// Stops the making.
    pub cancel: Option<CancelToken>,
}

impl From<Engine> for TokenizerOptions {
    fn from(engine: Engine) -> Self {
        TokenizerOptions { engine, ..Default::default() }
    }
}

/// How to encode a text.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// Whether control tokens such as `<start_of_turn>` written out in the text become their ids. Off, they are text
    /// like any other, as they must be in what a user typed.
    pub special: bool,
    /// Whether to begin with the beginning-of-sequence token, unless the text does so itself.
    pub bos: bool,
    /// Stops the encoding.
    pub cancel: Option<CancelToken>,
}

/// What kind of piece an id is. The numbers are GGUF's and SentencePiece's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PieceKind {
    /// Text, reached by merging characters.
    Normal = 1,
    /// What SentencePiece gives for text that it has no piece for. With pieces for bytes, never.
    Unknown = 2,
    /// A mark without text, such as the end of a turn.
    Control = 3,
    /// Text that is taken whole wherever it stands.
    UserDefined = 4,
    /// A placeholder: no text becomes it.
    Unused = 5,
    /// One byte of a character that has no piece.
    Byte = 6,
}

impl PieceKind {
    fn from_gguf(n: i64) -> Option<PieceKind> {
        Some(match n {
            1 => PieceKind::Normal,
            2 => PieceKind::Unknown,
            3 => PieceKind::Control,
            4 => PieceKind::UserDefined,
            5 => PieceKind::Unused,
            6 => PieceKind::Byte,
            _ => return None,
        })
    }
}

/// The ids of special pieces, as a file states them. One that is not stated is found by its text: `<bos>`, `<eos>`,
/// `<unk>`, `<pad>`.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs)] // each is what it says
pub struct SpecialIds {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unk: Option<u32>,
    pub pad: Option<u32>,
}

/// Turns text into ids and back.
///
/// Immutable and shared: clones are cheap and refer to the same vocabulary.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    vocab: Vocabulary,
    #[cfg(feature = "sentencepiece")]
    sentencepiece: Option<sentencepiece::Processor>,
}

impl Tokenizer {
    /// The tokenizer of a model's file.
    ///
    /// The vocabulary is copied out of the file (about 7 MB for 262144 pieces). Pieces beyond the rows of the
    /// model's embedding are left out.
    ///
    /// # Errors
    ///
    /// [`Error::Metadata`] when a key is missing or wrong, or arrays differ in length; [`Error::Vocabulary`] when a
    /// piece is empty, longer than 1024 bytes, twice there, not UTF-8, holds a NUL, has no finite score or an
    /// unknown type, or when a control token or a byte's piece is missing; [`Error::Unsupported`] when it is not a
    /// SentencePiece vocabulary or the engine is not compiled in; [`Error::OutOfMemory`]; [`Error::Cancelled`].
    pub fn from_gguf(gguf: &Gguf, options: &TokenizerOptions) -> Result<Tokenizer> {
        let cancel = options.cancel.clone().unwrap_or_default();
        Self::new(gguf.name(), source::read(gguf, &cancel)?, options)
    }

    /// The tokenizer of a vocabulary that comes from elsewhere: for each piece its text (spaces as spaces or as
    /// U+2581), its score, and the number of its kind (see [`PieceKind`]). Messages call it `name`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::from_gguf`].
    pub fn from_pieces<T: AsRef<[u8]>>(
        name: &str,
        pieces: &[(T, f32, i64)],
        ids: &SpecialIds,
        options: &TokenizerOptions,
    ) -> Result<Tokenizer> {
        let bytes = pieces.iter().map(|(text, ..)| text.as_ref().len()).sum();
        let mut builder = Builder::new(name, pieces.len(), bytes)?;
        for (text, score, token_type) in pieces {
            builder.push(text.as_ref(), *score, *token_type)?;
        }
        Self::new(name, builder.finish(ids)?, options)
    }

    #[cfg_attr(not(feature = "sentencepiece"), allow(unused_variables))]
    fn new(name: &str, vocab: Vocabulary, options: &TokenizerOptions) -> Result<Tokenizer> {
        #[cfg(feature = "sentencepiece")]
        let sentencepiece = match options.engine {
            Engine::Builtin => None,
            Engine::SentencePiece => Some(sentencepiece::Processor::new(name, &vocab)?),
        };
        #[cfg(not(feature = "sentencepiece"))]
        if options.engine == Engine::SentencePiece {
            return Err(Error::Unsupported {
                file: name.to_owned(),
                what: "the tokenizer engine sentencepiece, which is not compiled in,".into(),
                supported: "builtin; or build with the feature `sentencepiece`".into(),
            });
        }
        Ok(Tokenizer(Arc::new(Inner {
            vocab,
            #[cfg(feature = "sentencepiece")]
            sentencepiece,
        })))
    }

    /// The ids of a text: no token is added, and control tokens written out in it are text like any other.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode_with`].
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, &EncodeOptions::default())
    }

    /// The ids of a text, with options. Each byte that is not part of valid UTF-8 counts as U+FFFD, as in
    /// SentencePiece.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`]; [`Error::OutOfMemory`]; [`Error::InvalidOption`] when the text is 4 GiB or longer.
    pub fn encode_with(&self, text: impl AsRef<[u8]>, options: &EncodeOptions) -> Result<Vec<u32>> {
        let mut out = Vec::new();
        self.encode_onto(text, options, &mut out)?;
        Ok(out)
    }

    /// [`Tokenizer::encode_with`] appending to what is there.
    pub(crate) fn encode_onto(
        &self,
        text: impl AsRef<[u8]>,
        options: &EncodeOptions,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        self.encode_counting(text.as_ref(), options, &mut Work::new(options.cancel.as_ref()), out)
    }

    fn encode_counting(
        &self,
        text: &[u8],
        options: &EncodeOptions,
        work: &mut Work,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        work.check()?;
        let vocab = self.vocab();
        let text = normalize(text)?;
        if text.len() > bpe::MAX_TEXT {
            return Err(Error::InvalidOption {
                option: "text",
                expected: format!("at most {} bytes", bpe::MAX_TEXT),
                found: text.len().to_string(),
            });
        }
        let mut scratch = bpe::Scratch::default();
        if options.bos {
            reserve(out, 1, "the token ids")?;
            out.push(vocab.special.bos);
        }
        let mut from = 0;
        while options.special
            && let Some((at, id, piece)) =
                vocab.control.find(&vocab.table, text.as_bytes(), from, || work.step())?
        {
            self.encode_plain(&text[from..at], &mut scratch, out, work)?;
            let twice_bos = options.bos && at == 0 && id == vocab.special.bos;
            if !twice_bos {
                reserve(out, 1, "the token ids")?;
                out.push(id);
            }
            from = at + piece.len();
        }
        self.encode_plain(&text[from..], &mut scratch, out, work)
    }

    /// Appends the ids of a stretch of text without control tokens.
    fn encode_plain(
        &self,
        text: &str,
        scratch: &mut bpe::Scratch,
        out: &mut Vec<u32>,
        work: &mut Work,
    ) -> Result<()> {
        #[cfg(feature = "sentencepiece")]
        if let Some(processor) = &self.0.sentencepiece {
            work.check()?;
            return processor.encode(text, out);
        }
        bpe::encode(self.vocab(), text, scratch, out, work)
    }

    /// The text of a sequence of ids. Control tokens have none; bytes that are not UTF-8 become U+FFFD; a space that
    /// the first piece begins with is kept.
    ///
    /// # Errors
    ///
    /// [`Error::TokenOutOfRange`] when an id has no piece; [`Error::OutOfMemory`].
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        decode::decode(self, ids)
    }

    /// The bytes that a piece stands for, with spaces as spaces: of a byte's piece that byte, of a control token its
    /// name. `None` when there is no such piece.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        /// Every byte, so that there is something to lend.
        static BYTES: [u8; 256] = {
            let mut bytes = [0; 256];
            let mut i = 0;
            while i < 256 {
                bytes[i] = i as u8;
                i += 1;
            }
            bytes
        };
        Some(match self.kind(id)? {
            PieceKind::Byte => std::slice::from_ref(&BYTES[self.byte_of(id) as usize]),
            _ => self.vocab().table.get(id),
        })
    }

    /// The piece that reads exactly `text`, control tokens and bytes (`<0x0A>`) included.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        self.vocab().id_of(text)
    }

    /// The number of pieces: ids go from 0 to one below. A model may have more rows of logits than that; those
    /// beyond have no piece.
    pub fn vocab_size(&self) -> usize {
        self.vocab().table.len()
    }

    /// What kind of piece an id is; `None` when there is no such piece.
    pub fn kind(&self, id: u32) -> Option<PieceKind> {
        self.vocab().kinds.get(id as usize).copied()
    }

    /// The beginning-of-sequence token.
    pub fn bos(&self) -> u32 {
        self.vocab().special.bos
    }

    /// The end-of-sequence token.
    pub fn eos(&self) -> u32 {
        self.vocab().special.eos
    }

    /// The unknown token.
    pub fn unk(&self) -> u32 {
        self.vocab().special.unk
    }

    /// The padding token.
    pub fn pad(&self) -> Option<u32> {
        self.vocab().special.pad
    }

    /// The token that begins a turn, `<start_of_turn>`.
    pub fn start_of_turn(&self) -> u32 {
        self.vocab().special.start_of_turn
    }

    /// The token that ends a turn, `<end_of_turn>`.
    pub fn end_of_turn(&self) -> u32 {
        self.vocab().special.end_of_turn
    }

    /// Whether an id is a control token: a mark that has no text.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.kind(id), Some(PieceKind::Control | PieceKind::Unknown))
    }

    /// Whether an id says that the model has finished: the end of the sequence or of its turn.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        id == self.eos() || id == self.end_of_turn()
    }

    /// Which implementation encodes.
    pub fn engine(&self) -> Engine {
        #[cfg(feature = "sentencepiece")]
        if self.0.sentencepiece.is_some() {
            return Engine::SentencePiece;
        }
        Engine::Builtin
    }

    /// Bytes of memory that the vocabulary takes (without what SentencePiece holds besides).
    pub fn heap_bytes(&self) -> usize {
        self.vocab().heap_bytes()
    }

    /// At most what [`Tokenizer::heap_bytes`] will be for a file's vocabulary, known without reading it.
    ///
    /// # Errors
    ///
    /// [`Error::Metadata`] or [`Error::Unsupported`], as [`Tokenizer::from_gguf`].
    pub fn heap_bytes_bound(gguf: &Gguf) -> Result<usize> {
        source::heap_bytes_bound(gguf)
    }

    fn vocab(&self) -> &Vocabulary {
        &self.0.vocab
    }

    /// The byte that a byte's piece stands for.
    fn byte_of(&self, id: u32) -> u8 {
        // The name is checked to be <0xXX>.
        let name = self.vocab().table.text(id);
        u8::from_str_radix(&name[3..5], 16).expect("the name of a byte's piece")
    }

    fn check(&self, id: u32, position: usize) -> Result<()> {
        let vocab = self.vocab_size();
        if (id as usize) < vocab {
            Ok(())
        } else {
            Err(Error::TokenOutOfRange { token: id, position, vocab })
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("pieces", &self.vocab_size())
            .field("engine", &self.engine())
            .finish_non_exhaustive()
    }
}

/// Text as the engines want it: valid, each stray byte a U+FFFD, and with spaces for U+2581.
fn normalize(text: &[u8]) -> Result<Cow<'_, str>> {
    let valid = std::str::from_utf8(text);
    if let Ok(text) = valid
        && !text.contains(SPACE_SYMBOL)
    {
        return Ok(Cow::Borrowed(text));
    }
    let strays: usize = text.utf8_chunks().map(|c| c.invalid().len()).sum();
    // U+FFFD has three bytes, a stray one had one.
    let len = text.len() + 2 * strays;
    let mut out = crate::error::try_text(len, "a copy of the text")?;
    for chunk in text.utf8_chunks() {
        for (i, part) in chunk.valid().split(SPACE_SYMBOL).enumerate() {
            if i > 0 {
                out.push(' ');
            }
            out.push_str(part);
        }
        out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len()));
    }
    Ok(Cow::Owned(out))
}

/// Counts steps, each well under a microsecond, and looks at the cancel token now and then.
struct Work<'c> {
    cancel: Option<&'c CancelToken>,
    until_check: u32,
    #[cfg(test)]
    steps: u64,
    /// Sets the token at a step, to count how many follow.
    #[cfg(test)]
    cancel_at: Option<u64>,
}

impl<'c> Work<'c> {
    /// Steps between two looks.
    const STEPS_A_CHECK: u32 = 4096;

    fn new(cancel: Option<&'c CancelToken>) -> Self {
        Work {
            cancel,
            until_check: Self::STEPS_A_CHECK,
            #[cfg(test)]
            steps: 0,
            #[cfg(test)]
            cancel_at: None,
        }
    }

    fn check(&self) -> Result<()> {
        self.cancel.map_or(Ok(()), CancelToken::check)
    }

    #[inline]
    fn step(&mut self) -> Result<()> {
        #[cfg(test)]
        {
            self.steps += 1;
            if self.cancel_at == Some(self.steps) {
                self.cancel.expect("a token to set").cancel();
            }
        }
        self.until_check -= 1;
        if self.until_check == 0 {
            self.until_check = Self::STEPS_A_CHECK;
            self.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
