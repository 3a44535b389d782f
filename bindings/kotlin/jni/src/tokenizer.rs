//! Text to ids and back.

use jni_sys::{jboolean, jbyteArray, jint, jintArray, jlong, jobjectArray, jstring};

use crate::env::{Env, Outcome, Raise, call, filled, init};
use crate::ffi::*;
use crate::model::{Handle, model, pointer, token};
use crate::native;

native! {
    fn Java_ai_carat_Native_tokenize(
        env, model: jlong, text: jstring, special: jboolean, bos: jboolean, cancel: jlong
    ) -> jintArray {
        let text = env.text(text)?;
        let mut o = init(carat_tokenize_options_init);
        o.special = special.into();
        o.bos = bos.into();
        o.cancel = token(cancel);
        // A text never has more ids than bytes, plus 1.
        let ids = filled::<u32>(text.len() + 1, |to, room, n, error| {
            // SAFETY: Kotlin's contract; a text with its length; a buffer with its capacity.
            unsafe { carat_tokenize(self::model(model), text.as_ptr().cast(), text.len(), &o, to, room, n, error) }
        })?;
        env.new_ids(&ids)
    }
}

native! {
    fn Java_ai_carat_Native_detokenize(env, model: jlong, ids: jintArray) -> jstring {
        let ids = env.ids(ids)?;
        let text = filled::<u8>(16 + 8 * ids.len(), |to, room, n, error| {
            // SAFETY: Kotlin's contract; ids with their number; a buffer with its capacity.
            unsafe { carat_detokenize(self::model(model), pointer(&ids), ids.len(), to.cast(), room, n, error) }
        })?;
        env.string(&text)
    }
}

native! {
    fn Java_ai_carat_Native_tokenBytes(env, model: jlong, id: jint) -> jbyteArray {
        let bytes = filled::<u8>(64, |to, room, n, error| {
            // SAFETY: Kotlin's contract; a buffer with its capacity.
            unsafe { carat_token_bytes(self::model(model), id as u32, to, room, n, error) }
        })?;
        env.new_bytes(&bytes)
    }
}

native! {
    fn Java_ai_carat_Native_tokenKind(_env, model: jlong, id: jint) -> jint {
        let mut kind = 0;
        // SAFETY: Kotlin's contract.
        call(|error| unsafe { carat_token_kind(self::model(model), id as u32, &mut kind, error) })?;
        Ok(kind)
    }
}

native! {
    fn Java_ai_carat_Native_tokenId(env, model: jlong, text: jstring) -> jint {
        let text = env.text(text)?;
        let mut id = 0;
        call(|error| {
            // SAFETY: Kotlin's contract; a text with its length.
            unsafe { carat_token_id(self::model(model), text.as_ptr().cast(), text.len(), &mut id, error) }
        })?;
        Ok(id as jint)
    }
}

native! {
    fn Java_ai_carat_Native_specialTokens(env, model: jlong) -> jintArray {
        let mut t = init(carat_special_tokens_init);
        // SAFETY: Kotlin's contract; a struct made by its _init function.
        call(|error| unsafe { carat_model_special_tokens(self::model(model), &mut t, error) })?;
        env.new_ids(&[t.vocab_size, t.bos, t.eos, t.unk, t.start_of_turn, t.end_of_turn, t.pad])
    }
}

/// Turns from their roles and texts.
pub struct Turns {
    /// Hold what `turns` points to.
    _texts: Vec<String>,
    pub turns: Vec<carat_turn>,
}

impl Turns {
    pub fn new(env: Env, roles: jintArray, texts: jobjectArray) -> Outcome<Turns> {
        let (roles, texts) = (env.ints(roles)?, env.texts(texts)?);
        if roles.len() != texts.len() {
            return Err(Raise::argument("as many roles as texts"));
        }
        let turns = std::iter::zip(roles, &texts)
            .map(|(role, text)| carat_turn {
                role,
                reserved: 0,
                text: carat_text { ptr: text.as_ptr().cast(), len: text.len() },
            })
            .collect();
        Ok(Turns { _texts: texts, turns })
    }
}

native! {
    fn Java_ai_carat_Native_chatRender(
        env, model: jlong, roles: jintArray, texts: jobjectArray, cancel: jlong
    ) -> jintArray {
        let held = Turns::new(env, roles, texts)?;
        let ids = filled::<u32>(256, |to, room, n, error| {
            let turns = &held.turns;
            // SAFETY: Kotlin's contract; turns with their number, whose texts live; a buffer with its capacity.
            unsafe { carat_chat_render(self::model(model), pointer(turns), turns.len(), token(cancel), to, room, n, error) }
        })?;
        env.new_ids(&ids)
    }
}

native! {
    fn Java_ai_carat_Native_decoderNew(_env, model: jlong) -> jlong {
        let mut decoder = std::ptr::null_mut();
        // SAFETY: Kotlin's contract.
        let model = unsafe { Handle::<carat_model>::get(model) };
        // SAFETY: as above.
        call(|error| unsafe { carat_decoder_new(model.raw, &mut decoder, error) })?;
        Ok(Handle::give(decoder, model.log.clone()))
    }
}

/// What a decoder hands out at once, by the header.
const DECODED: usize = 2048;

native! {
    fn Java_ai_carat_Native_decoderPush(env, decoder: jlong, id: jint) -> jstring {
        // SAFETY: Kotlin's contract.
        let decoder = unsafe { Handle::<carat_decoder>::get(decoder) };
        let (mut text, mut n) = ([0_u8; DECODED], 0);
        call(|error| {
            // SAFETY: as above; a buffer with its capacity.
            unsafe { carat_decoder_push(decoder.raw, id as u32, text.as_mut_ptr().cast(), DECODED, &mut n, error) }
        })?;
        env.string(&text[..n])
    }
}

native! {
    fn Java_ai_carat_Native_decoderFlush(env, decoder: jlong) -> jstring {
        // SAFETY: Kotlin's contract.
        let decoder = unsafe { Handle::<carat_decoder>::get(decoder) };
        let (mut text, mut n) = ([0_u8; DECODED], 0);
        call(|error| {
            // SAFETY: as above; a buffer with its capacity.
            unsafe { carat_decoder_flush(decoder.raw, text.as_mut_ptr().cast(), DECODED, &mut n, error) }
        })?;
        env.string(&text[..n])
    }
}

native! {
    fn Java_ai_carat_Native_decoderFree(_env, decoder: jlong) {
        // SAFETY: Kotlin's contract.
        unsafe { Handle::<carat_decoder>::free(decoder, carat_decoder_free) };
        Ok(())
    }
}
