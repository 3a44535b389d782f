//! The turns of a saved session, read from its tokens.

use carat::Tokenizer;

use crate::failure::{Failure, Result};

/// Questions and answers. A question without an answer at the end is left out.
pub fn turns(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<Vec<(String, String)>> {
    let mut turns = Vec::new();
    let mut question = None;
    for turn in tokens.split(|&id| id == tokenizer.start_of_turn()).skip(1) {
        let content = turn.split(|&id| id == tokenizer.end_of_turn()).next().unwrap_or_default();
        let text = tokenizer.decode(content)?;
        match (text.split_once('\n'), &mut question) {
            (Some(("user", text)), None) => question = Some(text.to_string()),
            (Some(("model", text)), Some(_)) => {
                turns.extend(question.take().map(|question| (question, text.to_string())));
            }
            _ => return Err(Failure::Usage("the file holds a session, but not a conversation".into())),
        }
    }
    match turns[..] {
        [] => Err(Failure::Usage("the file holds a session, but not a conversation".into())),
        _ => Ok(turns),
    }
}
