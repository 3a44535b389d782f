//! The state of one text: its tokens, their keys and values, and the buffers to add more.

use std::sync::Arc;
use std::time::Instant;

use crate::draft::Drafts;
use crate::error::{try_vec, try_with_capacity};
use crate::kernels::Aligned;
use crate::model::forward::Pass;
use crate::model::kv_cache::{KvCache, KvShape, Snapshot};
use crate::model::scratch::Scratch;
use crate::model::{MAX_LOGIT_ROWS, Model, SessionOptions};
use crate::ops::Arithmetic;
use crate::sampler::{Rng, log_prob, log_sum_exp};
use crate::{CancelToken, Error, Result};

/// One text being read and written by a [`Model`].
///
/// A session owns everything that changes; the model is shared. Its calls run on the model's threads, one call of one
/// session at a time.
pub struct Session {
    model: Model,
    options: SessionOptions,
    pub(crate) shape: KvShape,
    pub(crate) cache: KvCache,
    pub(crate) scratch: Scratch,
    /// Room for a whole context is reserved, so that adding one allocates nothing.
    pub(crate) tokens: Vec<u32>,
    /// The row of `scratch.logits` that is that of the last token, where one is.
    pub(crate) logits_row: Option<usize>,
    /// What happened, when the session can only be dropped.
    broken: Option<String>,
    /// What may come next, where [`SessionOptions::draft`] asks for guesses.
    drafts: Drafts,
    /// What sampling goes on with.
    pub(crate) rng: Rng,
}

/// The logits `[vocab]` that a session had at one moment; see [`Session::keep_logits`]. Clones share them.
#[derive(Clone)]
pub struct Logits {
    rows: LogitRows,
    at: std::ops::Range<usize>,
}

impl std::ops::Deref for Logits {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.rows[self.at.clone()]
    }
}

/// Rows of logits that somebody may have kept.
#[derive(Clone)]
pub(crate) struct LogitRows(Arc<Aligned<f32>>);

impl LogitRows {
    pub(crate) fn new(len: usize) -> Result<LogitRows> {
        Ok(LogitRows(Arc::new(Aligned::zeroed(len, "logits")?)))
    }

    /// The values to write over: others, where somebody kept these.
    pub(crate) fn overwrite(&mut self) -> Result<&mut Aligned<f32>> {
        if Arc::get_mut(&mut self.0).is_none() {
            *self = LogitRows::new(self.0.len())?;
        }
        Ok(Arc::get_mut(&mut self.0).expect("nobody else has it"))
    }
}

impl std::ops::Deref for LogitRows {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

/// How likely a token of a given text is, after those before it.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct TokenScore {
    /// Its id.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub log_prob: f32,
    /// How many tokens are likelier.
    pub rank: u32,
}

impl Session {
    /// An empty session. All memory that it needs for its tokens is taken here; see [`Model::plan`].
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::OutOfMemory`].
    pub fn new(model: &Model, options: SessionOptions) -> Result<Session> {
        let m = &*model.0;
        let shape = options.shape(&m.config, &m.weights)?;
        let needs = m.weights.needs(options.exact);
        let tokens = try_with_capacity(shape.context, "the tokens of a session")?;
        Ok(Session {
            model: model.clone(),
            cache: KvCache::new(&m.config, &shape)?,
            scratch: Scratch::new(&m.config, &needs, shape.batch, 1 + shape.draft, m.team.threads())?,
            options,
            shape,
            tokens,
            logits_row: None,
            broken: None,
            drafts: Drafts::new(),
            rng: Rng::unpredictable(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The options it was made with.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How many it can hold.
    pub fn context(&self) -> usize {
        self.shape.context
    }

    /// The logits `[vocab]` of the token that comes next, where the last call computed them: [`Self::prefill`] and
    /// [`Self::step`] do; after anything else there are none.
    pub fn logits(&self) -> Option<&[f32]> {
        self.logits_at().map(|at| &self.scratch.logits[at])
    }

    /// [`Self::logits`] to keep, without a copy: while they are kept the session computes into other memory, which it
    /// takes with the next pass.
    pub fn keep_logits(&self) -> Option<Logits> {
        self.logits_at().map(|at| Logits { rows: self.scratch.logits.clone(), at })
    }

    /// Where they lie in `scratch.logits`.
    fn logits_at(&self) -> Option<std::ops::Range<usize>> {
        let vocab = self.model.config().vocab;
        self.logits_row.map(|row| row * vocab..(row + 1) * vocab)
    }

    /// Adds the tokens of a prompt, in batches of [`SessionOptions::batch`].
    ///
    /// The same tokens give the same logits, bit for bit, however they are split into calls.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::TokenOutOfRange`] or [`Error::PromptTooLong`], before anything is done.
    pub fn prefill(&mut self, ids: &[u32]) -> Result<()> {
        self.prefill_with(ids, None)
    }

    /// As [`Self::prefill`]; when `cancel` is set the session is left at its last completed batch.
    ///
    /// # Errors
    /// As [`Self::prefill`], and [`Error::Cancelled`].
    pub fn prefill_with(&mut self, ids: &[u32], cancel: Option<&CancelToken>) -> Result<()> {
        self.check_prompt(ids)?;
        self.make_scratch_for(ids.len())?;
        let batches = ids.len().div_ceil(self.shape.batch);
        for (i, tokens) in ids.chunks(self.shape.batch).enumerate() {
            self.forward(tokens, 0, self.arithmetic(Arithmetic::Prefill), i + 1 == batches, cancel)?;
        }
        Ok(())
    }

    /// Adds one token and returns the logits `[vocab]` of the next. Nothing is allocated.
    ///
    /// # Errors
    /// [`Error::ContextFull`], [`Error::TokenOutOfRange`].
    pub fn step(&mut self, token: u32) -> Result<&[f32]> {
        self.step_with(token, None)
    }

    /// As [`Self::step`]; when `cancel` is set the token is not added.
    ///
    /// # Errors
    /// As [`Self::step`], and [`Error::Cancelled`].
    pub fn step_with(&mut self, token: u32, cancel: Option<&CancelToken>) -> Result<&[f32]> {
        self.check_step(token)?;
        self.forward(&[token], 0, self.arithmetic(Arithmetic::Step), true, cancel)?;
        Ok(self.logits().unwrap_or_default())
    }

    /// Before [`Self::advance`] goes on from a text that came about otherwise; counts from there where it is `new`.
    pub(crate) fn begin_drafts(&mut self, new: bool) {
        if new {
            (self.drafts.drafted, self.drafts.accepted) = (0, 0);
        }
        if self.shape.draft > 0 {
            self.drafts.begin(&self.tokens);
        }
    }

    /// Tokens that were verified ahead, and those of them that came true.
    pub(crate) fn drafts(&self) -> (usize, usize) {
        (self.drafts.drafted, self.drafts.accepted)
    }

    /// For tests: guesses as far as it may, whatever that costs.
    #[doc(hidden)]
    pub fn draft_eagerly(&mut self) {
        self.drafts.eager = true;
    }

    /// As [`Self::step_with`], where at most `wanted` more tokens are. A token that was guessed has been processed
    /// with one before it, and nothing is left to do.
    pub(crate) fn advance(&mut self, token: u32, wanted: usize, cancel: Option<&CancelToken>) -> Result<()> {
        if self.shape.draft == 0 {
            return self.step_with(token, cancel).map(|_| ());
        }
        if self.drafts.take(&self.tokens, token)
            && let Some(row) = self.logits_row.take()
        {
            cancel.map_or(Ok(()), CancelToken::check)?;
            self.tokens.push(token);
            self.logits_row = Some(row + 1);
            return Ok(());
        }
        self.check_step(token)?;
        let room = self.shape.context - self.tokens.len() - 1;
        let most = wanted.min(room).min(self.shape.draft);
        let mut pass = [0; MAX_LOGIT_ROWS];
        let drafted = self.drafts.pass(&self.tokens, token, most);
        let pass = &mut pass[..drafted.len()];
        pass.copy_from_slice(drafted);
        let began = Instant::now();
        self.forward(pass, pass.len() - 1, self.arithmetic(Arithmetic::Step), true, cancel)?;
        self.drafts.took(pass.len(), began.elapsed());
        Ok(())
    }

    /// Adds tokens as [`Self::prefill`] does, and hands the logits `[vocab]` after each of them to `each`, with the
    /// token's index in `ids`.
    ///
    /// # Errors
    /// As [`Self::prefill_with`], and [`Error::OutOfMemory`] for the room that 16 rows of logits take.
    pub fn prefill_each(
        &mut self,
        ids: &[u32],
        cancel: Option<&CancelToken>,
        mut each: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        self.check_prompt(ids)?;
        self.make_scratch_for(ids.len())?;
        let vocab = self.model.config().vocab;
        let arithmetic = self.arithmetic(Arithmetic::Prefill);
        let mut logits = try_vec(MAX_LOGIT_ROWS * vocab, 0f32, "rows of logits")?;
        let mut done = 0;
        for tokens in ids.chunks(self.shape.batch) {
            self.forward(tokens, 0, arithmetic, false, cancel)?;
            for first in (0..tokens.len()).step_by(MAX_LOGIT_ROWS) {
                let rows = first..(first + MAX_LOGIT_ROWS).min(tokens.len());
                let logits = &mut logits[..rows.len() * vocab];
                let result = self.model.0.head(arithmetic, rows.clone(), &mut self.scratch, logits, cancel);
                self.note_broken(&result);
                result?;
                for (row, logits) in rows.zip(logits.chunks_exact(vocab)) {
                    each(done + row, logits)?;
                }
            }
            done += tokens.len();
        }
        Ok(())
    }

    /// Adds the tokens of a text, and tells for those from index `from` on how likely they were after those before
    /// them. The very first token of a session has nothing before it and no score.
    ///
    /// # Errors
    /// As [`Self::prefill_each`], [`Error::InvalidOption`] for a `from` beyond the text, [`Error::NanLogits`].
    pub fn score(
        &mut self,
        ids: &[u32],
        from: usize,
        cancel: Option<&CancelToken>,
    ) -> Result<Vec<TokenScore>> {
        if from > ids.len() {
            return Err(Error::InvalidOption {
                option: "from",
                expected: format!("0 to {}, the length of the text", ids.len()),
                found: from.to_string(),
            });
        }
        let kernels = self.model.0.kernels;
        let before = self.tokens.len();
        let mut scores = try_with_capacity(ids.len() - from, "the scores of a text")?;
        let mut score = |token: u32, logits: &[f32], position: usize| {
            let own = logits[token as usize];
            let log_sum = log_sum_exp(&kernels, logits);
            if !(own.is_finite() && log_sum.is_finite()) {
                return Err(Error::NanLogits { token, position });
            }
            let log_prob = log_prob(own, log_sum);
            let rank = logits.iter().filter(|&&l| l > own).count() as u32;
            scores.push(TokenScore { token, log_prob, rank });
            Ok(())
        };
        if from == 0
            && let (Some(&first), Some(logits)) = (ids.first(), self.logits())
        {
            self.check_prompt(ids)?;
            score(first, logits, before)?;
        }
        self.prefill_each(ids, cancel, |i, logits| match ids.get(i + 1) {
            Some(&next) if i + 1 >= from => score(next, logits, before + i + 1),
            _ => Ok(()),
        })?;
        Ok(scores)
    }

    /// Cuts the text to its first `len` tokens.
    ///
    /// # Errors
    /// [`Error::Rewind`] when the sliding windows no longer hold what comes before `len`: the session is as it was.
    /// [`Error::InvalidOption`] when there are fewer tokens.
    pub fn truncate(&mut self, len: usize) -> Result<()> {
        self.check_usable()?;
        if len > self.tokens.len() {
            return Err(Error::InvalidOption {
                option: "len",
                expected: format!("0 to {}, the tokens there are", self.tokens.len()),
                found: len.to_string(),
            });
        }
        if len == self.tokens.len() {
            return Ok(());
        }
        if !self.cache.can_resume_at(len) {
            return Err(Error::Rewind { requested: len, nearest: self.cache.nearest_rewind() });
        }
        if len == 0 {
            self.cache.clear();
        }
        self.tokens.truncate(len);
        self.logits_row = None;
        Ok(())
    }

    /// Whether [`Self::truncate`] to `len` would do.
    pub(crate) fn can_resume_at(&self, len: usize) -> bool {
        self.cache.can_resume_at(len)
    }

    /// Room for a snapshot, or `None` where the session can go back anywhere without one.
    pub(crate) fn blank_snapshot(&self) -> Result<Option<Snapshot>> {
        self.cache.blank_snapshot()
    }

    /// Makes `into` a snapshot of the text so far.
    pub(crate) fn snapshot(&self, into: &mut Snapshot) -> Result<()> {
        self.check_usable()?;
        self.cache.snapshot(self.tokens.len(), into);
        Ok(())
    }

    /// Cuts the text to its first `s.len` tokens, which must be those that were there when the snapshot was made.
    pub(crate) fn restore(&mut self, s: &Snapshot) -> Result<()> {
        self.check_usable()?;
        debug_assert!(s.len <= self.tokens.len());
        self.cache.restore(s);
        self.tokens.truncate(s.len);
        self.logits_row = None;
        Ok(())
    }

    /// A copy that goes its own way from here.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn fork(&self) -> Result<Session> {
        self.check_usable()?;
        let mut other = Session::new(&self.model, self.options.clone())?;
        other.cache.copy_from(&self.cache);
        other.tokens.extend_from_slice(&self.tokens);
        if let Some(logits) = self.logits() {
            other.scratch.logits.overwrite()?[..logits.len()].copy_from_slice(logits);
            other.logits_row = Some(0);
        }
        other.rng = self.rng;
        Ok(other)
    }

    /// Gives back memory that can be had again: the buffers of large batches, and rows of the KV cache beyond the
    /// text. For when the system says that memory is short. The text stays as it is, and so do the logits.
    ///
    /// Steps go on without an allocation. The next prompt of more than 16 tokens takes the buffers again, and that
    /// may fail with [`Error::OutOfMemory`].
    pub fn trim(&mut self) {
        if self.broken.is_some() {
            return;
        }
        self.cache.trim(self.tokens.len());
        if self.scratch.batch > MAX_LOGIT_ROWS {
            // Where there is not even memory for small ones, there is no getting less.
            let _ = self.make_scratch(MAX_LOGIT_ROWS);
        }
    }

    /// Takes again what [`Self::trim`] gave back, where a prompt of so many tokens needs it.
    fn make_scratch_for(&mut self, tokens: usize) -> Result<()> {
        if tokens.min(self.shape.batch) > self.scratch.batch {
            self.make_scratch(self.shape.batch)
        } else {
            Ok(())
        }
    }

    fn make_scratch(&mut self, batch: usize) -> Result<()> {
        let m = &*self.model.0;
        let needs = m.weights.needs(self.options.exact);
        let mut new = Scratch::new(&m.config, &needs, batch, 1 + self.shape.draft, m.team.threads())?;
        std::mem::swap(&mut new.logits, &mut self.scratch.logits);
        self.scratch = new;
        Ok(())
    }

    /// The arithmetic asked for, unless the session is an exact one.
    fn arithmetic(&self, a: Arithmetic) -> Arithmetic {
        if self.options.exact { Arithmetic::Exact } else { a }
    }

    /// One pass: on success its tokens are part of the text, but for the last `ahead`. The logits wanted are those
    /// of the last that is, and of these.
    fn forward(
        &mut self,
        tokens: &[u32],
        ahead: usize,
        arithmetic: Arithmetic,
        logits: bool,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        self.logits_row = None;
        let logits = if logits { 1 + ahead } else { 0 };
        let pass = Pass { tokens, start: self.tokens.len(), arithmetic, logits };
        let result = self.model.0.forward(&pass, &mut self.cache, &mut self.scratch, cancel);
        self.note_broken(&result);
        result?;
        self.tokens.extend_from_slice(&tokens[..tokens.len() - ahead]);
        self.logits_row = (logits > 0).then_some(0);
        Ok(())
    }

    fn note_broken(&mut self, result: &Result<()>) {
        if let Err(Error::Internal { what }) = result {
            self.broken = Some(what.clone());
        }
    }

    pub(crate) fn check_usable(&self) -> Result<()> {
        match &self.broken {
            None => Ok(()),
            Some(what) => {
                Err(Error::Internal { what: format!("the session can only be dropped, after: {what}") })
            }
        }
    }

    fn check_step(&self, token: u32) -> Result<()> {
        self.check_usable()?;
        self.check_ids(&[token])?;
        if self.tokens.len() == self.shape.context {
            return Err(Error::ContextFull { context: self.shape.context });
        }
        Ok(())
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocab = self.model.config().vocab;
        match ids.iter().position(|&id| id as usize >= vocab) {
            None => Ok(()),
            Some(position) => Err(Error::TokenOutOfRange { token: ids[position], position, vocab }),
        }
    }

    pub(crate) fn check_prompt(&self, ids: &[u32]) -> Result<()> {
        self.check_usable()?;
        if ids.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        self.check_ids(ids)?;
        if ids.len() > self.shape.context - self.tokens.len() {
            return Err(Error::PromptTooLong {
                tokens: ids.len(),
                context: self.shape.context,
                used: self.tokens.len(),
            });
        }
        Ok(())
    }
}
