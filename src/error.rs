//! The one error type: every variant says what was wrong, where, what was expected and what was found.

use std::path::PathBuf;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed.
///
/// Match on [`Error::kind`] when only the class matters; the message is written for a person.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused: no such file, no permission, a full disk.
    #[error("{path}: cannot {action}: {source}")]
    Io {
        /// The file, as the caller named it.
        path: String,
        /// What was tried, such as "open" or "map".
        action: &'static str,
        /// The operating system's word.
        source: std::io::Error,
    },

    /// The bytes of a GGUF file break the format's rules.
    #[error("{file}: at byte {offset}: {what}: expected {expected}, found {found}")]
    Format {
        /// The file.
        file: String,
        /// Offset of the offending bytes from the start of the file.
        offset: u64,
        /// The field that is wrong.
        what: String,
        /// What the format asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },

    /// A metadata value is missing or makes no sense.
    #[error("{file}: metadata {key}: expected {expected}, found {found}")]
    Metadata {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What a sound file holds.
        expected: String,
        /// What this one holds ("nothing" when the key is absent).
        found: String,
    },

    /// A tensor is missing, misplaced or of the wrong shape or type.
    #[error("{file}: tensor {tensor} at byte {offset}: {what}: expected {expected}, found {found}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// Offset of the tensor's data from the start of the file (0 when there is none).
        offset: u64,
        /// The property that is wrong.
        what: &'static str,
        /// What the model needs.
        expected: String,
        /// What the file holds.
        found: String,
    },

    /// The file is sound, but not something this library runs.
    #[error("{file}: {what} is not supported; supported: {supported}")]
    Unsupported {
        /// The file.
        file: String,
        /// What it asks for.
        what: String,
        /// What there is instead.
        supported: String,
    },

    /// A part of a split model is not there.
    #[error("{file}: part {part} of {count} is missing (looked for {looked_for})")]
    SplitMissing {
        /// The first part.
        file: String,
        /// The number of the missing part, from 1.
        part: usize,
        /// How many parts there are.
        count: usize,
        /// The path that was tried.
        looked_for: PathBuf,
    },

    /// The vocabulary cannot be used.
    #[error("{file}: vocabulary: piece {piece}: {what}")]
    Vocabulary {
        /// The file.
        file: String,
        /// Index of the piece.
        piece: usize,
        /// What is wrong with it.
        what: String,
    },

    /// A token id that the vocabulary does not have.
    #[error("token id {token} at position {position} is outside the vocabulary of {vocab}")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Where in the given slice.
        position: usize,
        /// Number of ids there are.
        vocab: usize,
    },

    /// A prompt with no token.
    #[error("the prompt is empty: at least one token is needed")]
    EmptyPrompt,

    /// A prompt that does not fit.
    #[error("the prompt of {tokens} tokens does not fit: the context holds {context} and {used} are in use")]
    PromptTooLong {
        /// Tokens given.
        tokens: usize,
        /// Tokens the session can hold.
        context: usize,
        /// Tokens it holds already.
        used: usize,
    },

    /// The session cannot take another token.
    #[error("the context of {context} tokens is full")]
    ContextFull {
        /// Tokens the session can hold.
        context: usize,
    },

    /// Going back further than the sliding windows remember.
    #[error(
        "cannot go back to position {requested}: the sliding windows no longer hold it (nearest: {nearest})"
    )]
    Rewind {
        /// The position asked for.
        requested: usize,
        /// The lowest position above 0 that can be had without processing tokens again (0 always can).
        nearest: usize,
    },

    /// An option outside its range.
    #[error("option {option}: expected {expected}, found {found}")]
    InvalidOption {
        /// Its name.
        option: &'static str,
        /// The range.
        expected: String,
        /// The value given.
        found: String,
    },

    /// The model or a hook produced a logit that is not a number.
    #[error("logit of token {token} at position {position} is not a number")]
    NanLogits {
        /// The token whose logit it is.
        token: u32,
        /// The position in the text.
        position: usize,
    },

    /// The caller's [`CancelToken`](crate::CancelToken) was set.
    #[error("cancelled")]
    Cancelled,

    /// The mapped file is no longer what it was.
    #[error("{file}: the file changed while in use: expected {expected} bytes, found {found}")]
    FileChanged {
        /// The file.
        file: String,
        /// Its length when opened.
        expected: u64,
        /// Its length now.
        found: u64,
    },

    /// A saved session that cannot be loaded.
    #[error("{file}: saved session: {what}: expected {expected}, found {found}")]
    State {
        /// The file.
        file: String,
        /// The part that is wrong.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },

    /// Memory that could not be had.
    #[error("cannot allocate {bytes} bytes for {what}")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },

    /// Turns in an order that the template does not know.
    #[error("turn {turn}: {what}")]
    Chat {
        /// Index of the turn.
        turn: usize,
        /// What is wrong.
        what: String,
    },

    /// The process was forked after the model was opened: its threads are gone.
    #[error("the model was opened by process {opened_by}, this is {here}: open it again after fork")]
    Forked {
        /// The process that opened it.
        opened_by: u32,
        /// This process.
        here: u32,
    },

    /// A bug, here or in a callback: the session can only be dropped. The model and its other sessions go on.
    #[error("internal error: {what}")]
    Internal {
        /// What happened.
        what: String,
    },
}

/// The class of an [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call was wrong: change the arguments.
    Usage,
    /// The file is wrong, missing or not supported.
    File,
    /// It was stopped by the caller.
    Cancelled,
    /// The machine or the library could not do it.
    Runtime,
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        use Error::*;
        match self {
            Io { .. }
            | Format { .. }
            | Metadata { .. }
            | Tensor { .. }
            | Unsupported { .. }
            | SplitMissing { .. }
            | Vocabulary { .. }
            | FileChanged { .. }
            | State { .. } => ErrorKind::File,
            TokenOutOfRange { .. }
            | EmptyPrompt
            | PromptTooLong { .. }
            | ContextFull { .. }
            | Rewind { .. }
            | InvalidOption { .. }
            | Chat { .. } => ErrorKind::Usage,
            Cancelled => ErrorKind::Cancelled,
            NanLogits { .. } | OutOfMemory { .. } | Forked { .. } | Internal { .. } => ErrorKind::Runtime,
        }
    }
}

/// A vector of `len` copies of `value`, or [`Error::OutOfMemory`]: for every size that comes from a file or an
/// option.
pub(crate) fn try_vec<T: Clone>(len: usize, value: T, what: &'static str) -> Result<Vec<T>> {
    let mut v = try_with_capacity(len, what)?;
    v.resize(len, value);
    Ok(v)
}

/// An empty vector with room for `len` items.
pub(crate) fn try_with_capacity<T>(len: usize, what: &'static str) -> Result<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(len)
        .map_err(|_| Error::OutOfMemory { what, bytes: len.saturating_mul(size_of::<T>()) })?;
    Ok(v)
}

/// An empty text with room for `bytes`.
pub(crate) fn try_text(bytes: usize, what: &'static str) -> Result<String> {
    let mut text = String::new();
    text.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { what, bytes })?;
    Ok(text)
}
