/* The suite of tests/conformance over carat.h; its README.md says what each kind of case means.
 * usage: conformance FOLDER_OF_TESTS/DATA */
#define _GNU_SOURCE
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "carat.h"

#define MOST 1024 /* ids or bytes of any list of the suite, and of what it gives */

static const char *data_dir, *real_path;
static char scratch[] = "/tmp/carat-conformance-XXXXXX";
static char why[2048];
static carat_error *error; /* of the last call that failed */

static int fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    return 0;
}

/* Leaves the case, and what it holds, where something is not as it should be. */
#define REQUIRE(condition, ...)                  \
    do {                                         \
        if (!(condition)) return fail(__VA_ARGS__); \
    } while (0)
#define OK(call)                                                                             \
    do {                                                                                     \
        carat_status status_ = (call);                                                       \
        REQUIRE(status_ == CARAT_OK, "%s: %s", carat_status_name(status_), carat_error_message(error)); \
    } while (0)

/* ---- JSON ---- */

static json_t *get(const json_t *object, const char *key) { return json_object_get(object, key); }
static const char *text_of(const json_t *object, const char *key) { return json_string_value(get(object, key)); }
static size_t size_of(const json_t *object, const char *key) { return (size_t)json_integer_value(get(object, key)); }
static int is(const json_t *string, const char *text) {
    return json_is_string(string) && strcmp(json_string_value(string), text) == 0;
}
static int same_text(const json_t *expected, const char *found, size_t len) {
    return json_string_length(expected) == len && memcmp(json_string_value(expected), found, len) == 0;
}

static size_t ids_of(const json_t *list, uint32_t *ids) {
    size_t n = json_array_size(list);
    if (n > MOST) abort();
    for (size_t i = 0; i < n; i++) ids[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static int same_ids(const json_t *expected, const uint32_t *found, size_t n, const char *what) {
    uint32_t ids[MOST];
    REQUIRE(ids_of(expected, ids) == n, "%s: expected %zu ids, found %zu", what, json_array_size(expected), n);
    for (size_t i = 0; i < n; i++)
        REQUIRE(ids[i] == found[i], "%s: id %zu: expected %u, found %u", what, i, ids[i], found[i]);
    return 1;
}

static int close_to(double found, const json_t *expected, double tolerance, const char *what) {
    double e = json_number_value(expected);
    REQUIRE(fabs(found - e) <= tolerance, "%s: expected %g, found %g", what, e, found);
    return 1;
}

/* The number that one of the names, which end with NULL, has. */
static int named(const char *name, const char *const *names, int first) {
    for (int i = 0; names[i]; i++)
        if (name && strcmp(name, names[i]) == 0) return first + i;
    return -1;
}

static const char *const roles[] = {"system", "user", "model", NULL};
static const char *const reasons[] = {"end_of_turn", "limit", "stop", "callback", "cancelled", "context_full", NULL};
static const char *const kinds[] = {"usage", "file", "cancelled", "runtime", NULL};
static const char *const pieces[] = {"normal", "unknown", "control", "user_defined", "unused", "byte", NULL};
static const char *const archs[] = {"gemma", "gemma2", "gemma3", NULL};

static size_t turns_of(const json_t *list, carat_turn *turns) {
    size_t n = json_array_size(list);
    if (n > 16) abort();
    for (size_t i = 0; i < n; i++) {
        const json_t *turn = json_array_get(list, i), *said = json_array_get(turn, 1);
        turns[i].role = named(json_string_value(json_array_get(turn, 0)), roles, CARAT_ROLE_SYSTEM);
        turns[i].reserved = 0;
        turns[i].text.ptr = json_string_value(said);
        turns[i].text.len = json_string_length(said);
    }
    return n;
}

static int session_options(json_t *from, carat_session_options *o) {
    const char *key;
    json_t *value;
    carat_session_options_init(o, sizeof *o);
    json_object_foreach(from, key, value) {
        json_int_t n = json_integer_value(value);
        if (strcmp(key, "context") == 0) o->context = (uint64_t)n;
        else if (strcmp(key, "batch") == 0) o->batch = (uint32_t)n;
        else if (strcmp(key, "snapshots") == 0) o->snapshots = (uint32_t)n;
        else return fail("session option %s", key);
    }
    return 1;
}

typedef struct generating {
    carat_generate_options c;
    carat_logit_bias bias[8];
    carat_text stop[8];
} generating;

static int generate_options(json_t *from, generating *o) {
    const char *key;
    json_t *value;
    carat_generate_options_init(&o->c, sizeof o->c);
    json_object_foreach(from, key, value) {
        json_int_t n = json_integer_value(value);
        float f = (float)json_number_value(value);
        if (strcmp(key, "max_tokens") == 0) o->c.max_tokens = (uint64_t)n;
        else if (strcmp(key, "temperature") == 0) o->c.temperature = f;
        else if (strcmp(key, "top_k") == 0) o->c.top_k = (uint32_t)n;
        else if (strcmp(key, "top_p") == 0) o->c.top_p = f;
        else if (strcmp(key, "min_p") == 0) o->c.min_p = f;
        else if (strcmp(key, "repetition_penalty") == 0) o->c.repetition_penalty = f;
        else if (strcmp(key, "presence_penalty") == 0) o->c.presence_penalty = f;
        else if (strcmp(key, "frequency_penalty") == 0) o->c.frequency_penalty = f;
        else if (strcmp(key, "penalty_window") == 0) o->c.penalty_window = (uint32_t)n;
        else if (strcmp(key, "top_log_probs") == 0) o->c.top_log_probs = (uint32_t)n;
        else if (strcmp(key, "ignore_end") == 0) o->c.ignore_end = json_is_true(value);
        else if (strcmp(key, "seed") == 0) {
            o->c.has_seed = 1;
            o->c.seed = (uint64_t)n;
        } else if (strcmp(key, "stop") == 0) {
            o->c.stop = o->stop;
            o->c.n_stop = json_array_size(value);
            for (size_t i = 0; i < o->c.n_stop && i < 8; i++) {
                o->stop[i].ptr = json_string_value(json_array_get(value, i));
                o->stop[i].len = json_string_length(json_array_get(value, i));
            }
        } else if (strcmp(key, "logit_bias") == 0) {
            o->c.logit_bias = o->bias;
            o->c.n_logit_bias = json_array_size(value);
            for (size_t i = 0; i < o->c.n_logit_bias && i < 8; i++) {
                const json_t *pair = json_array_get(value, i), *bias = json_array_get(pair, 1);
                o->bias[i].token = (uint32_t)json_integer_value(json_array_get(pair, 0));
                o->bias[i].bias = json_is_null(bias) ? -INFINITY : (float)json_number_value(bias);
            }
        } else return fail("option %s", key);
    }
    return 1;
}

/* ---- Files and models ---- */

static char *read_file(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    char *bytes = (char *)malloc(*len + 1);
    if (!bytes || fread(bytes, 1, *len, f) != *len) abort();
    fclose(f);
    return bytes;
}

/* The file that a recipe describes. */
static int cook(const json_t *recipe, char *path, size_t room) {
    const char *name = text_of(recipe, "name"), *of = text_of(recipe, "of");
    const json_t *given = get(recipe, "bytes"), *replace = get(recipe, "replace"), *set = get(recipe, "set");
    char from[4096], *bytes;
    size_t len;
    snprintf(path, room, "%s/%s", scratch, name ? name : "case.gguf");
    if (of) {
        snprintf(from, sizeof from, "%s/%s", data_dir, of);
        bytes = read_file(from, &len);
        REQUIRE(bytes, "no file %s", from);
    } else if (given) {
        len = json_array_size(given);
        bytes = (char *)malloc(len + 1);
        if (!bytes) abort();
        for (size_t i = 0; i < len; i++) bytes[i] = (char)json_integer_value(json_array_get(given, i));
    } else return 1;
    if (get(recipe, "keep")) len = size_of(recipe, "keep");
    for (size_t i = 0; i < json_array_size(set); i++) {
        const json_t *pair = json_array_get(set, i);
        bytes[json_integer_value(json_array_get(pair, 0))] = (char)json_integer_value(json_array_get(pair, 1));
    }
    if (replace) {
        const json_t *old = json_array_get(replace, 0);
        size_t i = 0, n = json_string_length(old);
        while (memcmp(bytes + i, json_string_value(old), n) != 0) REQUIRE(++i + n <= len, "nothing to replace");
        memcpy(bytes + i, json_string_value(json_array_get(replace, 1)), n);
    }
    unlink(path);
    FILE *f = fopen(path, "wb");
    REQUIRE(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0, "cannot write %s", path);
    free(bytes);
    return 1;
}

static carat_status open_model(const char *path, int threads, const carat_cancel *cancel, carat_model **out) {
    carat_model_options o;
    carat_model_options_init(&o, sizeof o);
    o.threads = threads;
    o.cancel = cancel;
    return carat_model_open(path, strlen(path), &o, out, &error);
}

static void release(void *bytes) { free(bytes); }

static carat_status open_bytes(const char *path, carat_model **out) {
    size_t len;
    char *bytes = read_file(path, &len);
    if (!bytes) abort();
    return carat_model_open_bytes((const uint8_t *)bytes, len, release, bytes, NULL, out, &error);
}

static struct {
    char name[64];
    carat_model *model;
} opened[8];

static carat_model *model_of(const char *name) {
    char path[4096];
    size_t i = 0;
    for (; i < 7 && opened[i].model; i++)
        if (strcmp(opened[i].name, name) == 0) return opened[i].model;
    if (strcmp(name, "real") == 0) snprintf(path, sizeof path, "%s", real_path);
    else snprintf(path, sizeof path, "%s/%s", data_dir, name);
    snprintf(opened[i].name, sizeof opened[i].name, "%s", name);
    open_model(path, 2, NULL, &opened[i].model);
    return opened[i].model;
}

/* ---- The kinds ---- */

static int tokenize(const carat_model *model, const json_t *c) {
    const json_t *text = get(c, "text"), *decoded = get(c, "decoded");
    carat_tokenize_options o;
    uint32_t ids[MOST];
    char out[8 * MOST];
    size_t n, len, total = 0;
    carat_tokenize_options_init(&o, sizeof o);
    o.special = json_is_true(get(c, "special"));
    o.bos = json_is_true(get(c, "bos"));
    OK(carat_tokenize(model, json_string_value(text), json_string_length(text), &o, ids, MOST, &n, &error));
    if (!same_ids(get(c, "ids"), ids, n, "ids")) return 0;
    OK(carat_detokenize(model, ids, n, out, sizeof out, &len, &error));
    REQUIRE(same_text(decoded, out, len), "decoded: found %s", out);
    carat_decoder *decoder = NULL;
    OK(carat_decoder_new(model, &decoder, &error));
    for (size_t i = 0; i <= n; i++, total += len) {
        if (i < n) OK(carat_decoder_push(decoder, ids[i], out + total, sizeof out - total, &len, &error));
        else OK(carat_decoder_flush(decoder, out + total, sizeof out - total, &len, &error));
    }
    carat_decoder_free(decoder);
    REQUIRE(same_text(decoded, out, total), "decoded one by one: found %s", out);
    return 1;
}

static int vocabulary(const carat_model *model, const json_t *c) {
    carat_special_tokens t;
    carat_special_tokens_init(&t, sizeof t);
    OK(carat_model_special_tokens(model, &t, &error));
    const uint32_t found[] = {t.vocab_size, t.bos, t.eos, t.unk, t.pad, t.start_of_turn, t.end_of_turn};
    const char *const keys[] = {"vocab_size", "bos", "eos", "unk", "pad", "start_of_turn", "end_of_turn"};
    for (int i = 0; i < 7; i++)
        REQUIRE(found[i] == size_of(get(c, "special"), keys[i]), "%s: found %u", keys[i], found[i]);
    for (size_t i = 0; i < json_array_size(get(c, "tokens")); i++) {
        const json_t *token = json_array_get(get(c, "tokens"), i);
        uint32_t id = (uint32_t)size_of(token, "id"), bytes[MOST];
        uint8_t got[MOST];
        int32_t kind;
        size_t len, n = ids_of(get(token, "bytes"), bytes);
        OK(carat_token_bytes(model, id, got, sizeof got, &len, &error));
        REQUIRE(len == n, "bytes of %u: found %zu", id, len);
        for (size_t k = 0; k < n; k++) REQUIRE(got[k] == bytes[k], "byte %zu of %u: found %d", k, id, got[k]);
        OK(carat_token_kind(model, id, &kind, &error));
        REQUIRE(kind == named(text_of(token, "kind"), pieces, CARAT_PIECE_NORMAL), "kind of %u: found %d", id, kind);
    }
    for (size_t i = 0; i < json_array_size(get(c, "ids")); i++) {
        const json_t *pair = json_array_get(get(c, "ids"), i), *text = json_array_get(pair, 0);
        const json_t *expected = json_array_get(pair, 1);
        uint32_t id;
        OK(carat_token_id(model, json_string_value(text), json_string_length(text), &id, &error));
        REQUIRE(id == (json_is_null(expected) ? UINT32_MAX : (uint32_t)json_integer_value(expected)),
                "id of %s: found %u", json_string_value(text), id);
    }
    return 1;
}

static int model_info(const json_t *c) {
    char path[4096], text[MOST];
    const char *key;
    json_t *value, *row;
    carat_model *model = NULL;
    carat_model_info info;
    size_t i, len;
    snprintf(path, sizeof path, "%s/%s", data_dir, text_of(c, "model"));
    OK(is(get(c, "by"), "bytes") ? open_bytes(path, &model) : open_model(path, 1, NULL, &model));
    carat_model_info_init(&info, sizeof info);
    OK(carat_model_get_info(model, &info, &error));
    REQUIRE(info.arch == named(text_of(get(c, "info"), "arch"), archs, CARAT_ARCH_GEMMA), "arch: found %d", info.arch);
    const struct { const char *key; uint64_t found; } numbers[] = {
        {"n_layers", info.n_layers}, {"d_model", info.d_model}, {"d_ff", info.d_ff}, {"n_heads", info.n_heads},
        {"n_kv_heads", info.n_kv_heads}, {"head_dim", info.head_dim}, {"vocab", info.vocab},
        {"sliding_window", info.sliding_window}, {"context_length", info.context_length},
        {"n_tensors", info.n_tensors}, {"file_bytes", info.file_bytes}};
    json_object_foreach(get(c, "info"), key, value) {
        size_t k = 0;
        if (strcmp(key, "arch") == 0) continue;
        while (k < sizeof numbers / sizeof *numbers && strcmp(numbers[k].key, key) != 0) k++;
        REQUIRE(k < sizeof numbers / sizeof *numbers, "info %s", key);
        REQUIRE(numbers[k].found == (uint64_t)json_integer_value(value), "%s: found %lu", key, (unsigned long)numbers[k].found);
    }
    json_array_foreach(get(c, "metadata"), i, row) {
        key = json_string_value(json_array_get(row, 0));
        OK(carat_model_metadata(model, key, strlen(key), text, sizeof text, &len, &error));
        REQUIRE(same_text(json_array_get(row, 1), text, len), "%s: found %s", key, text);
    }
    json_array_foreach(get(c, "tensors"), i, row) {
        carat_tensor_info t;
        carat_tensor_info_init(&t, sizeof t);
        OK(carat_model_tensor(model, (uint64_t)json_integer_value(json_array_get(row, 0)), &t, &error));
        REQUIRE(same_text(json_array_get(row, 1), t.name, t.name_len), "name of tensor %zu", i);
        REQUIRE(same_text(json_array_get(row, 2), t.type_name, t.type_name_len), "type of tensor %zu", i);
        REQUIRE(json_array_size(json_array_get(row, 3)) == t.n_dims, "dimensions of tensor %zu", i);
        for (uint32_t k = 0; k < t.n_dims; k++)
            REQUIRE((uint64_t)json_integer_value(json_array_get(json_array_get(row, 3), k)) == t.dims[k],
                    "size %u of tensor %zu", k, i);
        REQUIRE((uint64_t)json_integer_value(json_array_get(row, 4)) == t.offset, "offset of tensor %zu", i);
        REQUIRE((uint64_t)json_integer_value(json_array_get(row, 5)) == t.size, "bytes of tensor %zu", i);
    }
    carat_model_free(model);
    return 1;
}

typedef struct rows {
    const json_t *at;
    size_t seen;
    int ok;
} rows;

static int check_row(rows *r, size_t position, const float *logits, size_t n) {
    size_t i, best = 0;
    json_t *row, *pair;
    json_array_foreach(r->at, i, row) {
        if (size_of(row, "position") != position) continue;
        r->seen++;
        for (size_t k = 1; k < n; k++)
            if (logits[k] > logits[best]) best = k;
        REQUIRE(best == size_of(row, "argmax"), "the likeliest after %zu: found %zu", position, best);
        json_array_foreach(get(row, "values"), i, pair) {
            if (!close_to(logits[json_integer_value(json_array_get(pair, 0))], json_array_get(pair, 1), 2e-3, "logit"))
                return 0;
        }
        break;
    }
    return 1;
}

static int32_t each_row(void *data, size_t index, const float *logits, size_t n) {
    rows *r = (rows *)data;
    if (r->ok) r->ok = check_row(r, index, logits, n);
    return 1;
}

static int check_now(rows *r, const carat_session *s, size_t position) {
    carat_logits *logits = NULL;
    size_t n;
    OK(carat_session_logits(s, &logits, &error));
    const float *values = carat_logits_data(logits, &n);
    int ok = check_row(r, position, values, n);
    carat_logits_free(logits);
    return ok;
}

static int new_session(const carat_model *model, uint64_t context, uint32_t batch, carat_session **out) {
    carat_session_options o;
    carat_session_options_init(&o, sizeof o);
    o.context = context;
    o.batch = batch;
    OK(carat_session_new(model, &o, out, &error));
    return 1;
}

static int logits(const carat_model *model, const json_t *c) {
    uint32_t ids[MOST];
    size_t n = ids_of(get(c, "ids"), ids), last = n - 1;
    rows r = {get(c, "at"), 0, 1};
    const json_t *via = get(c, "via");
    carat_session *s = NULL, *other = NULL;
    if (!new_session(model, 256, 64, &s)) return 0;
    if (is(via, "prefill")) {
        OK(carat_session_prefill(s, ids, n, NULL, &error));
        if (!check_now(&r, s, last)) return 0;
    } else if (is(via, "prefill_each")) {
        OK(carat_session_prefill_each(s, ids, n, NULL, each_row, &r, &error));
        if (!r.ok) return 0;
    } else if (is(via, "step")) {
        for (size_t i = 0; i < n; i++) {
            OK(carat_session_step(s, ids[i], NULL, &error));
            if (!check_now(&r, s, i)) return 0;
        }
    } else {
        OK(carat_session_prefill(s, ids, last, NULL, &error));
        if (is(via, "fork")) OK(carat_session_fork(s, &other, &error));
        else if (is(via, "trim")) OK(carat_session_trim(s, &error));
        else if (is(via, "save_and_load")) {
            char path[4096];
            carat_session_options o;
            carat_session_options_init(&o, sizeof o);
            o.context = 256;
            o.batch = 64;
            snprintf(path, sizeof path, "%s/session", scratch);
            OK(carat_session_save(s, path, strlen(path), NULL, &error));
            OK(carat_session_load(model, path, strlen(path), &o, NULL, &other, &error));
        } else if (is(via, "truncate")) {
            OK(carat_session_prefill(s, ids, 2, NULL, &error));
            OK(carat_session_truncate(s, last, &error));
        } else return fail("via %s", json_string_value(via));
        if (other) {
            carat_session_free(s);
            s = other;
        }
        OK(carat_session_step(s, ids[last], NULL, &error));
        if (!check_now(&r, s, last)) return 0;
    }
    REQUIRE(r.seen == json_array_size(r.at), "%zu positions seen", r.seen);
    OK(carat_session_tokens(s, ids, MOST, &n, &error));
    carat_session_free(s);
    return same_ids(get(c, "ids"), ids, n, "tokens");
}

static int score(const carat_model *model, const json_t *c) {
    uint32_t ids[MOST];
    carat_token_score scores[MOST];
    carat_session *s = NULL;
    size_t i, found, n = ids_of(get(c, "before"), ids);
    json_t *row;
    if (!new_session(model, 256, 64, &s)) return 0;
    if (n) OK(carat_session_prefill(s, ids, n, NULL, &error));
    n = ids_of(get(c, "ids"), ids);
    OK(carat_session_score(s, ids, n, size_of(c, "from"), NULL, scores, MOST, &found, &error));
    carat_session_free(s);
    REQUIRE(found == json_array_size(get(c, "scores")), "%zu scores", found);
    json_array_foreach(get(c, "scores"), i, row) {
        REQUIRE(scores[i].token == json_integer_value(json_array_get(row, 0)), "token %zu: found %u", i, scores[i].token);
        if (!close_to(scores[i].log_prob, json_array_get(row, 1), 4e-3, "score")) return 0;
        REQUIRE(scores[i].rank >= json_integer_value(json_array_get(row, 2)) &&
                    scores[i].rank <= json_integer_value(json_array_get(row, 3)),
                "rank %zu: found %u", i, scores[i].rank);
    }
    return 1;
}

/* What a generation tells, and what it is to do. */
typedef struct told {
    uint32_t tokens[MOST];
    size_t n_tokens, text_len, n_pieces, piece_len[MOST];
    char text[8 * MOST];
    float log_prob;
    carat_token_log_prob top[16];
    size_t n_top, cancel_after, stop_after, hooked;
    uint32_t force[MOST];
    const carat_cancel *cancel;
    carat_session *busy;
    carat_status busy_status;
} told;

static int32_t on_piece(void *data, const carat_piece *p) {
    told *t = (told *)data;
    if (t->n_pieces == MOST || t->text_len + p->text_len > sizeof t->text) return 0;
    if (p->text_len) memcpy(t->text + t->text_len, p->text, p->text_len);
    t->text_len += p->text_len;
    t->piece_len[t->n_pieces++] = p->text_len;
    if (!p->has_token) return 1;
    if (t->n_tokens == 0) {
        t->log_prob = p->log_prob;
        t->n_top = p->n_top < 16 ? p->n_top : 16;
        for (size_t i = 0; i < t->n_top; i++) t->top[i] = p->top[i];
    }
    t->tokens[t->n_tokens++] = p->token;
    if (t->n_tokens == t->cancel_after) carat_cancel_set(t->cancel);
    if (t->busy && t->busy_status == CARAT_OK) {
        const uint32_t id = 2;
        t->busy_status = carat_session_prefill(t->busy, &id, 1, NULL, &error);
    }
    return t->n_tokens != t->stop_after;
}

static int32_t force(void *data, const uint32_t *tokens, size_t n_tokens, float *logits, size_t n_logits) {
    told *t = (told *)data;
    (void)tokens;
    (void)n_tokens;
    for (size_t i = 0; i < n_logits; i++) logits[i] = -INFINITY;
    logits[t->force[t->hooked++]] = 0;
    return 1;
}

static int generate(const carat_model *model, const json_t *c) {
    static told t;
    generating o;
    carat_session_options so;
    carat_summary summary;
    carat_session *s = NULL;
    carat_cancel *cancel = carat_cancel_new();
    const json_t *expect = get(c, "expect");
    uint32_t ids[MOST];
    size_t i, len, n = ids_of(get(c, "before"), ids);
    json_t *row;
    memset(&t, 0, sizeof t);
    if (!session_options(get(c, "session"), &so) || !generate_options(get(c, "options"), &o)) return 0;
    OK(carat_session_new(model, &so, &s, &error));
    if (n) OK(carat_session_prefill(s, ids, n, NULL, &error));
    if (json_is_true(get(c, "cancelled"))) carat_cancel_set(cancel);
    o.c.cancel = t.cancel = cancel;
    t.cancel_after = size_of(c, "cancel_after");
    t.stop_after = size_of(c, "stop_after");
    if (ids_of(get(c, "force"), t.force)) {
        o.c.hook = force;
        o.c.hook_data = &t;
    }
    n = ids_of(get(c, "prompt"), ids);
    carat_summary_init(&summary, sizeof summary);
    OK(carat_session_generate(s, ids, n, &o.c, on_piece, &t, &summary, &error));
    if (!same_ids(get(expect, "tokens"), t.tokens, t.n_tokens, "tokens")) return 0;
    if (get(expect, "text"))
        REQUIRE(same_text(get(expect, "text"), t.text, t.text_len), "text: found %.*s", (int)t.text_len, t.text);
    if (get(expect, "pieces")) {
        size_t at = 0;
        REQUIRE(json_array_size(get(expect, "pieces")) == t.n_pieces, "%zu pieces", t.n_pieces);
        json_array_foreach(get(expect, "pieces"), i, row) {
            REQUIRE(same_text(row, t.text + at, t.piece_len[i]), "piece %zu", i);
            at += t.piece_len[i];
        }
    }
    REQUIRE(summary.reason == named(text_of(expect, "reason"), reasons, CARAT_FINISH_END_OF_TURN), "reason: found %d",
            summary.reason);
    REQUIRE(summary.stop_index == size_of(expect, "stop_index"), "stop index: found %d", (int)summary.stop_index);
    OK(carat_session_len(s, &len, NULL, &error));
    const struct { const char *key; uint64_t found; } counts[] = {{"prompt_tokens", summary.prompt_tokens},
        {"generated_tokens", summary.generated_tokens}, {"len", len}};
    for (i = 0; i < 3; i++)
        REQUIRE(!get(expect, counts[i].key) || counts[i].found == size_of(expect, counts[i].key), "%s: found %d",
                counts[i].key, (int)counts[i].found);
    if (get(expect, "top")) {
        if (!close_to(t.log_prob, get(expect, "log_prob"), 4e-3, "log_prob")) return 0;
        REQUIRE(json_array_size(get(expect, "top")) == t.n_top, "%zu of the likeliest", t.n_top);
        json_array_foreach(get(expect, "top"), i, row) {
            REQUIRE(t.top[i].token == json_integer_value(json_array_get(row, 0)), "one of the likeliest");
            if (!close_to(t.top[i].log_prob, json_array_get(row, 1), 4e-3, "one of the likeliest")) return 0;
        }
    }
    carat_session_free(s);
    carat_cancel_free(cancel);
    return 1;
}

static int render(const carat_model *model, const json_t *c) {
    carat_turn turns[16];
    uint32_t ids[MOST];
    size_t n, n_turns = turns_of(get(c, "turns"), turns);
    OK(carat_chat_render(model, turns, n_turns, NULL, ids, MOST, &n, &error));
    return same_ids(get(c, "ids"), ids, n, "ids");
}

typedef carat_status (*one_turn)(const carat_conversation *, size_t, int32_t *, char *, size_t, size_t *, carat_error **);

static int same_turns(const json_t *expected, const carat_conversation *c, one_turn one) {
    char text[8 * MOST];
    int32_t role;
    size_t i, len;
    json_t *turn;
    json_array_foreach(expected, i, turn) {
        OK(one(c, i, &role, text, sizeof text, &len, &error));
        REQUIRE(role == named(json_string_value(json_array_get(turn, 0)), roles, CARAT_ROLE_SYSTEM), "role of turn %zu", i);
        REQUIRE(same_text(json_array_get(turn, 1), text, len), "turn %zu: found %s", i, text);
    }
    REQUIRE(one(c, json_array_size(expected), &role, text, sizeof text, &len, NULL) == CARAT_INVALID_ARGUMENT,
            "more turns than %zu", json_array_size(expected));
    return 1;
}

static int reply(carat_conversation *c, json_t *action, const carat_cancel *cancel, told *t, carat_summary *summary,
                 carat_status *status) {
    generating o;
    carat_turn turns[16];
    const json_t *said = get(action, "text");
    const char *call = text_of(action, "do") ? text_of(action, "do") : text_of(action, "call");
    const char *text = json_string_value(said);
    size_t len = json_string_length(said);
    memset(t, 0, sizeof *t);
    carat_summary_init(summary, sizeof *summary);
    if (!generate_options(get(action, "options"), &o)) return 0;
    o.c.cancel = cancel;
    if (strcmp(call, "send") == 0)
        *status = carat_conversation_send(c, text, len, &o.c, on_piece, t, summary, &error);
    else if (strcmp(call, "edit_last") == 0)
        *status = carat_conversation_edit_last(c, text, len, &o.c, on_piece, t, summary, &error);
    else if (strcmp(call, "regenerate") == 0)
        *status = carat_conversation_regenerate(c, &o.c, on_piece, t, summary, &error);
    else if (strcmp(call, "respond") == 0) {
        size_t n = turns_of(get(action, "turns"), turns);
        *status = carat_conversation_respond(c, turns, n, &o.c, on_piece, t, summary, &error);
    } else return fail("action %s", call);
    return 1;
}

static int chat(const carat_model *model, const json_t *c) {
    static told t;
    carat_session_options so;
    carat_session *s = NULL;
    carat_conversation *talk = NULL, *loaded = NULL;
    carat_summary summary;
    carat_status status;
    uint32_t ids[MOST];
    size_t i, n, n_turns;
    json_t *action;
    const json_t *system = get(c, "system");
    if (!session_options(get(c, "session"), &so)) return 0;
    OK(carat_session_new(model, &so, &s, &error));
    OK(carat_conversation_new(s, json_string_value(system), json_string_length(system), &talk, &error));
    carat_session_free(s);
    if (get(c, "policy")) {
        REQUIRE(is(get(c, "policy"), "drop_oldest"), "policy");
        OK(carat_conversation_set_policy(talk, CARAT_POLICY_DROP_OLDEST, &error));
    }
    json_array_foreach(get(c, "actions"), i, action) {
        const json_t *what = get(action, "do"), *expect = get(action, "expect"), *text = get(action, "text");
        if (is(what, "reset")) OK(carat_conversation_reset(talk, &error));
        else if (is(what, "trim")) OK(carat_conversation_trim(talk, &error));
        else if (is(what, "set_system"))
            OK(carat_conversation_set_system(talk, json_string_value(text), json_string_length(text), &error));
        else if (is(what, "save_and_load")) {
            char path[4096];
            snprintf(path, sizeof path, "%s/conversation", scratch);
            OK(carat_conversation_save(talk, path, strlen(path), NULL, &error));
            OK(carat_conversation_load(model, path, strlen(path), &so, NULL, &loaded, &error));
            carat_conversation_free(talk);
            talk = loaded;
        } else {
            if (!reply(talk, action, NULL, &t, &summary, &status)) return 0;
            OK(status);
            REQUIRE(same_text(get(expect, "answer"), t.text, t.text_len), "answer %zu: found %.*s", i, (int)t.text_len, t.text);
            REQUIRE(summary.reason == named(text_of(expect, "reason"), reasons, CARAT_FINISH_END_OF_TURN),
                    "reason %zu: found %d", i, summary.reason);
            REQUIRE(summary.prompt_tokens == size_of(expect, "prompt_tokens") &&
                        summary.reused_tokens == size_of(expect, "reused_tokens") &&
                        summary.generated_tokens == size_of(expect, "generated_tokens"),
                    "counts %zu: found %d, %d, %d", i, (int)summary.prompt_tokens, (int)summary.reused_tokens,
                    (int)summary.generated_tokens);
            if (!same_turns(get(expect, "dropped"), talk, carat_conversation_dropped)) return 0;
        }
    }
    if (!same_turns(get(c, "turns"), talk, carat_conversation_turn)) return 0;
    OK(carat_conversation_n_turns(talk, &n_turns, &error));
    REQUIRE(n_turns == json_array_size(get(c, "turns")), "%zu turns", n_turns);
    OK(carat_conversation_tokens(talk, ids, MOST, &n, &error));
    carat_conversation_free(talk);
    return same_ids(get(c, "tokens"), ids, n, "tokens");
}

/* ---- Errors ---- */

static int32_t stop_rows(void *data, size_t index, const float *logits, size_t n) {
    (void)logits;
    (void)n;
    return index + 1 != *(size_t *)data;
}

/* Makes the call; what it came to goes to `status`. */
static int provoke(json_t *c, const char *path, const carat_cancel *cancel, carat_status *status, carat_model **model,
                   carat_session **s, carat_conversation **talk) {
    static told t;
    const json_t *call = get(c, "call");
    const char *key = text_of(c, "key");
    carat_session_options so;
    carat_turn turns[16];
    uint32_t ids[MOST], id = (uint32_t)size_of(c, "id");
    char text[8 * MOST], file[4096];
    size_t n, stop_after = size_of(c, "stop_after");
    int32_t kind;
    if (!session_options(get(c, "session"), &so)) return 0;
    if (is(call, "open")) {
        int threads = get(get(c, "open"), "threads") ? (int)size_of(get(c, "open"), "threads") : 1;
        *status = get(c, "by") ? open_bytes(path, model) : open_model(path, threads, cancel, model);
        return 1;
    }
    if (is(call, "plan")) {
        carat_plan plan;
        carat_plan_init(&plan, sizeof plan);
        *status = carat_model_plan(path, strlen(path), 1, &so, &plan, &error);
        return 1;
    }
    OK(open_model(path, 1, NULL, model));
    if (is(call, "tokenize")) {
        carat_tokenize_options o;
        carat_tokenize_options_init(&o, sizeof o);
        o.cancel = cancel;
        *status = carat_tokenize(*model, text_of(c, "text"), strlen(text_of(c, "text")), &o, ids, MOST, &n, &error);
    } else if (is(call, "detokenize")) {
        n = ids_of(get(c, "ids"), ids);
        *status = carat_detokenize(*model, ids, n, text, sizeof text, NULL, &error);
    } else if (is(call, "decoder")) {
        carat_decoder *decoder = NULL;
        OK(carat_decoder_new(*model, &decoder, &error));
        *status = carat_decoder_push(decoder, id, text, sizeof text, &n, &error);
        carat_decoder_free(decoder);
    } else if (is(call, "token_bytes")) {
        *status = carat_token_bytes(*model, id, (uint8_t *)text, sizeof text, &n, &error);
    } else if (is(call, "token_kind")) {
        *status = carat_token_kind(*model, id, &kind, &error);
    } else if (is(call, "metadata")) {
        *status = carat_model_metadata(*model, key, strlen(key), text, sizeof text, &n, &error);
    } else if (is(call, "render")) {
        n = turns_of(get(c, "turns"), turns);
        *status = carat_chat_render(*model, turns, n, cancel, ids, MOST, NULL, &error);
    } else if (is(call, "load") || is(call, "load_conversation")) {
        if (!cook(get(c, "file_to_load"), file, sizeof file)) return 0;
        *status = is(call, "load") ? carat_session_load(*model, file, strlen(file), &so, cancel, s, &error)
                                   : carat_conversation_load(*model, file, strlen(file), &so, cancel, talk, &error);
    } else if ((*status = carat_session_new(*model, &so, s, &error)) == CARAT_OK) {
        if (is(call, "session")) return 1;
        if ((n = ids_of(get(c, "before"), ids))) OK(carat_session_prefill(*s, ids, n, NULL, &error));
        if (get(c, "cut")) OK(carat_session_truncate(*s, size_of(c, "cut"), &error));
        if (get(c, "shrink_to")) REQUIRE(truncate(path, (off_t)size_of(c, "shrink_to")) == 0, "cannot shrink %s", path);
        n = ids_of(get(c, "ids"), ids);
        if (is(call, "prefill")) *status = carat_session_prefill(*s, ids, n, cancel, &error);
        else if (is(call, "prefill_each"))
            *status = carat_session_prefill_each(*s, ids, n, cancel, stop_rows, &stop_after, &error);
        else if (is(call, "step")) *status = carat_session_step(*s, (uint32_t)size_of(c, "token"), cancel, &error);
        else if (is(call, "score")) {
            carat_token_score scores[MOST];
            *status = carat_session_score(*s, ids, n, size_of(c, "from"), cancel, scores, MOST, NULL, &error);
        } else if (is(call, "logits")) {
            carat_logits *out = NULL;
            *status = carat_session_logits(*s, &out, &error);
        } else if (is(call, "truncate")) *status = carat_session_truncate(*s, size_of(c, "to"), &error);
        else if (is(call, "save")) {
            snprintf(file, sizeof file, "%s/%s", scratch, get(c, "to_file") ? text_of(c, "to_file") : "session");
            *status = carat_session_save(*s, file, strlen(file), cancel, &error);
        } else if (is(call, "generate") || is(call, "busy")) {
            generating o;
            memset(&t, 0, sizeof t);
            if (!generate_options(get(c, "options"), &o)) return 0;
            o.c.cancel = cancel;
            n = ids_of(get(c, "prompt"), ids);
            if (is(call, "busy")) {
                t.busy = *s;
                o.c.max_tokens = 1;
                OK(carat_session_generate(*s, ids, n, &o.c, on_piece, &t, NULL, NULL));
                *status = t.busy_status;
            } else *status = carat_session_generate(*s, ids, n, &o.c, on_piece, &t, NULL, &error);
        } else if (is(call, "resume")) {
            *status = carat_conversation_resume(*s, talk, &error);
        } else {
            carat_summary summary;
            OK(carat_conversation_new(*s, NULL, 0, talk, &error));
            return reply(*talk, c, cancel, &t, &summary, status);
        }
    }
    return 1;
}

static int errors(json_t *c) {
    char path[4096];
    carat_model *model = NULL;
    carat_session *s = NULL;
    carat_conversation *talk = NULL;
    carat_status status = CARAT_OK;
    carat_cancel *cancel = carat_cancel_new();
    size_t len;
    if (get(c, "model")) snprintf(path, sizeof path, "%s/%s", data_dir, text_of(c, "model"));
    else if (!cook(get(c, "file"), path, sizeof path)) return 0;
    if (json_is_true(get(c, "cancelled"))) carat_cancel_set(cancel);
    if (!provoke(c, path, cancel, &status, &model, &s, &talk)) return 0;
    REQUIRE(is(get(c, "status"), carat_status_name(status)), "status: found %s: %s", carat_status_name(status),
            carat_error_message(error));
    REQUIRE(carat_error_status(error) == status, "the error's status: found %d", carat_error_status(error));
    REQUIRE(carat_error_kind(error) == named(text_of(c, "error_kind"), kinds, CARAT_KIND_USAGE), "kind: found %d",
            carat_error_kind(error));
    REQUIRE(strstr(carat_error_message(error), text_of(c, "message")), "message: found %s", carat_error_message(error));
    uint64_t nearest = carat_error_nearest(error);
    REQUIRE((nearest != 0) == json_is_true(get(c, "nearest")), "nearest: found %d", (int)nearest);
    if (get(c, "len_after")) {
        OK(carat_session_len(s, &len, NULL, NULL));
        REQUIRE(len == size_of(c, "len_after"), "length after: found %zu", len);
    }
    if (nearest) OK(carat_session_truncate(s, nearest, NULL));
    carat_conversation_free(talk);
    carat_session_free(s);
    carat_model_free(model);
    carat_cancel_free(cancel);
    return 1;
}

/* ---- The run ---- */

static int run(json_t *c) {
    const json_t *kind = get(c, "kind");
    if (is(kind, "error")) return errors(c);
    if (is(kind, "model")) return model_info(c);
    const carat_model *model = model_of(text_of(c, "model"));
    REQUIRE(model, "%s", carat_error_message(error));
    if (is(kind, "tokenize")) return tokenize(model, c);
    if (is(kind, "vocabulary")) return vocabulary(model, c);
    if (is(kind, "logits")) return logits(model, c);
    if (is(kind, "score")) return score(model, c);
    if (is(kind, "generate")) return generate(model, c);
    if (is(kind, "render")) return render(model, c);
    if (is(kind, "chat")) return chat(model, c);
    return fail("kind %s", json_string_value(kind));
}

static int json_file(const struct dirent *e) {
    size_t n = strlen(e->d_name);
    return n > 5 && strcmp(e->d_name + n - 5, ".json") == 0;
}

int main(int argc, char **argv) {
    char folder[4096], path[8192];
    const char *report_path = getenv("CARAT_CONFORMANCE_REPORT");
    struct dirent **files;
    int passed = 0, failed = 0;
    data_dir = argc > 1 ? argv[1] : "tests/data";
    real_path = getenv("CARAT_TEST_MODEL");
    if (!real_path) printf("CARAT_TEST_MODEL is not set: cases of the real model are left out\n");
    if (!mkdtemp(scratch)) return 2;
    FILE *report = report_path ? fopen(report_path, "w") : NULL;
    snprintf(folder, sizeof folder, "%s/../conformance", data_dir);
    int n = scandir(folder, &files, json_file, alphasort);
    for (int i = 0; i < n; i++) {
        json_error_t bad;
        size_t k;
        json_t *c;
        snprintf(path, sizeof path, "%s/%s", folder, files[i]->d_name);
        json_t *cases = json_load_file(path, JSON_ALLOW_NUL, &bad);
        if (!cases) {
            printf("%s:%d: %s\n", path, bad.line, bad.text);
            return 2;
        }
        json_array_foreach(cases, k, c) {
            const char *name = text_of(c, "name"), *not_in = text_of(get(c, "not_in"), "c");
            if (is(get(c, "model"), "real") && !real_path) continue;
            if (not_in) {
                if (report) fprintf(report, "n/a %s: %s\n", name, not_in);
                continue;
            }
            error = NULL;
            if (run(c)) {
                passed++;
                if (report) fprintf(report, "pass %s\n", name);
            } else {
                failed++;
                printf("FAILED %s: %s\n", name, why);
                if (report) fprintf(report, "FAIL %s: %s\n", name, why);
            }
            carat_error_free(error);
        }
        json_decref(cases);
        free(files[i]);
    }
    free(files);
    for (int i = 0; i < 8; i++) carat_model_free(opened[i].model);
    if (report) fclose(report);
    snprintf(path, sizeof path, "rm -rf %s", scratch);
    if (system(path) != 0) return 2;
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0 || passed < 150;
}
