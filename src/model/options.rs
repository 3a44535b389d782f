//! How a session is laid out.

use super::kv_cache::{KvShape, KvType};
use super::weights::Weights;
use super::{Config, MAX_LOGIT_ROWS};
use crate::{Error, Result};

/// How a [`Session`](crate::Session) is laid out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Tokens that the session can hold. `None`: the model's own context length, but at most 4096.
    pub context: Option<usize>,
    /// Most tokens that are processed at once, 1 to 4096: more is faster on long prompts and takes more memory.
    /// A cancelled prompt is left at a multiple of it. 256 unless asked.
    pub batch: usize,
    /// How keys and values are stored. `None`: in f16, but in f32 for a model whose matrices are all F32, which
    /// somebody chose for its precision.
    pub kv: Option<KvType>,
    /// Compute with f32 activations, an f32 cache and weights dequantized on the fly: slow, and the truth that the
    /// fast paths are tested against.
    pub exact: bool,
    /// Keep every position in the windowed layers too, so that a text can be cut anywhere without processing it
    /// again.
    pub full_history: bool,
    /// Copies of the sliding windows that a [`Conversation`](crate::Conversation) keeps to go back to the start of
    /// its last turns, at most 64. 1 unless asked; 0 for none.
    pub snapshots: usize,
    /// Most tokens that [`Session::generate`](crate::Session::generate) guesses ahead where the text seems to repeat
    /// itself, and verifies in one pass, at most 15. The text that comes out is the same, token for token and bit for
    /// bit; the more it quotes what it has said or was given, the sooner. Each takes a row of logits of memory.
    /// 0 unless asked.
    pub draft: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            context: None,
            batch: 256,
            kv: None,
            exact: false,
            full_history: false,
            snapshots: 1,
            draft: 0,
        }
    }
}

/// Most positions that a session may hold by default.
const DEFAULT_CONTEXT: usize = 4096;
const MAX_BATCH: usize = 4096;
/// Most snapshots that a conversation may keep.
pub(crate) const MAX_SNAPSHOTS: usize = 64;
/// A draft and the token before it are verified together.
pub(crate) const MAX_DRAFT: usize = MAX_LOGIT_ROWS - 1;

impl SessionOptions {
    /// The layout for a model, or [`Error::InvalidOption`].
    pub(crate) fn shape(&self, c: &Config, weights: &Weights) -> Result<KvShape> {
        let context = self.context.unwrap_or(c.context_length.min(DEFAULT_CONTEXT));
        if context == 0 || context > c.context_length {
            return Err(Error::InvalidOption {
                option: "context",
                expected: format!("1 to {}, the model's context length", c.context_length),
                found: context.to_string(),
            });
        }
        if self.batch == 0 || self.batch > MAX_BATCH {
            return Err(Error::InvalidOption {
                option: "batch",
                expected: format!("1 to {MAX_BATCH}"),
                found: self.batch.to_string(),
            });
        }
        if self.snapshots > MAX_SNAPSHOTS {
            return Err(Error::InvalidOption {
                option: "snapshots",
                expected: format!("0 to {MAX_SNAPSHOTS}"),
                found: self.snapshots.to_string(),
            });
        }
        if self.draft > MAX_DRAFT {
            return Err(Error::InvalidOption {
                option: "draft",
                expected: format!("0 to {MAX_DRAFT}"),
                found: self.draft.to_string(),
            });
        }
        Ok(KvShape {
            ty: match self.kv {
                _ if self.exact => KvType::F32,
                Some(ty) => ty,
                None if weights.all_f32() => KvType::F32,
                None => KvType::F16,
            },
            context,
            batch: self.batch.min(context).max(MAX_LOGIT_ROWS),
            full_history: self.full_history,
            draft: self.draft,
        })
    }
}
