//! Going back: by cutting the session's text where its sliding windows allow it, else by snapshots of them.

use super::transcript::Transcript;
use crate::model::kv_cache::Snapshot;
use crate::session::Session;
use crate::{CancelToken, Result};

/// Snapshots of a session, each of a beginning of the tokens that it holds. One of length 0 is free.
pub(super) struct Snapshots(Vec<Snapshot>);

impl Snapshots {
    /// As many as the session's options say, none where it can go back anywhere. The first are those that are `there`.
    pub(super) fn new(session: &Session, there: Vec<Snapshot>) -> Result<Snapshots> {
        let mut all = there;
        while all.len() < session.options().snapshots {
            match session.blank_snapshot()? {
                Some(s) => all.push(s),
                None => break,
            }
        }
        Ok(Snapshots(all))
    }

    /// Those that the session needs to go back to where they were made, the longest first.
    pub(super) fn needed(&self, session: &Session) -> Vec<&Snapshot> {
        let mut all: Vec<_> = self.0.iter().filter(|s| s.len > 0 && !session.can_resume_at(s.len)).collect();
        all.sort_by_key(|s| std::cmp::Reverse(s.len));
        all
    }

    /// Cuts the session's text to the longest beginning of the transcript that it can go back to, and to less than
    /// all of it, as the logits of the last token are wanted. Returns its length.
    pub(super) fn rewind(&mut self, session: &mut Session, transcript: &Transcript) -> Result<usize> {
        let ids = &transcript.ids;
        let mut common = session.tokens().iter().zip(ids).take_while(|(a, b)| a == b).count();
        common = common.min(ids.len().saturating_sub(1));
        let begin = begin(transcript);
        // A few tokens of the question are worth a snapshot of where it begins.
        if (1..common).contains(&begin)
            && !self.0.is_empty()
            && !self.0.iter().any(|s| s.len == begin)
            && session.can_resume_at(begin)
        {
            common = begin;
        }
        for s in &mut self.0 {
            if s.len > common {
                s.len = 0;
            }
        }
        if common == session.len() || session.can_resume_at(common) {
            session.truncate(common)?;
        } else {
            match self.0.iter().max_by_key(|s| s.len) {
                Some(s) if s.len > 0 => session.restore(s)?,
                _ => session.truncate(0)?,
            }
        }
        Ok(session.len())
    }

    /// Goes on to where the last exchange begins, and takes a snapshot there.
    pub(super) fn advance(
        &mut self,
        session: &mut Session,
        transcript: &Transcript,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        let begin = begin(transcript);
        if begin < session.len() || begin == 0 || self.0.iter().any(|s| s.len == begin) {
            return Ok(());
        }
        if begin > session.len() {
            session.prefill_with(&transcript.ids[session.len()..begin], cancel)?;
        }
        match self.0.iter_mut().min_by_key(|s| s.len) {
            Some(s) => session.snapshot(s),
            None => Ok(()),
        }
    }
}

/// Where the last exchange begins.
fn begin(transcript: &Transcript) -> usize {
    transcript.exchanges.last().map_or(0, |e| e.begin)
}
