//! Stop strings, which may begin in one token's text and end in another's.

use crate::Result;

/// Holds text back while it may be the beginning of a stop string.
pub(crate) struct StopFilter<'a> {
    stops: &'a [String],
    /// Text that has not been let through: at most one byte less than the longest stop string, and a piece.
    held: String,
}

/// What [`StopFilter::push`] decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// No stop string has occurred.
    Continue,
    /// The one of this number has: the text ends before it.
    Stop(usize),
}

impl<'a> StopFilter<'a> {
    /// For these strings; empty ones are ignored. Room is made for pieces of up to `piece` bytes.
    pub(crate) fn new(stops: &'a [String], piece: usize) -> Result<StopFilter<'a>> {
        Ok(StopFilter { stops, held: Self::room(stops, piece)? })
    }

    /// An empty string with room for all that [`Self::push`] may let through at once.
    pub(crate) fn room(stops: &[String], piece: usize) -> Result<String> {
        crate::error::try_text(Self::room_bytes(stops, piece), "text held back for stop strings")
    }

    /// Bytes of that.
    pub(crate) fn room_bytes(stops: &[String], piece: usize) -> usize {
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        2 * (longest + piece)
    }

    /// Takes `text` and appends to `out` what can no longer be part of a stop string.
    pub(crate) fn push(&mut self, text: &str, out: &mut String) -> Verdict {
        self.held.push_str(text);
        let stops = || self.stops.iter().enumerate().filter(|(_, s)| !s.is_empty());
        // The earliest occurrence ends the text; of several that begin together, the first given.
        let first = stops().filter_map(|(i, s)| Some((self.held.find(s.as_str())?, i))).min();
        if let Some((at, i)) = first {
            out.push_str(&self.held[..at]);
            self.held.clear();
            return Verdict::Stop(i);
        }
        let safe = self.held.char_indices().map(|(at, _)| at).find(|&at| {
            let rest = &self.held[at..];
            stops().any(|(_, s)| s.starts_with(rest))
        });
        let safe = safe.unwrap_or(self.held.len());
        out.push_str(&self.held[..safe]);
        self.held.drain(..safe);
        Verdict::Continue
    }

    /// The end of the text: what was held back was no stop string.
    pub(crate) fn flush(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes through when the text arrives in these pieces.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut filter = StopFilter::new(&stops, 16).unwrap();
        let mut outs = Vec::new();
        for p in pieces {
            let mut out = String::new();
            let verdict = filter.push(p, &mut out);
            outs.push(out);
            if let Verdict::Stop(i) = verdict {
                return (outs, Some(i));
            }
        }
        let mut out = String::new();
        filter.flush(&mut out);
        outs.push(out);
        (outs, None)
    }

    #[test]
    fn a_stop_string_across_pieces_is_never_let_through() {
        let text = "The answer is 42.\n\nNext question";
        let bytes = text.char_indices().map(|(i, _)| i).chain([text.len()]).collect::<Vec<_>>();
        for a in &bytes {
            for b in bytes.iter().filter(|b| *b >= a) {
                let (outs, stop) = run(&["\n\n", "###"], &[&text[..*a], &text[*a..*b], &text[*b..]]);
                assert_eq!((outs.concat().as_str(), stop), ("The answer is 42.", Some(0)));
            }
        }
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let (outs, stop) = run(&["###"], &["a#", "#b", "##", "c"]);
        assert_eq!(outs, ["a", "##b", "", "##c", ""]);
        assert_eq!(stop, None);
        // At the end what was held comes out.
        let (outs, _) = run(&["###"], &["a##"]);
        assert_eq!(outs, ["a", "##"]);
    }

    #[test]
    fn the_earliest_wins_and_overlaps_are_seen() {
        assert_eq!(run(&["bc", "ab"], &["xabc"]), (vec!["x".into()], Some(1)));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]).0.concat(), "a");
        assert_eq!(run(&["é!"], &["caf", "é", "?é", "!"]).0.concat(), "café?");
        assert_eq!(run(&[""], &["text"]), (vec!["text".into(), "".into()], None));
    }
}
