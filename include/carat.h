/* carat: inference for Google's Gemma models on the CPU. Generated from src/capi: do not edit.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The rules, which hold for every function unless it says otherwise:
 *
 * Errors. Functions that can fail return a carat_status: 0 (CARAT_OK), or the number of what went wrong; numbers are
 * never reused. Their last parameter, which may be NULL, gets an error object with a message on failure and is left
 * alone on success: set it to NULL first, and end it by carat_error_free(). Out-parameters are written on success only.
 * Any call may also return CARAT_INVALID_ARGUMENT, CARAT_OUT_OF_MEMORY, and CARAT_INTERNAL for a bug, which leaves the
 * handle good for being freed alone. Nothing is printed, no error aborts the process.
 *
 * Ownership. What a function hands out through `out` is the caller's until the matching _free(), which takes NULL. The
 * order of frees does not matter: a session keeps its model alive. Freeing during a call on the same handle is deferred
 * to the end of the call. Arguments are borrowed for the time of the call.
 *
 * Threads. Functions on `const carat_model *` and on cancel tokens may run at the same time in many threads. A session,
 * conversation or decoder takes one call at a time, from any thread; a second one, also from its own callback, gets
 * CARAT_BUSY. Computing is done by the calling thread and the model's own.
 *
 * Structs begin with their size. Fill the caller's by the matching _init(&x, sizeof x), then change fields: a program
 * that was compiled with an older, smaller struct goes on working, and nothing is written past its end. Structs that
 * are handed in may be NULL for the defaults. Reserved fields must stay zero.
 *
 * Texts are UTF-8 with a length in bytes and need no NUL at the end. Texts that are handed out go to a buffer of the
 * caller's; where it is too small the call fails with CARAT_BUFFER_TOO_SMALL and reports the size needed. Booleans are
 * 0 and 1. Ids, positions and counts are numbers of tokens; sizes are bytes; times are nanoseconds.
 *
 * Callbacks run on the calling thread (but carat_log_fn and carat_release_fn), get the user_data that was given with
 * them, and return 1 to go on or 0 to stop. They must return: no longjmp, no exception may leave them.
 *
 * After fork() a model cannot compute in the child: open it again there.
 */


#ifndef CARAT_H
#define CARAT_H

#include <stddef.h>
#include <stdint.h>

// When the context is full, an answer ends (CARAT_FINISH_CONTEXT_FULL); a turn that does not fit is an error.
#define CARAT_POLICY_STOP 0

// When the context is full, the oldest turns are forgotten: see carat_conversation_dropped().
#define CARAT_POLICY_DROP_OLDEST 1

// The call was wrong: change the arguments.
#define CARAT_KIND_USAGE 0

// The file is wrong, missing or not supported.
#define CARAT_KIND_FILE 1

// It was stopped by the caller.
#define CARAT_KIND_CANCELLED 2

// The machine or the library could not do it.
#define CARAT_KIND_RUNTIME 3

// The model ended its turn or the text.
#define CARAT_FINISH_END_OF_TURN 0

// `max_tokens`.
#define CARAT_FINISH_LIMIT 1

// A stop string.
#define CARAT_FINISH_STOP 2

// A callback returned 0.
#define CARAT_FINISH_CALLBACK 3

// The cancel token.
#define CARAT_FINISH_CANCELLED 4

// There is no room for another token.
#define CARAT_FINISH_CONTEXT_FULL 5

// Gemma: 2B and 7B.
#define CARAT_ARCH_GEMMA 1

// Gemma 2.
#define CARAT_ARCH_GEMMA2 2

// Gemma 3, text.
#define CARAT_ARCH_GEMMA3 3

// Nobody asked for the file to be locked in memory.
#define CARAT_MEMORY_NOT_LOCKED 0

// The file is locked in memory as long as the model lives.
#define CARAT_MEMORY_LOCKED 1

// The system refused to lock the file in memory; the log says why.
#define CARAT_MEMORY_LOCK_REFUSED 2

// What carat_abi_version() returns: raised when a function or field is added; nothing is ever removed or changed.
#define CARAT_ABI_VERSION 1

// The instruction set: the best that the processor has.
#define CARAT_ISA_AUTO 0

// Plain code, on every processor.
#define CARAT_ISA_SCALAR 1

// x86-64 with AVX2, FMA and F16C.
#define CARAT_ISA_AVX2 2

// x86-64 with AVX-512 F, BW, VL, DQ, VBMI and VNNI.
#define CARAT_ISA_AVX512_VNNI 3

// 64-bit ARM.
#define CARAT_ISA_NEON 4

// 64-bit ARM with the dot product of bytes.
#define CARAT_ISA_NEON_DOTPROD 5

// 64-bit ARM with the matrix product of bytes too.
#define CARAT_ISA_NEON_I8MM 6

// The tokenizer of this library.
#define CARAT_ENGINE_BUILTIN 0

// Google's SentencePiece, where it is compiled in.
#define CARAT_ENGINE_SENTENCEPIECE 1

// A log message: something did not go as asked, but on.
#define CARAT_LOG_WARN 1

// A log message: what was done.
#define CARAT_LOG_INFO 2

// Keys and values in f16, but in f32 for a model whose matrices are all F32.
#define CARAT_KV_AUTO 0

// Keys and values in f16.
#define CARAT_KV_F16 1

// Keys and values in Q8_0: about half of f16's memory.
#define CARAT_KV_Q8_0 2

// Keys and values in f32.
#define CARAT_KV_F32 3

// Text, reached by merging characters.
#define CARAT_PIECE_NORMAL 1

// What stands for text that has no piece.
#define CARAT_PIECE_UNKNOWN 2

// A mark without text, such as the end of a turn.
#define CARAT_PIECE_CONTROL 3

// Text that is taken whole wherever it stands.
#define CARAT_PIECE_USER_DEFINED 4

// A placeholder.
#define CARAT_PIECE_UNUSED 5

// One byte of a character that has no piece.
#define CARAT_PIECE_BYTE 6

// A turn of the system: says how to answer; at most one, the first.
#define CARAT_ROLE_SYSTEM 0

// A turn of the user.
#define CARAT_ROLE_USER 1

// A turn of the model.
#define CARAT_ROLE_MODEL 2

// A switch that stops the calls it was given to. It is sticky: once set it stays set.
//
// It is reference-counted: carat_cancel_clone() gives another handle to the same switch, and calls that were given it
// have a share of their own, so that it may be freed while they run.
typedef struct carat_cancel carat_cancel;

// A user and a model in turn, over one session, in Gemma's template. One call at a time: a second one gets CARAT_BUSY.
typedef struct carat_conversation carat_conversation;

// Turns ids into text as they come, whole characters at a time.
typedef struct carat_decoder carat_decoder;

// Why a call failed: its status and a message for a person.
typedef struct carat_error carat_error;

// The logits [vocab] that a session had at one moment. They never change, whatever becomes of the session.
typedef struct carat_logits carat_logits;

// An opened model: immutable. It may be used from many threads; passes of its sessions take turns.
typedef struct carat_model carat_model;

// One text being read and written by a model. One call at a time: a second one gets CARAT_BUSY.
typedef struct carat_session carat_session;

// What a call came to. 0 is success; a number is never used for anything else.
typedef int32_t carat_status;

// How a session is laid out. Made by carat_session_options_init().
typedef struct carat_session_options {
    // sizeof(carat_session_options), as the caller was compiled.
    uint32_t struct_size;
    // CARAT_KV_*: how keys and values are stored.
    int32_t kv;
    // Tokens that the session can hold; 0: the model's own context length, but at most 4096.
    uint64_t context;
    // Most tokens that are processed at once, 1 to 4096: more is faster on long prompts and takes more memory.
    uint32_t batch;
    // Copies of the sliding windows that a conversation keeps to go back to its last turns, 0 to 64.
    uint32_t snapshots;
    // 1: compute with f32 activations and weights: slow, and the truth that fast paths are tested against.
    int32_t exact;
    // 1: keep every position in the windowed layers too, so that a text can be cut anywhere.
    int32_t full_history;
    // Most tokens that generating guesses ahead where the text repeats itself, 0 to 15, and verifies in one pass: the
    // same text bit for bit, sooner where it quotes. Each takes a row of logits of memory.
    uint32_t draft;
    // Zero.
    uint32_t reserved;
} carat_session_options;

// A number added to the logit of a token.
typedef struct carat_logit_bias {
    // Its id.
    uint32_t token;
    // Added to its logit; −INFINITY forbids it.
    float bias;
} carat_logit_bias;

// A text and its bytes: UTF-8, not ended by a NUL.
typedef struct carat_text {
    // The first byte; may be NULL where `len` is 0.
    const char *ptr;
    // Bytes.
    size_t len;
} carat_text;

// Changes the logits `[n_logits]` of the next token before it is chosen, given the tokens so far. Both are valid
// during the call. Returns 1 to go on, 0 to stop: no further callback is made.
typedef int32_t (*carat_hook_fn)(void *user_data,
                                 const uint32_t *tokens,
                                 size_t n_tokens,
                                 float *logits,
                                 size_t n_logits);

// How to generate. Made by carat_generate_options_init(). Tokens are chosen in this order: logit bias, repetition,
// presence and frequency penalties, the hook, greedy where the temperature is 0, else temperature, top-k, top-p,
// min-p, draw.
typedef struct carat_generate_options {
    // sizeof(carat_generate_options), as the caller was compiled.
    uint32_t struct_size;
    // 1: go on after an end of turn or of the text, as benchmarks want it.
    int32_t ignore_end;
    // Most tokens to generate; UINT64_MAX, the default: as many as fit.
    uint64_t max_tokens;
    // Logits are divided by it; 0 chooses the likeliest token. 1 by default.
    float temperature;
    // Only the likeliest tokens that together have this probability are drawn from. 0.95 by default.
    float top_p;
    // Only tokens with at least this share of the likeliest one's probability are drawn from. 0 by default.
    float min_p;
    // The logit of a token that occurred is divided by it where it is positive, else multiplied. 1 by default.
    float repetition_penalty;
    // Subtracted from the logit of a token that occurred. 0 by default.
    float presence_penalty;
    // Subtracted from the logit of a token for each time it occurred. 0 by default.
    float frequency_penalty;
    // Only this many of the likeliest tokens are drawn from; 0 for all. 64 by default.
    uint32_t top_k;
    // How many of the last tokens, the prompt's included, the penalties look at. 64 by default.
    uint32_t penalty_window;
    // For each token, so many of the likeliest ones with their log-probabilities, at most 1024. 0 by default.
    uint32_t top_log_probs;
    // 1: `seed` is one. 0: go on with the session's own random numbers.
    int32_t has_seed;
    // Where the random numbers begin: the same seed gives the same text.
    uint64_t seed;
    // Added to logits; may be NULL where there are none. Borrowed during the call.
    const struct carat_logit_bias *logit_bias;
    // How many.
    size_t n_logit_bias;
    // Texts that end the generation; may be NULL where there are none. Borrowed during the call.
    const struct carat_text *stop;
    // How many.
    size_t n_stop;
    // Stops it from any thread; NULL for none.
    const struct carat_cancel *cancel;
    // Changes the logits; NULL for none. Not for conversations.
    carat_hook_fn hook;
    // Handed to `hook`.
    void *hook_data;
} carat_generate_options;

// A token and its log-probability.
typedef struct carat_token_log_prob {
    // Its id.
    uint32_t token;
    // Natural logarithm of its probability.
    float log_prob;
} carat_token_log_prob;

// What a token added to the text. The library fills it for a callback: `struct_size` says how much of it there is.
typedef struct carat_piece {
    // The size of this struct as the library was compiled.
    uint32_t struct_size;
    // 0 for text that was held back when the generation ended, else 1.
    int32_t has_token;
    // Whole characters, often none, UTF-8, not ended by a NUL. Valid during the call.
    const char *text;
    // Bytes of the text.
    size_t text_len;
    // The token, where there is one.
    uint32_t token;
    // Its log-probability by the model's own logits, where `top_log_probs` asked for any; else NaN.
    float log_prob;
    // The likeliest tokens in its place, likeliest first. Valid during the call.
    const struct carat_token_log_prob *top;
    // How many.
    size_t n_top;
} carat_piece;

// Takes a piece of the text. Returns 1 to go on, 0 to stop: the piece's token is part of the session then.
typedef int32_t (*carat_piece_fn)(void *user_data, const struct carat_piece *piece);

// What a generation did.
typedef struct carat_summary {
    // sizeof(carat_summary), as the caller was compiled.
    uint32_t struct_size;
    // CARAT_FINISH_*
    int32_t reason;
    // With CARAT_FINISH_STOP, the index of the stop string; else 0.
    uint64_t stop_index;
    // Tokens of the prompt that were processed.
    uint64_t prompt_tokens;
    // Tokens of the prompt that the session held already.
    uint64_t reused_tokens;
    // Tokens generated, an end of turn not counted.
    uint64_t generated_tokens;
    // From the call to the first logits, in nanoseconds.
    uint64_t prompt_ns;
    // From there to the end, in nanoseconds.
    uint64_t generate_ns;
    // Tokens that were guessed and verified ahead: see carat_session_options.
    uint64_t drafted_tokens;
    // Those of them that came true: so many passes were saved.
    uint64_t accepted_tokens;
} carat_summary;

// What one of the speakers says.
typedef struct carat_turn {
    // CARAT_ROLE_*
    int32_t role;
    // Zero.
    int32_t reserved;
    // What is said.
    struct carat_text text;
} carat_turn;

// The shape of a model and how it runs here.
typedef struct carat_model_info {
    // sizeof(carat_model_info), as the caller was compiled.
    uint32_t struct_size;
    // CARAT_ARCH_*
    int32_t arch;
    // CARAT_ISA_*: the kernels in use.
    int32_t isa;
    // Threads in use, the caller's included: fewer than asked where the system refused.
    int32_t threads;
    // Layers.
    uint32_t n_layers;
    // Width of the residual stream.
    uint32_t d_model;
    // Width of the feed-forward.
    uint32_t d_ff;
    // Query heads.
    uint32_t n_heads;
    // Key and value heads.
    uint32_t n_kv_heads;
    // Values in a head.
    uint32_t head_dim;
    // Rows of the embedding: the number of logits.
    uint32_t vocab;
    // Positions that a windowed layer sees; 0 where no layer is windowed.
    uint32_t sliding_window;
    // CARAT_MEMORY_*: whether the file is locked in memory.
    int32_t memory_lock;
    // Zero.
    int32_t reserved;
    // Positions that the model was trained for.
    uint64_t context_length;
    // Bytes of the file, all parts.
    uint64_t file_bytes;
    // Number of tensors.
    uint64_t n_tensors;
} carat_model_info;

// A tensor of a model's file.
typedef struct carat_tensor_info {
    // sizeof(carat_tensor_info), as the caller was compiled.
    uint32_t struct_size;
    // Dimensions in use.
    uint32_t n_dims;
    // Its name: UTF-8, not ended by a NUL, valid as long as the model.
    const char *name;
    // Bytes of the name.
    size_t name_len;
    // The name of its type, such as `Q4_K`: static, not ended by a NUL.
    const char *type_name;
    // Bytes of that name.
    size_t type_name_len;
    // Sizes, the innermost first; 1 beyond `n_dims`.
    uint64_t dims[4];
    // Its first byte, from the start of the file (of its part, where the model is split).
    uint64_t offset;
    // Its bytes.
    uint64_t size;
} carat_tensor_info;

// The machine's limits, measured: the yardstick for figures of speed.
typedef struct carat_limits {
    // sizeof(carat_limits), as the caller was compiled.
    uint32_t struct_size;
    // Zero.
    uint32_t reserved;
    // Bytes a second that can be read from memory in order: the limit of decoding.
    double read_bytes_per_s;
    // Multiply-adds of bytes a second: the limit of prefill over quantized weights.
    double dot_macs_per_s;
    // Multiply-adds of f32 a second: the limit of attention.
    double fma_macs_per_s;
} carat_limits;

// Told how far opening has come, in bytes; `done` never falls and ends as `total`. Returns 1 to go on, 0 to stop.
// Called on the thread that opens, before the call returns.
typedef int32_t (*carat_progress_fn)(void *user_data, uint64_t done, uint64_t total);

// Takes a log message: its level (CARAT_LOG_*) and text, which is UTF-8, not ended by a NUL, and valid during the call.
// Called from any thread that uses the model, perhaps from several at once. No message holds any part of a prompt.
typedef void (*carat_log_fn)(void *user_data, int32_t level, const char *text, size_t len);

// How to open a model. Made by carat_model_options_init().
typedef struct carat_model_options {
    // sizeof(carat_model_options), as the caller was compiled.
    uint32_t struct_size;
    // Threads to compute with, the caller's included, 1 to 256; 0: one for each core that the process may use.
    int32_t threads;
    // CARAT_ISA_*: the instruction set to use.
    int32_t isa;
    // 1: read the file into memory instead of mapping it, for a file that cannot be trusted not to shrink meanwhile.
    int32_t private_copy;
    // 1: read the whole file ahead before returning, so that the first tokens come at full speed.
    int32_t preload;
    // CARAT_ENGINE_*: what turns text into ids.
    int32_t tokenizer_engine;
    // 1: lock the file in memory, so that the system cannot take its pages back. Where the system refuses, the model
    // works without: see `memory_lock` of carat_model_info.
    int32_t lock;
    // Zero.
    int32_t reserved;
    // Stops opening, and making the tokenizer later; NULL for none. Borrowed during the call.
    const struct carat_cancel *cancel;
    // Told how far opening has come; NULL for none.
    carat_progress_fn progress;
    // Handed to `progress`.
    void *progress_data;
    // Takes log messages while the model lives; NULL, the default, for silence.
    carat_log_fn log;
    // Handed to `log`; must be usable from any thread as long as the model or a session of it lives.
    void *log_data;
} carat_model_options;

// Bytes of memory that a model and one session on it take: an upper bound, and a close one.
typedef struct carat_plan {
    // sizeof(carat_plan), as the caller was compiled.
    uint32_t struct_size;
    // 1 where the system told what is available.
    int32_t has_available;
    // The mapped file, whose pages are shared between processes.
    uint64_t file;
    // Keys and values of a full context.
    uint64_t kv_cache;
    // Buffers of a pass and of sampling.
    uint64_t scratch;
    // Copies of the sliding windows.
    uint64_t snapshots;
    // The tokenizer; 0 for a file without a vocabulary.
    uint64_t tokenizer;
    // The rest: the file's header as it was read, tokens and texts, stacks, whole pages.
    uint64_t other;
    // All of the above.
    uint64_t total;
    // What scoring and carat_session_prefill_each() take more while they run. Not part of the total.
    uint64_t score;
    // What could be had now without pushing others out, where the system told: of the machine's memory, and within
    // the limits of the process's control group. Where the total is more, the file is read again and again.
    uint64_t available;
} carat_plan;

// Gives back what was lent to carat_model_open_bytes(). Called once, from any thread.
typedef void (*carat_release_fn)(void *user_data);

// Takes the logits `[n_logits]` after token `index` of the given ones. Valid during the call. Returns 1 to go on,
// 0 to stop.
typedef int32_t (*carat_logits_fn)(void *user_data, size_t index, const float *logits, size_t n_logits);

// How likely a token of a given text is, after those before it.
typedef struct carat_token_score {
    // Its id.
    uint32_t token;
    // Natural logarithm of its probability.
    float log_prob;
    // How many tokens are likelier.
    uint32_t rank;
} carat_token_score;

// How to turn text into ids. Made by carat_tokenize_options_init().
typedef struct carat_tokenize_options {
    // sizeof(carat_tokenize_options), as the caller was compiled.
    uint32_t struct_size;
    // 1: control tokens written out in the text become their ids. 0: they are text, as in what a user typed.
    int32_t special;
    // 1: begin with the beginning-of-sequence token, unless the text does so itself (with `special`).
    int32_t bos;
    // Zero.
    int32_t reserved;
    // Stops the call; NULL for none.
    const struct carat_cancel *cancel;
} carat_tokenize_options;

// The ids of the special tokens.
typedef struct carat_special_tokens {
    // sizeof(carat_special_tokens), as the caller was compiled.
    uint32_t struct_size;
    // Number of pieces: ids go from 0 to one below.
    uint32_t vocab_size;
    // Beginning of the sequence.
    uint32_t bos;
    // End of the sequence.
    uint32_t eos;
    // The unknown token.
    uint32_t unk;
    // Begins a turn.
    uint32_t start_of_turn;
    // Ends a turn.
    uint32_t end_of_turn;
    // Padding; UINT32_MAX where there is none.
    uint32_t pad;
} carat_special_tokens;

// Done.
#define CARAT_OK 0

// An argument makes no sense here: NULL, a wrong struct_size, an unknown enum value, text that is not UTF-8.
#define CARAT_INVALID_ARGUMENT 1

// Another call on the same handle has not returned yet.
#define CARAT_BUSY 2

// The cancel token was set, or a callback returned 0.
#define CARAT_CANCELLED 3

// The buffer is too small: the size needed was reported.
#define CARAT_BUFFER_TOO_SMALL 4

// The operating system refused: no such file, no permission, a full disk.
#define CARAT_IO 5

// The bytes of a GGUF file break the format's rules.
#define CARAT_FORMAT 6

// A metadata value of the file is missing or makes no sense.
#define CARAT_METADATA 7

// A tensor is missing, misplaced or of the wrong shape or type.
#define CARAT_TENSOR 8

// The file is sound, but not something this library runs.
#define CARAT_UNSUPPORTED 9

// A part of a split model is not there.
#define CARAT_SPLIT_MISSING 10

// The vocabulary cannot be used.
#define CARAT_VOCABULARY 11

// A token id that the vocabulary does not have.
#define CARAT_TOKEN_OUT_OF_RANGE 12

// A prompt with no token.
#define CARAT_EMPTY_PROMPT 13

// A prompt that does not fit into the context.
#define CARAT_PROMPT_TOO_LONG 14

// The session cannot take another token.
#define CARAT_CONTEXT_FULL 15

// Going back further than the sliding windows remember: see carat_error_nearest().
#define CARAT_REWIND 16

// An option outside its range.
#define CARAT_INVALID_OPTION 17

// The model or a hook produced a logit that is not a number.
#define CARAT_NAN_LOGITS 18

// The mapped file is no longer what it was.
#define CARAT_FILE_CHANGED 19

// A saved session that cannot be loaded.
#define CARAT_STATE 20

// Memory that could not be had.
#define CARAT_OUT_OF_MEMORY 21

// Turns in an order that the template does not know.
#define CARAT_CHAT 22

// The process was forked after the model was opened.
#define CARAT_FORKED 23

// A bug: the handle can only be freed, others go on.
#define CARAT_INTERNAL 24

// The session has no logits now: only a prefill or a step computes them.
#define CARAT_NO_LOGITS 25





#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// A switch that is not set. NULL only when there is no memory.
//
// Ownership: the result is the caller's, ended by carat_cancel_free().
// Threads: any.
struct carat_cancel *carat_cancel_new(void);

// Another handle to the same switch; of NULL, NULL.
//
// Ownership: the result is the caller's, ended by carat_cancel_free().
// Threads: any.
struct carat_cancel *carat_cancel_clone(const struct carat_cancel *cancel);

// Sets it, for good: one store to memory. NULL is nothing to do.
//
// Threads: any, also from a signal handler, and while calls that were given it run or end.
void carat_cancel_set(const struct carat_cancel *cancel);

// 1 once it was set, else 0; of NULL 0.
//
// Threads: any.
int32_t carat_cancel_is_set(const struct carat_cancel *cancel);

// Frees a handle; NULL is nothing to do. The switch lives on in its other handles and in the calls that have it.
//
// Ownership: ends that of `cancel`.
// Threads: any, once.
void carat_cancel_free(struct carat_cancel *cancel);

// An empty conversation over a session, with a system text (NULL for none) that says how to answer.
//
// Ownership: the contents of `session` go to the conversation, also where this fails: the handle is then good for
// carat_session_free() alone, which is still the caller's to call. `*out` is the caller's, ended by
// carat_conversation_free().
// Threads: any.
// Errors: CARAT_BUSY (the session keeps its contents); CARAT_OUT_OF_MEMORY; CARAT_VOCABULARY.
carat_status carat_conversation_new(struct carat_session *session,
                                    const char *system,
                                    size_t system_len,
                                    struct carat_conversation **out,
                                    struct carat_error **error);

// Goes on with the conversation whose tokens a session holds, such as one that was saved without its texts. A system text is
// part of the first question then. A last question without an answer is left out.
//
// Ownership: as carat_conversation_new().
// Threads: any.
// Errors: CARAT_CHAT where the tokens are not a conversation; as carat_conversation_new().
carat_status carat_conversation_resume(struct carat_session *session,
                                       struct carat_conversation **out,
                                       struct carat_error **error);

// Opens a conversation that carat_conversation_save() wrote, with options of its own: its turns and the system's text
// are the same. What to do when the context is full is not part of it. A saved session is opened as by
// carat_conversation_resume(). `options` and `cancel` may be NULL.
//
// Ownership: `*out` is the caller's, ended by carat_conversation_free(). It keeps the model alive.
// Threads: any.
// Errors: as carat_session_load() and carat_conversation_resume().
carat_status carat_conversation_load(const struct carat_model *model,
                                     const char *path,
                                     size_t path_len,
                                     const struct carat_session_options *options,
                                     const struct carat_cancel *cancel,
                                     struct carat_conversation **out,
                                     struct carat_error **error);

// Takes the session out of a conversation.
//
// Ownership: `*out` is the caller's, ended by carat_session_free(). The conversation's handle is then good for
// carat_conversation_free() alone.
// Threads: any, one call at a time.
// Errors: CARAT_BUSY.
carat_status carat_conversation_into_session(struct carat_conversation *conversation,
                                             struct carat_session **out,
                                             struct carat_error **error);

// Frees a conversation and its session; NULL is nothing to do.
//
// Ownership: ends that of `conversation`.
// Threads: any, once; during a call on it (from another thread, or from its own callback) deferred to the call's end.
void carat_conversation_free(struct carat_conversation *conversation);

// Says something to the model and generates its answer. `on_piece` is called for every token, on this thread, before
// the call returns; it may be NULL. Once the model is at work, cancelling is not an error. `options` and `summary` may
// be NULL.
//
// Ownership: all is borrowed. `summary` is the caller's struct, made by carat_summary_init().
// Threads: any, one call at a time; the callback gets CARAT_BUSY from this conversation.
// Errors: CARAT_CANCELLED while the text is still being encoded; CARAT_PROMPT_TOO_LONG; those of
// carat_session_generate(). The conversation is then as it was.
carat_status carat_conversation_send(struct carat_conversation *conversation,
                                     const char *text,
                                     size_t text_len,
                                     const struct carat_generate_options *options,
                                     carat_piece_fn on_piece,
                                     void *user_data,
                                     struct carat_summary *summary,
                                     struct carat_error **error);

// Drops the last answer and generates another. Else as carat_conversation_send().
//
// Ownership: as carat_conversation_send().
// Threads: any, one call at a time.
// Errors: CARAT_CHAT where there is no answer; as carat_conversation_send().
carat_status carat_conversation_regenerate(struct carat_conversation *conversation,
                                           const struct carat_generate_options *options,
                                           carat_piece_fn on_piece,
                                           void *user_data,
                                           struct carat_summary *summary,
                                           struct carat_error **error);

// Drops the last answer and question, and says something else. Else as carat_conversation_send().
//
// Ownership: as carat_conversation_send().
// Threads: any, one call at a time.
// Errors: as carat_conversation_regenerate().
carat_status carat_conversation_edit_last(struct carat_conversation *conversation,
                                          const char *text,
                                          size_t text_len,
                                          const struct carat_generate_options *options,
                                          carat_piece_fn on_piece,
                                          void *user_data,
                                          struct carat_summary *summary,
                                          struct carat_error **error);

// Takes a whole conversation, as a service does that is told all of it each time, and answers its last turn; what it
// has in common with the turns held is not processed again. Else as carat_conversation_send().
//
// Ownership: as carat_conversation_send().
// Threads: any, one call at a time.
// Errors: CARAT_CHAT where the turns are not at most one of the system, then user and model in turn, the last the
// user's; as carat_conversation_send().
carat_status carat_conversation_respond(struct carat_conversation *conversation,
                                        const struct carat_turn *turns,
                                        size_t n_turns,
                                        const struct carat_generate_options *options,
                                        carat_piece_fn on_piece,
                                        void *user_data,
                                        struct carat_summary *summary,
                                        struct carat_error **error);

// What to do when the context is full: CARAT_POLICY_*. CARAT_POLICY_STOP unless set.
//
// Threads: any, one call at a time.
// Errors: CARAT_BUSY.
carat_status carat_conversation_set_policy(struct carat_conversation *conversation,
                                           int32_t policy,
                                           struct carat_error **error);

// The number of turns so far, without the system's, to `*n`.
//
// Threads: any, one call at a time.
// Errors: CARAT_BUSY.
carat_status carat_conversation_n_turns(const struct carat_conversation *conversation,
                                        size_t *n,
                                        struct carat_error **error);

// A turn, by its index: its role (CARAT_ROLE_*) to `*role`, which may be NULL, and its text to `text` as in
// carat_detokenize().
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_INVALID_ARGUMENT for an index beyond; CARAT_BUFFER_TOO_SMALL, with `*len` written; CARAT_BUSY.
carat_status carat_conversation_turn(const struct carat_conversation *conversation,
                                     size_t index,
                                     int32_t *role,
                                     char *text,
                                     size_t capacity,
                                     size_t *len,
                                     struct carat_error **error);

// A turn that the last reply dropped to make room, by its index from the oldest, as carat_conversation_turn().
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: as carat_conversation_turn(): CARAT_INVALID_ARGUMENT tells the end.
carat_status carat_conversation_dropped(const struct carat_conversation *conversation,
                                        size_t index,
                                        int32_t *role,
                                        char *text,
                                        size_t capacity,
                                        size_t *len,
                                        struct carat_error **error);

// The tokens of the conversation, to `ids`, which has room for `capacity`, and their number to `*n`, which may be NULL.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_BUFFER_TOO_SMALL, with `*n` written; CARAT_BUSY.
carat_status carat_conversation_tokens(const struct carat_conversation *conversation,
                                       uint32_t *ids,
                                       size_t capacity,
                                       size_t *n,
                                       struct carat_error **error);

// The system's text, as in carat_detokenize(); an empty one where there is none.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_BUFFER_TOO_SMALL, with `*len` written; CARAT_BUSY.
carat_status carat_conversation_system(const struct carat_conversation *conversation,
                                       char *text,
                                       size_t capacity,
                                       size_t *len,
                                       struct carat_error **error);

// Changes the system's text (NULL for none). As it is part of the first turn, everything is processed again when the
// conversation goes on.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_OUT_OF_MEMORY; CARAT_BUSY.
carat_status carat_conversation_set_system(struct carat_conversation *conversation,
                                           const char *text,
                                           size_t text_len,
                                           struct carat_error **error);

// Forgets all turns, and keeps the system's text.
//
// Threads: any, one call at a time.
// Errors: CARAT_BUSY.
carat_status carat_conversation_reset(struct carat_conversation *conversation, struct carat_error **error);

// Saves the conversation to a file, its turns, the system's text and its session: see carat_session_save().
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: as carat_session_save().
carat_status carat_conversation_save(const struct carat_conversation *conversation,
                                     const char *path,
                                     size_t path_len,
                                     const struct carat_cancel *cancel,
                                     struct carat_error **error);

// Gives back memory that can be had again, as carat_session_trim() does. Snapshots stay.
//
// Threads: any, one call at a time.
// Errors: CARAT_BUSY.
carat_status carat_conversation_trim(struct carat_conversation *conversation, struct carat_error **error);

// The status that the call returned too. Of NULL: CARAT_OK.
//
// Threads: any.
carat_status carat_error_status(const struct carat_error *error);

// The class of the error: one of CARAT_KIND_*. Of NULL: CARAT_KIND_USAGE.
//
// Threads: any.
int32_t carat_error_kind(const struct carat_error *error);

// What was wrong, where, what was expected and what was found: UTF-8, ended by a NUL. Of NULL: an empty text.
//
// Ownership: the text is the error's and lives as long.
// Threads: any.
const char *carat_error_message(const struct carat_error *error);

// Of a CARAT_REWIND: the lowest number of tokens above 0 that the session can be cut to; else 0.
//
// Threads: any.
uint64_t carat_error_nearest(const struct carat_error *error);

// Frees an error; NULL is nothing to do.
//
// Ownership: ends that of `error`.
// Threads: any, once.
void carat_error_free(struct carat_error *error);

// The name of a status, such as `CARAT_IO`, ended by a NUL; `CARAT_?` for a number that is none.
//
// Ownership: the text is static.
// Threads: any.
const char *carat_status_name(carat_status status);

// As carat_model_options_init().
//
// Threads: any.
void carat_generate_options_init(struct carat_generate_options *options, size_t struct_size);

// As carat_model_options_init().
//
// Threads: any.
void carat_summary_init(struct carat_summary *summary, size_t struct_size);

// Adds a prompt and generates what follows it. `on_piece` is called for every token, on this thread, before the call
// returns; it may be NULL. `options` may be NULL for the defaults, `summary` where nobody wants to know.
//
// An empty prompt goes on from where the session is, which needs logits: see carat_session_logits(). After a generation
// that ended by its limit, a stop string or a callback it goes on behind the last token that was handed out; after an
// end of turn, which is not part of the session, it chooses in its place again. After CARAT_FINISH_CANCELLED the session
// may lack the last token that was handed out and have no logits: give that token as the prompt.
//
// Cancelling is not an error here: the summary says so. After the first token nothing is allocated.
//
// Ownership: all is borrowed. `summary` is the caller's struct, made by carat_summary_init().
// Threads: any, one call at a time; the callbacks get CARAT_BUSY from this session.
// Errors: those of carat_session_prefill(); CARAT_EMPTY_PROMPT where there is nothing to go on from;
// CARAT_INVALID_OPTION; CARAT_NAN_LOGITS.
carat_status carat_session_generate(struct carat_session *session,
                                    const uint32_t *prompt,
                                    size_t n_prompt,
                                    const struct carat_generate_options *options,
                                    carat_piece_fn on_piece,
                                    void *user_data,
                                    struct carat_summary *summary,
                                    struct carat_error **error);

// As carat_model_options_init().
//
// Threads: any.
void carat_model_info_init(struct carat_model_info *info, size_t struct_size);

// As carat_model_options_init().
//
// Threads: any.
void carat_tensor_info_init(struct carat_tensor_info *info, size_t struct_size);

// As carat_model_options_init().
//
// Threads: any.
void carat_limits_init(struct carat_limits *limits, size_t struct_size);

// The shape of a model and how it runs here.
//
// Ownership: all is borrowed. `info` is the caller's struct, made by carat_model_info_init().
// Threads: any.
// Errors: CARAT_INVALID_ARGUMENT.
carat_status carat_model_get_info(const struct carat_model *model,
                                  struct carat_model_info *info,
                                  struct carat_error **error);

// A metadata value of the model's file as text: a number in decimal, a bool as true or false, a string as it is.
//
// Writes the text and, where there is room, a NUL to `text` (of `capacity` bytes), and its bytes without the NUL to
// `*len`, which may be NULL.
//
// Ownership: all is borrowed.
// Threads: any.
// Errors: CARAT_METADATA where there is no such key; CARAT_UNSUPPORTED for an array; CARAT_BUFFER_TOO_SMALL, with
// `*len` written.
carat_status carat_model_metadata(const struct carat_model *model,
                                  const char *key,
                                  size_t key_len,
                                  char *text,
                                  size_t capacity,
                                  size_t *len,
                                  struct carat_error **error);

// The tensor of an index below the `n_tensors` of carat_model_info.
//
// Ownership: the texts in `*info` are the model's and static ones. `info` is the caller's struct, made by
// carat_tensor_info_init().
// Threads: any.
// Errors: CARAT_INVALID_ARGUMENT for an index beyond.
carat_status carat_model_tensor(const struct carat_model *model,
                                uint64_t index,
                                struct carat_tensor_info *info,
                                struct carat_error **error);

// The name of an instruction set (CARAT_ISA_*), such as `avx2`, ended by a NUL; `?` for a number that is none.
//
// Ownership: the text is static.
// Threads: any.
const char *carat_isa_name(int32_t isa);

// 1 where this processor has an instruction set (CARAT_ISA_*), else 0.
//
// Threads: any.
int32_t carat_isa_available(int32_t isa);

// Measures the machine's limits with a number of threads and an instruction set, in about a second and 256 MiB of
// memory.
//
// Ownership: `limits` is the caller's struct, made by carat_limits_init().
// Threads: any.
// Errors: CARAT_INVALID_OPTION for an instruction set that the processor lacks or a number of threads that cannot be;
// CARAT_OUT_OF_MEMORY.
carat_status carat_limits_measure(int32_t threads,
                                  int32_t isa,
                                  struct carat_limits *limits,
                                  struct carat_error **error);

// The version of the library, such as `0.1.0`, ended by a NUL.
//
// Ownership: the text is static.
// Threads: any.
const char *carat_version(void);

// The CARAT_ABI_VERSION of the library. A program works with any library whose number is not below its header's.
//
// Threads: any.
uint32_t carat_abi_version(void);

// The logits `[n]`, and `n` to `*n`, which may be NULL. Of NULL: NULL.
//
// Ownership: the array is that of `logits` and lives as long.
// Threads: any.
const float *carat_logits_data(const struct carat_logits *logits, size_t *n);

// Frees logits; NULL is nothing to do.
//
// Ownership: ends that of `logits` and its array.
// Threads: any, once.
void carat_logits_free(struct carat_logits *logits);

// Fills `options` with the defaults, as much of it as `struct_size` (sizeof *options) says. NULL is nothing to do.
//
// Threads: any.
void carat_model_options_init(struct carat_model_options *options,
                              size_t struct_size);

// As carat_model_options_init().
//
// Threads: any.
void carat_session_options_init(struct carat_session_options *options, size_t struct_size);

// As carat_model_options_init().
//
// Threads: any.
void carat_plan_init(struct carat_plan *plan, size_t struct_size);

// Opens a GGUF file; of a model that was split into several, give the first. `path` (of `path_len` bytes) is UTF-8,
// on Unix any bytes. `options` may be NULL for the defaults.
//
// Ownership: `*out` is the caller's, ended by carat_model_free(); all else is borrowed during the call.
// Threads: any; the call computes on its own thread.
// Errors: whatever is wrong with the file, by name and place; CARAT_INVALID_OPTION; CARAT_CANCELLED.
carat_status carat_model_open(const char *path,
                              size_t path_len,
                              const struct carat_model_options *options,
                              struct carat_model **out,
                              struct carat_error **error);

// Opens the `len` bytes from byte `offset` of an open file, such as an Android asset: the offset need not be a
// multiple of the page size. UINT64_MAX for `len` takes all that follow.
//
// Ownership: the descriptor stays the caller's, who may close it when this returns: it is duplicated. Else as
// carat_model_open().
// Threads: any.
// Errors: as carat_model_open(), CARAT_INVALID_OPTION for a range that is not within the file, and CARAT_UNSUPPORTED
// on systems without descriptors.
carat_status carat_model_open_fd(int32_t fd,
                                 uint64_t offset,
                                 uint64_t len,
                                 const struct carat_model_options *options,
                                 struct carat_model **out,
                                 struct carat_error **error);

// Opens a GGUF file that lies in memory, without copying it.
//
// Ownership: the bytes are lent until `release(release_data)` is called, once: when the model and its sessions are
// freed, or before this returns where it fails. With a NULL `release` they must outlive the model and its sessions.
// Else as carat_model_open().
// Threads: any; `release` may come from another thread.
// Errors: as carat_model_open().
carat_status carat_model_open_bytes(const uint8_t *bytes,
                                    size_t len,
                                    carat_release_fn release,
                                    void *release_data,
                                    const struct carat_model_options *options,
                                    struct carat_model **out,
                                    struct carat_error **error);

// Gives up a model; NULL is nothing to do. Its memory goes when its sessions, conversations and running calls have
// ended too, in any order.
//
// Ownership: ends that of `model`.
// Threads: any, once.
void carat_model_free(struct carat_model *model);

// The memory that a model file and one session on it will take, without loading anything. `threads` as in
// carat_model_options, but at least 1; `options` may be NULL.
//
// Ownership: all is borrowed. `plan` is the caller's struct, made by carat_plan_init().
// Threads: any.
// Errors: as carat_model_open().
carat_status carat_model_plan(const char *path,
                              size_t path_len,
                              int32_t threads,
                              const struct carat_session_options *options,
                              struct carat_plan *plan,
                              struct carat_error **error);

// As carat_model_plan(), of an opened model and its own number of threads.
//
// Ownership: all is borrowed. `plan` is the caller's struct, made by carat_plan_init().
// Threads: any.
// Errors: CARAT_INVALID_OPTION.
carat_status carat_model_plan_session(const struct carat_model *model,
                                      const struct carat_session_options *options,
                                      struct carat_plan *plan,
                                      struct carat_error **error);

// An empty session. All memory that it needs for its tokens is taken here: see carat_model_plan(). `options` may be
// NULL.
//
// Ownership: `*out` is the caller's, ended by carat_session_free(). It keeps the model alive.
// Threads: any.
// Errors: CARAT_INVALID_OPTION, CARAT_OUT_OF_MEMORY.
carat_status carat_session_new(const struct carat_model *model,
                               const struct carat_session_options *options,
                               struct carat_session **out,
                               struct carat_error **error);

// Frees a session; NULL is nothing to do.
//
// Ownership: ends that of `session`.
// Threads: any, once; during a call on it (from another thread, or from its own callback) deferred to the call's end.
void carat_session_free(struct carat_session *session);

// A copy that goes its own way from here.
//
// Ownership: `*out` is the caller's, ended by carat_session_free().
// Threads: any, one call at a time.
// Errors: CARAT_OUT_OF_MEMORY, CARAT_BUSY.
carat_status carat_session_fork(const struct carat_session *session,
                                struct carat_session **out,
                                struct carat_error **error);

// Adds the tokens of a prompt, in batches, and computes the logits after the last. However they are split into calls,
// the same tokens give the same logits. `cancel` may be NULL; once it is set the session is left at its last completed
// batch.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: before anything is done, CARAT_EMPTY_PROMPT, CARAT_TOKEN_OUT_OF_RANGE, CARAT_PROMPT_TOO_LONG; CARAT_BUSY;
// CARAT_CANCELLED; CARAT_FILE_CHANGED; CARAT_FORKED; CARAT_OUT_OF_MEMORY after carat_session_trim().
carat_status carat_session_prefill(struct carat_session *session,
                                   const uint32_t *ids,
                                   size_t n_ids,
                                   const struct carat_cancel *cancel,
                                   struct carat_error **error);

// As carat_session_prefill(), and hands the logits after each of the tokens to `each`, on this thread. Where that
// returns 0, the rest of the batch is part of the session and the rest of the tokens is not. The session itself has no
// logits then, whatever `each` returned: carat_session_logits() gets CARAT_NO_LOGITS until a prefill or a step.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: as carat_session_prefill(); CARAT_CANCELLED where `each` returned 0.
carat_status carat_session_prefill_each(struct carat_session *session,
                                        const uint32_t *ids,
                                        size_t n_ids,
                                        const struct carat_cancel *cancel,
                                        carat_logits_fn each,
                                        void *user_data,
                                        struct carat_error **error);

// Adds one token and computes the logits of the next. Nothing is allocated. `cancel` may be NULL; once it is set the
// token is not added.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_CONTEXT_FULL, CARAT_TOKEN_OUT_OF_RANGE, CARAT_BUSY, CARAT_CANCELLED, CARAT_FILE_CHANGED, CARAT_FORKED.
carat_status carat_session_step(struct carat_session *session,
                                uint32_t token,
                                const struct carat_cancel *cancel,
                                struct carat_error **error);

// The logits of the token that comes next, as a prefill, a step or generating left them, without copying: a session
// that goes on while they are kept computes into other memory.
//
// Ownership: `*out` is the caller's, ended by carat_logits_free(), whatever becomes of the session.
// Threads: any, one call at a time.
// Errors: CARAT_NO_LOGITS where the last pass left none: in a new session, after carat_session_prefill_each(), a score, a
// cut, and a pass that was cancelled; CARAT_BUSY.
carat_status carat_session_logits(const struct carat_session *session,
                                  struct carat_logits **out,
                                  struct carat_error **error);

// Adds the tokens of a text, and tells for those from index `from` on how likely they were after those before them.
// The very first token of a session has nothing before it and no score. Writes the scores to `scores`, which has room
// for `capacity`, and their number to `*n`, which may be NULL.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: as carat_session_prefill(); CARAT_INVALID_OPTION for a `from` beyond the text; CARAT_NAN_LOGITS;
// CARAT_BUFFER_TOO_SMALL for a `capacity` below `n_ids` − `from`, before anything is done, with `*n` written.
carat_status carat_session_score(struct carat_session *session,
                                 const uint32_t *ids,
                                 size_t n_ids,
                                 size_t from,
                                 const struct carat_cancel *cancel,
                                 struct carat_token_score *scores,
                                 size_t capacity,
                                 size_t *n,
                                 struct carat_error **error);

// Cuts the text to its first `len` tokens.
//
// Threads: any, one call at a time.
// Errors: CARAT_REWIND when the sliding windows no longer hold what comes before `len`: the session is as it was, and
// carat_error_nearest() says how far back it can go; CARAT_INVALID_OPTION when there are fewer tokens; CARAT_BUSY.
carat_status carat_session_truncate(struct carat_session *session,
                                    size_t len,
                                    struct carat_error **error);

// Saves the session to a file: loaded again it goes on with the same bits. A file that is there is replaced only when
// the new one is complete and on the disk. `cancel` may be NULL.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_IO, a full disk among them: the old file stays; CARAT_CANCELLED; CARAT_BUSY; CARAT_FILE_CHANGED.
carat_status carat_session_save(const struct carat_session *session,
                                const char *path,
                                size_t path_len,
                                const struct carat_cancel *cancel,
                                struct carat_error **error);

// Opens a session that carat_session_save() wrote, with options of its own; another `kv` than the saved session's is
// an error. `options` and `cancel` may be NULL.
//
// Ownership: `*out` is the caller's, ended by carat_session_free(). It keeps the model alive.
// Threads: any.
// Errors: CARAT_STATE for a file of another model or kv, one that is damaged, or a text that does not fit; CARAT_IO;
// CARAT_CANCELLED; as carat_session_new().
carat_status carat_session_load(const struct carat_model *model,
                                const char *path,
                                size_t path_len,
                                const struct carat_session_options *options,
                                const struct carat_cancel *cancel,
                                struct carat_session **out,
                                struct carat_error **error);

// The number of tokens so far to `*len`, and of those that the session can hold to `*context`; either may be NULL.
//
// Threads: any, one call at a time.
// Errors: CARAT_BUSY.
carat_status carat_session_len(const struct carat_session *session,
                               size_t *len,
                               size_t *context,
                               struct carat_error **error);

// The tokens so far, to `ids`, which has room for `capacity`, and their number to `*n`, which may be NULL.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_BUFFER_TOO_SMALL, with `*n` written; CARAT_BUSY.
carat_status carat_session_tokens(const struct carat_session *session,
                                  uint32_t *ids,
                                  size_t capacity,
                                  size_t *n,
                                  struct carat_error **error);

// Gives back memory that can be had again, for when the system says that memory is short. The text stays as it is, and
// so do the logits. Steps go on without an allocation; the next prompt of more than 16 tokens takes the memory again.
//
// Threads: any, one call at a time.
// Errors: CARAT_BUSY.
carat_status carat_session_trim(struct carat_session *session,
                                struct carat_error **error);

// As carat_model_options_init().
//
// Threads: any.
void carat_tokenize_options_init(struct carat_tokenize_options *options, size_t struct_size);

// As carat_model_options_init().
//
// Threads: any.
void carat_special_tokens_init(struct carat_special_tokens *tokens, size_t struct_size);

// The ids of a text (of `text_len` bytes; each byte that is not UTF-8 counts as U+FFFD). Writes them to `ids`, which
// has room for `capacity`, and their number to `*n`, which may be NULL. A text never has more ids than bytes, plus 1
// for a `bos`. `options` may be NULL.
//
// Ownership: all is borrowed.
// Threads: any.
// Errors: CARAT_BUFFER_TOO_SMALL, with `*n` written; CARAT_VOCABULARY for a vocabulary that is not sound, found at
// the first use; CARAT_CANCELLED; CARAT_OUT_OF_MEMORY.
carat_status carat_tokenize(const struct carat_model *model,
                            const char *text,
                            size_t text_len,
                            const struct carat_tokenize_options *options,
                            uint32_t *ids,
                            size_t capacity,
                            size_t *n,
                            struct carat_error **error);

// The text of `n_ids` ids: control tokens have none, bytes that are not UTF-8 become U+FFFD. Writes it and, where
// there is room, a NUL to `text` (of `capacity` bytes), and its bytes without the NUL to `*len`, which may be NULL.
//
// Ownership: all is borrowed.
// Threads: any.
// Errors: CARAT_BUFFER_TOO_SMALL, with `*len` written; CARAT_TOKEN_OUT_OF_RANGE; as carat_tokenize().
carat_status carat_detokenize(const struct carat_model *model,
                              const uint32_t *ids,
                              size_t n_ids,
                              char *text,
                              size_t capacity,
                              size_t *len,
                              struct carat_error **error);

// The bytes that a piece stands for, with spaces as spaces; of a control token, its name. They need not be UTF-8:
// pieces for bytes are one byte. Writes them to `bytes`, which has room for `capacity`, and their number to `*len`,
// which may be NULL.
//
// Ownership: all is borrowed.
// Threads: any.
// Errors: CARAT_TOKEN_OUT_OF_RANGE; CARAT_BUFFER_TOO_SMALL, with `*len` written; as carat_tokenize().
carat_status carat_token_bytes(const struct carat_model *model,
                               uint32_t id,
                               uint8_t *bytes,
                               size_t capacity,
                               size_t *len,
                               struct carat_error **error);

// The kind of a piece (CARAT_PIECE_*), to `*kind`.
//
// Ownership: all is borrowed.
// Threads: any.
// Errors: CARAT_TOKEN_OUT_OF_RANGE; as carat_tokenize().
carat_status carat_token_kind(const struct carat_model *model,
                              uint32_t id,
                              int32_t *kind,
                              struct carat_error **error);

// The id of the piece that reads exactly `text` (of `text_len` bytes), control tokens included, to `*id`;
// UINT32_MAX where there is none.
//
// Ownership: all is borrowed.
// Threads: any.
// Errors: as carat_tokenize().
carat_status carat_token_id(const struct carat_model *model,
                            const char *text,
                            size_t text_len,
                            uint32_t *id,
                            struct carat_error **error);

// The ids of the special tokens.
//
// Ownership: `tokens` is the caller's struct, made by carat_special_tokens_init().
// Threads: any.
// Errors: as carat_tokenize().
carat_status carat_model_special_tokens(const struct carat_model *model,
                                        struct carat_special_tokens *tokens,
                                        struct carat_error **error);

// The ids of a whole conversation in Gemma's turns, from the beginning-of-sequence token to the open turn of the
// model that is to answer. Control tokens written out in a text are text. Writes them to `ids`, which has room for
// `capacity`, and their number to `*n`, which may be NULL. `cancel` may be NULL.
//
// Ownership: all is borrowed.
// Threads: any.
// Errors: CARAT_CHAT where the turns are not at most one of the system, then user and model in turn, the last the
// user's; CARAT_BUFFER_TOO_SMALL, with `*n` written; as carat_tokenize().
carat_status carat_chat_render(const struct carat_model *model,
                               const struct carat_turn *turns,
                               size_t n_turns,
                               const struct carat_cancel *cancel,
                               uint32_t *ids,
                               size_t capacity,
                               size_t *n,
                               struct carat_error **error);

// A decoder at the beginning of a text.
//
// Ownership: `*out` is the caller's, ended by carat_decoder_free(). It keeps what it needs of the model.
// Threads: any.
// Errors: as carat_tokenize().
carat_status carat_decoder_new(const struct carat_model *model,
                               struct carat_decoder **out,
                               struct carat_error **error);

// Takes the next id; the text that is now certain, which may be empty, goes to `text` as in carat_detokenize(). It has
// at most 2048 bytes. The id is taken only where the call succeeds.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_TOKEN_OUT_OF_RANGE; CARAT_BUFFER_TOO_SMALL, for a `capacity` below 2048 whatever the text, so that it
// shows at once; CARAT_BUSY.
carat_status carat_decoder_push(struct carat_decoder *decoder,
                                uint32_t id,
                                char *text,
                                size_t capacity,
                                size_t *len,
                                struct carat_error **error);

// The end of the text: what was held back becomes U+FFFD and goes to `text`, as in carat_decoder_push(). The decoder is
// then at the beginning of a text again.
//
// Ownership: all is borrowed.
// Threads: any, one call at a time.
// Errors: CARAT_BUFFER_TOO_SMALL; CARAT_BUSY.
carat_status carat_decoder_flush(struct carat_decoder *decoder,
                                 char *text,
                                 size_t capacity,
                                 size_t *len,
                                 struct carat_error **error);

// Frees a decoder; NULL is nothing to do.
//
// Ownership: ends that of `decoder`.
// Threads: any, once; during a call on it, deferred to the call's end.
void carat_decoder_free(struct carat_decoder *decoder);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CARAT_H */
