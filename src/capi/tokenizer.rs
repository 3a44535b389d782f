//! Text to ids and back, and Gemma's turns.

use std::ffi::c_char;

use super::*;
use crate::chat::{self, Role, Turn};
use crate::{EncodeOptions, PieceKind, StreamDecoder, Tokenizer};

/// Text, reached by merging characters.
pub const CARAT_PIECE_NORMAL: i32 = 1;
/// What stands for text that has no piece.
pub const CARAT_PIECE_UNKNOWN: i32 = 2;
/// A mark without text, such as the end of a turn.
pub const CARAT_PIECE_CONTROL: i32 = 3;
/// Text that is taken whole wherever it stands.
pub const CARAT_PIECE_USER_DEFINED: i32 = 4;
/// A placeholder.
pub const CARAT_PIECE_UNUSED: i32 = 5;
/// One byte of a character that has no piece.
pub const CARAT_PIECE_BYTE: i32 = 6;

/// A turn of the system: says how to answer; at most one, the first.
pub const CARAT_ROLE_SYSTEM: i32 = 0;
/// A turn of the user.
pub const CARAT_ROLE_USER: i32 = 1;
/// A turn of the model.
pub const CARAT_ROLE_MODEL: i32 = 2;

/// How to turn text into ids. Made by carat_tokenize_options_init().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_tokenize_options {
    /// sizeof(carat_tokenize_options), as the caller was compiled.
    pub struct_size: u32,
    /// 1: control tokens written out in the text become their ids. 0: they are text, as in what a user typed.
    pub special: i32,
    /// 1: begin with the beginning-of-sequence token, unless the text does so itself (with `special`).
    pub bos: i32,
    /// Zero.
    pub reserved: i32,
    /// Stops the call; NULL for none.
    pub cancel: *const carat_cancel,
}

// SAFETY: repr(C), its size first, of integers and a pointer.
unsafe impl sized::Grows for carat_tokenize_options {
    fn defaults() -> Self {
        carat_tokenize_options {
            struct_size: size_of::<Self>() as u32,
            special: 0,
            bos: 0,
            reserved: 0,
            cancel: std::ptr::null(),
        }
    }
}

/// The ids of the special tokens.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_special_tokens {
    /// sizeof(carat_special_tokens), as the caller was compiled.
    pub struct_size: u32,
    /// Number of pieces: ids go from 0 to one below.
    pub vocab_size: u32,
    /// Beginning of the sequence.
    pub bos: u32,
    /// End of the sequence.
    pub eos: u32,
    /// The unknown token.
    pub unk: u32,
    /// Begins a turn.
    pub start_of_turn: u32,
    /// Ends a turn.
    pub end_of_turn: u32,
    /// Padding; UINT32_MAX where there is none.
    pub pad: u32,
}

// SAFETY: repr(C), its size first, of integers.
unsafe impl sized::Grows for carat_special_tokens {
    fn defaults() -> Self {
        carat_special_tokens {
            struct_size: size_of::<Self>() as u32,
            vocab_size: 0,
            bos: 0,
            eos: 0,
            unk: 0,
            start_of_turn: 0,
            end_of_turn: 0,
            pad: u32::MAX,
        }
    }
}

/// A text and its bytes: UTF-8, not ended by a NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_text {
    /// The first byte; may be NULL where `len` is 0.
    pub ptr: *const c_char,
    /// Bytes.
    pub len: usize,
}

/// What one of the speakers says.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct carat_turn {
    /// CARAT_ROLE_*
    pub role: i32,
    /// Zero.
    pub reserved: i32,
    /// What is said.
    pub text: carat_text,
}

pub(super) fn role_number(role: Role) -> i32 {
    match role {
        Role::System => CARAT_ROLE_SYSTEM,
        Role::User => CARAT_ROLE_USER,
        Role::Model => CARAT_ROLE_MODEL,
    }
}

/// The caller's turns.
///
/// # Safety
/// As [`slice`], and each text is valid as long.
pub(super) unsafe fn turns_of<'a>(turns: *const carat_turn, n: usize) -> Outcome<Vec<Turn<'a>>> {
    // SAFETY: the caller's promise.
    let turns = unsafe { slice(turns, n, "turns") }?;
    turns
        .iter()
        .map(|turn| {
            let role = match turn.role {
                CARAT_ROLE_SYSTEM => Role::System,
                CARAT_ROLE_USER => Role::User,
                CARAT_ROLE_MODEL => Role::Model,
                n => return Err(Failure::argument(format!("role {n} is no CARAT_ROLE_*"))),
            };
            // SAFETY: the caller's promise.
            Ok(Turn::new(role, unsafe { text(turn.text.ptr, turn.text.len, "the text of a turn") }?))
        })
        .collect()
}

/// Runs `f` on a model's tokenizer, which is made when first asked for.
///
/// # Safety
/// As [`hold`].
unsafe fn with_tokenizer(model: *const carat_model, f: impl FnOnce(&Tokenizer) -> Outcome) -> Outcome {
    // SAFETY: the caller's promise.
    let model = unsafe { hold(model, "model") }?;
    f(model.0.tokenizer()?)
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_tokenize_options_init(
    options: *mut carat_tokenize_options,
    struct_size: usize,
) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(options, struct_size) });
}

/// As carat_model_options_init().
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_special_tokens_init(tokens: *mut carat_special_tokens, struct_size: usize) {
    // SAFETY: the header's contract.
    guard_value((), || unsafe { sized::init(tokens, struct_size) });
}

/// The ids of a text (of `text_len` bytes; each byte that is not UTF-8 counts as U+FFFD). Writes them to `ids`, which
/// has room for `capacity`, and their number to `*n`, which may be NULL. A text never has more ids than bytes, plus 1
/// for a `bos`. `options` may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any.
/// Errors: CARAT_BUFFER_TOO_SMALL, with `*n` written; CARAT_VOCABULARY for a vocabulary that is not sound, found at
/// the first use; CARAT_CANCELLED; CARAT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_tokenize(
    model: *const carat_model,
    text: *const c_char,
    text_len: usize,
    options: *const carat_tokenize_options,
    ids: *mut u32,
    capacity: usize,
    n: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with_tokenizer(model, |tokenizer| {
                let o = sized::read(options, "options")?;
                let options = EncodeOptions {
                    special: boolean(o.special, "special")?,
                    bos: boolean(o.bos, "bos")?,
                    cancel: cancel::token(o.cancel),
                };
                let text = slice(text.cast::<u8>(), text_len, "text")?;
                fill(&tokenizer.encode_with(text, &options)?, ids, capacity, n)
            })
        }
    })
}

/// The text of `n_ids` ids: control tokens have none, bytes that are not UTF-8 become U+FFFD. Writes it and, where
/// there is room, a NUL to `text` (of `capacity` bytes), and its bytes without the NUL to `*len`, which may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any.
/// Errors: CARAT_BUFFER_TOO_SMALL, with `*len` written; CARAT_TOKEN_OUT_OF_RANGE; as carat_tokenize().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_detokenize(
    model: *const carat_model,
    ids: *const u32,
    n_ids: usize,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with_tokenizer(model, |tokenizer| {
                fill_text(&tokenizer.decode(slice(ids, n_ids, "ids")?)?, text, capacity, len)
            })
        }
    })
}

/// The bytes that a piece stands for, with spaces as spaces; of a control token, its name. They need not be UTF-8:
/// pieces for bytes are one byte. Writes them to `bytes`, which has room for `capacity`, and their number to `*len`,
/// which may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any.
/// Errors: CARAT_TOKEN_OUT_OF_RANGE; CARAT_BUFFER_TOO_SMALL, with `*len` written; as carat_tokenize().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_token_bytes(
    model: *const carat_model,
    id: u32,
    bytes: *mut u8,
    capacity: usize,
    len: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with_tokenizer(model, |tokenizer| {
                let piece = tokenizer.piece(id).ok_or_else(|| no_piece(tokenizer, id))?;
                fill(piece, bytes, capacity, len)
            })
        }
    })
}

fn no_piece(tokenizer: &Tokenizer, id: u32) -> crate::Error {
    crate::Error::TokenOutOfRange { token: id, position: 0, vocab: tokenizer.vocab_size() }
}

/// The kind of a piece (CARAT_PIECE_*), to `*kind`.
///
/// Ownership: all is borrowed.
/// Threads: any.
/// Errors: CARAT_TOKEN_OUT_OF_RANGE; as carat_tokenize().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_token_kind(
    model: *const carat_model,
    id: u32,
    kind: *mut i32,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with_tokenizer(model, |tokenizer| {
                let found = tokenizer.kind(id).ok_or_else(|| no_piece(tokenizer, id))?;
                let number = match found {
                    PieceKind::Normal => CARAT_PIECE_NORMAL,
                    PieceKind::Unknown => CARAT_PIECE_UNKNOWN,
                    PieceKind::Control => CARAT_PIECE_CONTROL,
                    PieceKind::UserDefined => CARAT_PIECE_USER_DEFINED,
                    PieceKind::Unused => CARAT_PIECE_UNUSED,
                    PieceKind::Byte => CARAT_PIECE_BYTE,
                };
                put(kind, number, "kind")
            })
        }
    })
}

/// The id of the piece that reads exactly `text` (of `text_len` bytes), control tokens included, to `*id`;
/// UINT32_MAX where there is none.
///
/// Ownership: all is borrowed.
/// Threads: any.
/// Errors: as carat_tokenize().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_token_id(
    model: *const carat_model,
    text: *const c_char,
    text_len: usize,
    id: *mut u32,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with_tokenizer(model, |tokenizer| {
                let text = super::text(text, text_len, "text")?;
                put(id, tokenizer.id_of(text).unwrap_or(u32::MAX), "id")
            })
        }
    })
}

/// The ids of the special tokens.
///
/// Ownership: `tokens` is the caller's struct, made by carat_special_tokens_init().
/// Threads: any.
/// Errors: as carat_tokenize().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_model_special_tokens(
    model: *const carat_model,
    tokens: *mut carat_special_tokens,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with_tokenizer(model, |t| {
                let value = carat_special_tokens {
                    struct_size: size_of::<carat_special_tokens>() as u32,
                    vocab_size: t.vocab_size() as u32,
                    bos: t.bos(),
                    eos: t.eos(),
                    unk: t.unk(),
                    start_of_turn: t.start_of_turn(),
                    end_of_turn: t.end_of_turn(),
                    pad: t.pad().unwrap_or(u32::MAX),
                };
                sized::write(tokens, &value, "tokens")
            })
        }
    })
}

/// The ids of a whole conversation in Gemma's turns, from the beginning-of-sequence token to the open turn of the
/// model that is to answer. Control tokens written out in a text are text. Writes them to `ids`, which has room for
/// `capacity`, and their number to `*n`, which may be NULL. `cancel` may be NULL.
///
/// Ownership: all is borrowed.
/// Threads: any.
/// Errors: CARAT_CHAT where the turns are not at most one of the system, then user and model in turn, the last the
/// user's; CARAT_BUFFER_TOO_SMALL, with `*n` written; as carat_tokenize().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_chat_render(
    model: *const carat_model,
    turns: *const carat_turn,
    n_turns: usize,
    cancel: *const carat_cancel,
    ids: *mut u32,
    capacity: usize,
    n: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with_tokenizer(model, |tokenizer| {
                let turns = turns_of(turns, n_turns)?;
                let cancel = cancel::token(cancel);
                fill(&chat::render(tokenizer, &turns, cancel.as_ref())?, ids, capacity, n)
            })
        }
    })
}

/// Turns ids into text as they come, whole characters at a time.
pub struct carat_decoder(Exclusive<StreamDecoder>);

/// A decoder at the beginning of a text.
///
/// Ownership: `*out` is the caller's, ended by carat_decoder_free(). It keeps what it needs of the model.
/// Threads: any.
/// Errors: as carat_tokenize().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_decoder_new(
    model: *const carat_model,
    out: *mut *mut carat_decoder,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            with_tokenizer(model, |tokenizer| {
                hand_out(out, || Ok(carat_decoder(Exclusive::new(StreamDecoder::new(tokenizer)?))))
            })
        }
    })
}

/// Takes the next id; the text that is now certain, which may be empty, goes to `text` as in carat_detokenize(). It has
/// at most 2048 bytes. The id is taken only where the call succeeds.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_TOKEN_OUT_OF_RANGE; CARAT_BUFFER_TOO_SMALL, for a `capacity` below 2048 whatever the text, so that it
/// shows at once; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_decoder_push(
    decoder: *mut carat_decoder,
    id: u32,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            check_decoder_room(capacity, len)?;
            hold(decoder, "decoder")?.0.with(|d| fill_text(d.push(id)?, text, capacity, len))
        }
    })
}

/// No piece of a vocabulary that is accepted is longer than 1024 bytes, and a few may have been held back.
const DECODER_ROOM: usize = 2048;

/// # Safety
/// As [`put`].
unsafe fn check_decoder_room(capacity: usize, len: *mut usize) -> Outcome {
    if capacity >= DECODER_ROOM {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe { put_if_asked(len, DECODER_ROOM) };
    let what = format!("the buffer has room for {capacity} bytes, a decoder may need {DECODER_ROOM}");
    Err(Failure::Border(CARAT_BUFFER_TOO_SMALL, what))
}

/// The end of the text: what was held back becomes U+FFFD and goes to `text`, as in carat_decoder_push(). The decoder is
/// then at the beginning of a text again.
///
/// Ownership: all is borrowed.
/// Threads: any, one call at a time.
/// Errors: CARAT_BUFFER_TOO_SMALL; CARAT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_decoder_flush(
    decoder: *mut carat_decoder,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut *mut carat_error,
) -> carat_status {
    guard(error, || {
        // SAFETY: the header's contract, here and below.
        unsafe {
            check_decoder_room(capacity, len)?;
            hold(decoder, "decoder")?.0.with(|d| fill_text(d.flush(), text, capacity, len))
        }
    })
}

/// Frees a decoder; NULL is nothing to do.
///
/// Ownership: ends that of `decoder`.
/// Threads: any, once; during a call on it, deferred to the call's end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn carat_decoder_free(decoder: *mut carat_decoder) {
    // SAFETY: the header's contract.
    unsafe { release(decoder) }
}
