/* Everything the API does, once, against the golden values. */
#include "check.h"

static const char *const models[] = {"tiny-gemma-mqa", "tiny-gemma-mha", "tiny-gemma2", "tiny-gemma3"};

static uint32_t golden_ids[1024];
static size_t n_golden_ids;

static char *read_file(const char *name, size_t *len) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", data_dir, name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    fseek(f, 0, SEEK_END);
    *len = (size_t)ftell(f);
    rewind(f);
    char *bytes = (char *)malloc(*len + 1);
    if (!bytes || fread(bytes, 1, *len, f) != *len) exit(1);
    bytes[*len] = 0;
    fclose(f);
    return bytes;
}

static void read_golden_ids(void) {
    size_t len;
    char *text = read_file("tiny-ids.json", &len), *at = text;
    while (*at) {
        char *end;
        unsigned long id = strtoul(at, &end, 10);
        if (end == at) at++;
        else {
            golden_ids[n_golden_ids++] = (uint32_t)id;
            at = end;
        }
    }
    free(text);
}

static double worst_difference(const float *a, const float *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

typedef struct compared {
    const float *golden;
    double worst;
    size_t rows;
} compared;

static int compare_row(void *user_data, size_t index, const float *logits, size_t n_logits) {
    compared *c = (compared *)user_data;
    double d = worst_difference(logits, c->golden + index * n_logits, n_logits);
    if (!(d <= c->worst)) c->worst = d;
    c->rows++;
    return 1;
}

static void logits_are_golden(void) {
    for (size_t m = 0; m < 4; m++) {
        char name[64];
        size_t len;
        snprintf(name, sizeof name, "%s.logits.f32", models[m]);
        char *bytes = read_file(name, &len);
        const float *golden = (const float *)(void *)bytes;
        carat_model *model = open_model(models[m], 2);
        carat_model_info info;
        carat_model_info_init(&info, sizeof info);
        OK(carat_model_get_info(model, &info, &error));
        size_t vocab = info.vocab;
        CHECK(len == n_golden_ids * vocab * sizeof(float));

        carat_session *session = new_session(model, 256, 64);
        compared c = {golden, 0, 0};
        OK(carat_session_prefill_each(session, golden_ids, n_golden_ids, NULL, compare_row, &c, &error));
        CHECK(c.rows == n_golden_ids);
        CHECK(c.worst < 2e-3);
        carat_session_free(session);

        session = new_session(model, 256, 64);
        for (size_t i = 0; i < n_golden_ids; i++) {
            OK(carat_session_step(session, golden_ids[i], NULL, &error));
            carat_logits *logits = NULL;
            size_t n = 0;
            OK(carat_session_logits(session, &logits, &error));
            const float *values = carat_logits_data(logits, &n);
            CHECK(n == vocab);
            CHECK(worst_difference(values, golden + i * vocab, vocab) < 2e-3);
            carat_logits_free(logits);
        }
        carat_session_free(session);
        carat_model_free(model);
        free(bytes);
    }
}

static void logits_that_are_kept_neither_change_nor_dangle(void) {
    carat_model *model = open_model("tiny-gemma3", 1);
    carat_session *session = new_session(model, 64, 16);
    uint32_t ids[8];
    some_ids(ids, 8);
    carat_logits *kept = NULL, *none = NULL;
    EXPECT(CARAT_NO_LOGITS, carat_session_logits(session, &none, &error));
    OK(carat_session_prefill(session, ids, 8, NULL, &error));
    OK(carat_session_logits(session, &kept, &error));
    size_t n;
    const float *values = carat_logits_data(kept, &n);
    float *copy = (float *)malloc(n * sizeof(float));
    if (!copy) exit(1);
    memcpy(copy, values, n * sizeof(float));
    OK(carat_session_step(session, 301, NULL, &error));
    CHECK(memcmp(copy, values, n * sizeof(float)) == 0);
    carat_logits *now = NULL;
    OK(carat_session_logits(session, &now, &error));
    CHECK(memcmp(copy, carat_logits_data(now, NULL), n * sizeof(float)) != 0);
    carat_logits_free(now);
    carat_session_free(session);
    carat_model_free(model);
    CHECK(memcmp(copy, values, n * sizeof(float)) == 0);
    carat_logits_free(kept);
    free(copy);
}

static void text_to_ids_and_back(void) {
    carat_model *model = open_model("tiny-gemma3", 1);
    const char *text = "Hello, world! \xc3\xa9\xf0\x9f\x99\x82 <start_of_turn>";
    uint32_t ids[256];
    size_t n = 0, needed = 0;
    OK(carat_tokenize(model, text, strlen(text), NULL, ids, 256, &n, &error));
    CHECK(n > 0 && n <= strlen(text));
    EXPECT(CARAT_BUFFER_TOO_SMALL, carat_tokenize(model, text, strlen(text), NULL, ids, 1, &needed, &error));
    CHECK(needed == n);

    char back[256];
    size_t len = 0;
    OK(carat_detokenize(model, ids, n, back, sizeof back, &len, &error));
    CHECK(len == strlen(text) && strcmp(back, text) == 0);
    char exact[64];
    memset(exact, 'x', sizeof exact);
    OK(carat_detokenize(model, ids, n, exact, len, NULL, &error));
    CHECK(memcmp(exact, text, len) == 0 && exact[len] == 'x');
    EXPECT(CARAT_BUFFER_TOO_SMALL, carat_detokenize(model, ids, n, exact, len - 1, &needed, &error));
    CHECK(needed == len);

    carat_tokenize_options options;
    carat_tokenize_options_init(&options, sizeof options);
    options.special = 1;
    options.bos = 1;
    size_t special = 0;
    uint32_t with_special[256];
    OK(carat_tokenize(model, text, strlen(text), &options, with_special, 256, &special, &error));
    carat_special_tokens tokens;
    carat_special_tokens_init(&tokens, sizeof tokens);
    OK(carat_model_special_tokens(model, &tokens, &error));
    CHECK(with_special[0] == tokens.bos);
    CHECK(with_special[special - 1] == tokens.start_of_turn);
    uint32_t id = 0;
    int32_t kind = 0;
    OK(carat_token_id(model, "<start_of_turn>", 15, &id, &error));
    CHECK(id == tokens.start_of_turn);
    OK(carat_token_kind(model, id, &kind, &error));
    CHECK(kind == CARAT_PIECE_CONTROL);
    EXPECT(CARAT_TOKEN_OUT_OF_RANGE, carat_token_kind(model, tokens.vocab_size, &kind, &error));

    /* One id at a time gives the same text. */
    carat_decoder *decoder = NULL;
    OK(carat_decoder_new(model, &decoder, &error));
    char streamed[256] = "", piece[2048];
    EXPECT(CARAT_BUFFER_TOO_SMALL, carat_decoder_push(decoder, ids[0], piece, 16, &needed, &error));
    CHECK(needed == sizeof piece);
    for (size_t i = 0; i < n; i++) {
        OK(carat_decoder_push(decoder, ids[i], piece, sizeof piece, &len, &error));
        strncat(streamed, piece, len);
    }
    OK(carat_decoder_flush(decoder, piece, sizeof piece, &len, &error));
    strncat(streamed, piece, len);
    CHECK(strcmp(streamed, text) == 0);
    carat_decoder_free(decoder);

    carat_turn turns[3];
    memset(turns, 0, sizeof turns);
    turns[0].role = CARAT_ROLE_USER;
    turns[0].text.ptr = "Hi";
    turns[0].text.len = 2;
    OK(carat_chat_render(model, turns, 1, NULL, ids, 256, &n, &error));
    CHECK(ids[0] == tokens.bos && ids[1] == tokens.start_of_turn);
    turns[0].role = CARAT_ROLE_MODEL;
    EXPECT(CARAT_CHAT, carat_chat_render(model, turns, 1, NULL, ids, 256, &n, &error));
    turns[0].role = 9;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_chat_render(model, turns, 1, NULL, ids, 256, &n, &error));
    carat_model_free(model);
}

typedef struct collected {
    char text[4096];
    size_t len;
    uint32_t tokens[256];
    size_t n_tokens;
    size_t stop_after;
    size_t n_top;
} collected;

static int collect(void *user_data, const carat_piece *piece) {
    collected *c = (collected *)user_data;
    if (piece->struct_size < sizeof *piece || c->len + piece->text_len >= sizeof c->text) return 0;
    memcpy(c->text + c->len, piece->text, piece->text_len);
    c->len += piece->text_len;
    if (piece->has_token) c->tokens[c->n_tokens++] = piece->token;
    c->n_top += piece->n_top;
    if (piece->n_top) CHECK(piece->top[0].log_prob >= piece->log_prob && piece->log_prob <= 0);
    return c->stop_after == 0 || c->n_tokens < c->stop_after;
}

static int forbid_all_but(void *user_data, const uint32_t *tokens, size_t n_tokens, float *logits, size_t n_logits) {
    int *calls = (int *)user_data;
    (void)tokens;
    CHECK(n_tokens > 0);
    for (size_t i = 0; i < n_logits; i++) logits[i] = i == 333 ? 1.0f : -INFINITY;
    return --*calls > 0;
}

static void generating(void) {
    carat_model *model = open_model("tiny-gemma3", 2);
    uint32_t ids[8];
    some_ids(ids, 8);
    carat_generate_options options;
    carat_generate_options_init(&options, sizeof options);
    options.temperature = 0;
    options.max_tokens = 12;
    options.ignore_end = 1;
    options.top_log_probs = 3;
    carat_summary summary;
    carat_summary_init(&summary, sizeof summary);

    static collected first, second;
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    carat_session *session = new_session(model, 64, 16);
    carat_session *fork = NULL;
    OK(carat_session_fork(session, &fork, &error));
    OK(carat_session_generate(session, ids, 8, &options, collect, &first, &summary, &error));
    CHECK(summary.reason == CARAT_FINISH_LIMIT && summary.generated_tokens == 12 && summary.prompt_tokens == 8);
    CHECK(summary.prompt_ns > 0 && summary.generate_ns > 0);
    CHECK(first.n_tokens == 12 && first.n_top == 36);
    size_t len = 0, context = 0;
    OK(carat_session_len(session, &len, &context, &error));
    CHECK(len == 20 && context == 64);

    /* The same in another session, stopped by the callback, then gone on with. */
    second.stop_after = 5;
    OK(carat_session_generate(fork, ids, 8, &options, collect, &second, &summary, &error));
    CHECK(summary.reason == CARAT_FINISH_CALLBACK && summary.generated_tokens == 5);
    second.stop_after = 0;
    options.max_tokens = 7;
    OK(carat_session_generate(fork, NULL, 0, &options, collect, &second, &summary, &error));
    CHECK(second.n_tokens == 12 && memcmp(first.tokens, second.tokens, sizeof first.tokens) == 0);

    /* A stop string; no part of it comes out. */
    if (first.len > 4) {
        carat_text stop = {first.text + first.len / 2, 2};
        memset(&second, 0, sizeof second);
        OK(carat_session_truncate(fork, 0, &error));
        options.max_tokens = 12;
        options.stop = &stop;
        options.n_stop = 1;
        OK(carat_session_generate(fork, ids, 8, &options, collect, &second, &summary, &error));
        CHECK(summary.reason == CARAT_FINISH_STOP && summary.stop_index == 0);
        CHECK(second.len <= first.len / 2 && memcmp(first.text, second.text, second.len) == 0);
        options.n_stop = 0;
    }

    /* A hook decides, and stops at its third call: two tokens came out. */
    int calls = 3;
    memset(&second, 0, sizeof second);
    OK(carat_session_truncate(fork, 0, &error));
    options.hook = forbid_all_but;
    options.hook_data = &calls;
    OK(carat_session_generate(fork, ids, 8, &options, collect, &second, &summary, &error));
    CHECK(summary.reason == CARAT_FINISH_CALLBACK && summary.generated_tokens == 2);
    CHECK(second.n_tokens == 2 && second.tokens[0] == 333 && second.tokens[1] == 333);
    OK(carat_session_len(fork, &len, NULL, &error));
    CHECK(len == 10);

    /* Options outside their range. */
    options.hook = NULL;
    options.temperature = NAN;
    EXPECT(CARAT_INVALID_OPTION, carat_session_generate(fork, ids, 8, &options, NULL, NULL, NULL, &error));
    options.temperature = 1;
    options.has_seed = 2;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_generate(fork, ids, 8, &options, NULL, NULL, NULL, &error));
    carat_session_free(fork);
    carat_session_free(session);
    carat_model_free(model);
}

static int cancel_at_once(void *user_data, const carat_piece *piece) {
    (void)piece;
    carat_cancel_set((carat_cancel *)user_data);
    return 1;
}

static int look_away(void *user_data, size_t index, const float *logits, size_t n_logits) {
    (void)user_data, (void)index, (void)logits, (void)n_logits;
    return 1;
}

static void an_empty_prompt_needs_logits(void) {
    carat_model *model = open_model("tiny-gemma3", 1);
    carat_session *session = new_session(model, 64, 16);
    uint32_t ids[8], tokens[64];
    some_ids(ids, 8);
    carat_generate_options options;
    carat_generate_options_init(&options, sizeof options);
    options.max_tokens = 1;
    options.ignore_end = 1;
    carat_logits *logits = NULL;

    OK(carat_session_prefill_each(session, ids, 8, NULL, look_away, NULL, &error));
    EXPECT(CARAT_NO_LOGITS, carat_session_logits(session, &logits, &error));
    EXPECT(CARAT_EMPTY_PROMPT, carat_session_generate(session, NULL, 0, &options, NULL, NULL, NULL, &error));
    OK(carat_session_step(session, 301, NULL, &error));
    OK(carat_session_logits(session, &logits, &error));
    carat_logits_free(logits);
    OK(carat_session_generate(session, NULL, 0, &options, NULL, NULL, NULL, &error));
    OK(carat_session_logits(session, &logits, &error));
    carat_logits_free(logits);

    /* Cancelled while the token was being added: the session lacks it. */
    carat_summary summary;
    carat_summary_init(&summary, sizeof summary);
    carat_cancel *cancel = carat_cancel_new();
    options.cancel = cancel;
    options.max_tokens = 9;
    OK(carat_session_generate(session, NULL, 0, &options, cancel_at_once, cancel, &summary, &error));
    CHECK(summary.reason == CARAT_FINISH_CANCELLED && summary.generated_tokens == 1);
    size_t n = 0;
    OK(carat_session_tokens(session, tokens, 64, &n, &error));
    CHECK(n == 10);
    options.cancel = NULL;
    EXPECT(CARAT_NO_LOGITS, carat_session_logits(session, &logits, &error));
    EXPECT(CARAT_EMPTY_PROMPT, carat_session_generate(session, NULL, 0, &options, NULL, NULL, NULL, &error));
    OK(carat_session_generate(session, ids + 1, 1, &options, NULL, NULL, NULL, &error));
    carat_cancel_free(cancel);
    carat_session_free(session);
    carat_model_free(model);
}

static void scoring(void) {
    carat_model *model = open_model("tiny-gemma2", 1);
    carat_session *session = new_session(model, 64, 16);
    uint32_t ids[20];
    some_ids(ids, 20);
    carat_token_score scores[20];
    size_t n = 0;
    EXPECT(CARAT_BUFFER_TOO_SMALL, carat_session_score(session, ids, 20, 1, NULL, scores, 18, &n, &error));
    CHECK(n == 19);
    OK(carat_session_score(session, ids, 20, 1, NULL, scores, 20, &n, &error));
    CHECK(n == 19);
    for (size_t i = 0; i < n; i++) {
        CHECK(scores[i].token == ids[i + 1] && scores[i].log_prob <= 0 && scores[i].rank < 768);
    }
    carat_session_free(session);
    carat_model_free(model);
}

static void guessing_ahead_changes_nothing(void) {
    carat_model *model = open_model("tiny-gemma3", 1);
    uint32_t ids[8];
    some_ids(ids, 8);
    carat_generate_options options;
    carat_generate_options_init(&options, sizeof options);
    options.temperature = 0;
    options.max_tokens = 40;
    options.ignore_end = 1;
    /* Always the same word: it is guessed. */
    carat_logit_bias again = {400, 40};
    options.logit_bias = &again;
    options.n_logit_bias = 1;
    carat_session_options with_drafts;
    carat_session_options_init(&with_drafts, sizeof with_drafts);
    CHECK(with_drafts.draft == 0);
    with_drafts.context = 64;
    with_drafts.draft = 15;
    carat_session *session = new_session(model, 64, 256), *drafting = NULL;
    OK(carat_session_new(model, &with_drafts, &drafting, &error));

    static collected first, second;
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    carat_summary summary;
    carat_summary_init(&summary, sizeof summary);
    OK(carat_session_generate(session, ids, 8, &options, collect, &first, &summary, &error));
    CHECK(summary.drafted_tokens == 0 && summary.accepted_tokens == 0);
    OK(carat_session_generate(drafting, ids, 8, &options, collect, &second, &summary, &error));
    CHECK(summary.accepted_tokens > 0 && summary.accepted_tokens <= summary.drafted_tokens);
    CHECK(first.n_tokens == 40 && second.n_tokens == 40);
    CHECK(memcmp(first.tokens, second.tokens, sizeof first.tokens) == 0);

    carat_session *none = NULL;
    with_drafts.draft = 16;
    EXPECT(CARAT_INVALID_OPTION, carat_session_new(model, &with_drafts, &none, &error));
    carat_session_free(session);
    carat_session_free(drafting);
    carat_model_free(model);
}

static void saving_and_loading(void) {
    carat_model *model = open_model("tiny-gemma3", 1);
    carat_session *session = new_session(model, 64, 16), *loaded = NULL;
    uint32_t ids[20], back[64];
    some_ids(ids, 20);
    OK(carat_session_prefill(session, ids, 20, NULL, &error));
    const char *path = "carat-c-test.state";
    OK(carat_session_save(session, path, strlen(path), NULL, &error));
    carat_session_options options;
    carat_session_options_init(&options, sizeof options);
    options.context = 64;
    OK(carat_session_load(model, path, strlen(path), &options, NULL, &loaded, &error));
    size_t n = 0;
    OK(carat_session_tokens(loaded, back, 64, &n, &error));
    CHECK(n == 20 && memcmp(ids, back, sizeof ids) == 0);
    carat_logits *a = NULL, *b = NULL;
    OK(carat_session_step(session, 345, NULL, &error));
    OK(carat_session_step(loaded, 345, NULL, &error));
    OK(carat_session_logits(session, &a, &error));
    OK(carat_session_logits(loaded, &b, &error));
    const float *of_a = carat_logits_data(a, &n), *of_b = carat_logits_data(b, NULL);
    CHECK(memcmp(of_a, of_b, n * sizeof(float)) == 0);
    carat_logits_free(a);
    carat_logits_free(b);
    carat_session_free(loaded);

    carat_model *other = open_model("tiny-gemma2", 1);
    EXPECT(CARAT_STATE, carat_session_load(other, path, strlen(path), NULL, NULL, &loaded, &error));
    EXPECT(CARAT_IO, carat_session_load(model, "no/such", 7, NULL, NULL, &loaded, &error));
    EXPECT(CARAT_IO, carat_session_save(session, "no/such", 7, NULL, &error));
    remove(path);

    /* Windows of 16 positions do not let a text be cut anywhere. */
    carat_error *error = NULL;
    uint32_t more[200];
    some_ids(more, 200);
    carat_session_free(session);
    session = new_session(model, 256, 16);
    OK(carat_session_prefill(session, more, 200, NULL, &error));
    carat_status status = carat_session_truncate(session, 3, &error);
    CHECK(status == CARAT_REWIND && carat_error_nearest(error) > 3);
    size_t nearest = (size_t)carat_error_nearest(error);
    carat_error_free(error);
    OK(carat_session_truncate(session, nearest, &error));
    OK(carat_session_trim(session, &error));
    carat_session_free(session);
    carat_model_free(other);
    carat_model_free(model);
}

static void conversing(void) {
    carat_model *model = open_model("tiny-gemma3", 1);
    carat_session *session = new_session(model, 256, 64), *back = NULL;
    carat_conversation *talk = NULL, *again = NULL;
    OK(carat_conversation_new(session, "Be brief.", 9, &talk, &error));
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_trim(session, &error)); /* its contents are the conversation's */
    carat_session_free(session);
    carat_generate_options options;
    carat_generate_options_init(&options, sizeof options);
    options.temperature = 0;
    options.max_tokens = 8;
    options.ignore_end = 1;
    static collected first, second;
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    carat_summary summary;
    carat_summary_init(&summary, sizeof summary);
    OK(carat_conversation_send(talk, "Hello", 5, &options, collect, &first, &summary, &error));
    CHECK(summary.generated_tokens == 8 && summary.reused_tokens == 0);
    OK(carat_conversation_regenerate(talk, &options, collect, &second, &summary, &error));
    CHECK(first.len == second.len && memcmp(first.text, second.text, first.len) == 0);
    CHECK(summary.reused_tokens > 0);
    size_t n = 0, len = 0;
    OK(carat_conversation_n_turns(talk, &n, &error));
    CHECK(n == 2);
    int32_t role = -1;
    char text[4096];
    OK(carat_conversation_turn(talk, 0, &role, text, sizeof text, &len, &error));
    CHECK(role == CARAT_ROLE_USER && strcmp(text, "Hello") == 0);
    OK(carat_conversation_turn(talk, 1, &role, text, sizeof text, &len, &error));
    CHECK(role == CARAT_ROLE_MODEL && len == first.len && memcmp(text, first.text, len) == 0);
    EXPECT(CARAT_INVALID_ARGUMENT, carat_conversation_turn(talk, 2, NULL, text, sizeof text, &len, &error));
    OK(carat_conversation_system(talk, text, sizeof text, &len, &error));
    CHECK(strcmp(text, "Be brief.") == 0);
    OK(carat_conversation_edit_last(talk, "Bye", 3, &options, NULL, NULL, &summary, &error));
    options.hook = forbid_all_but;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_conversation_send(talk, "x", 1, &options, NULL, NULL, NULL, &error));
    options.hook = NULL;

    carat_turn turns[2];
    memset(turns, 0, sizeof turns);
    turns[0].role = CARAT_ROLE_SYSTEM;
    turns[0].text.ptr = "Be brief.";
    turns[0].text.len = 9;
    turns[1].role = CARAT_ROLE_USER;
    turns[1].text.ptr = "Hello";
    turns[1].text.len = 5;
    memset(&second, 0, sizeof second);
    OK(carat_conversation_respond(talk, turns, 2, &options, collect, &second, &summary, &error));
    CHECK(memcmp(first.text, second.text, first.len) == 0);

    const char *path = "carat-c-talk.state";
    OK(carat_conversation_save(talk, path, strlen(path), NULL, &error));
    OK(carat_conversation_set_policy(talk, CARAT_POLICY_DROP_OLDEST, &error));
    EXPECT(CARAT_INVALID_ARGUMENT, carat_conversation_set_policy(talk, 7, &error));
    /* A small context is soon full: the oldest turns are dropped, and said to be. */
    int dropped = 0;
    for (int i = 0; i < 40 && !dropped; i++) {
        OK(carat_conversation_send(talk, "And then?", 9, &options, NULL, NULL, NULL, &error));
        dropped = carat_conversation_dropped(talk, 0, &role, text, sizeof text, &len, NULL) == CARAT_OK;
    }
    CHECK(dropped && role == CARAT_ROLE_USER && strcmp(text, "Hello") == 0);
    OK(carat_conversation_set_system(talk, NULL, 0, &error));
    OK(carat_conversation_reset(talk, &error));
    OK(carat_conversation_n_turns(talk, &n, &error));
    CHECK(n == 0);
    OK(carat_conversation_trim(talk, &error));
    OK(carat_conversation_into_session(talk, &back, &error));
    EXPECT(CARAT_INVALID_ARGUMENT, carat_conversation_reset(talk, &error));
    carat_session_free(back);
    carat_conversation_free(talk);

    carat_session_options session_options;
    carat_session_options_init(&session_options, sizeof session_options);
    session_options.context = 256;
    OK(carat_conversation_load(model, path, strlen(path), &session_options, NULL, &again, &error));
    OK(carat_conversation_system(again, text, sizeof text, &len, &error));
    CHECK(strcmp(text, "Be brief.") == 0);
    OK(carat_conversation_turn(again, 0, &role, text, sizeof text, &len, &error));
    CHECK(role == CARAT_ROLE_USER && strcmp(text, "Hello") == 0);
    OK(carat_conversation_regenerate(again, &options, NULL, NULL, &summary, &error));
    CHECK(summary.reused_tokens > 0);
    carat_conversation_free(again);
    OK(carat_session_load(model, path, strlen(path), &session_options, NULL, &back, &error));
    OK(carat_conversation_resume(back, &again, &error));
    carat_session_free(back);
    OK(carat_conversation_n_turns(again, &n, &error));
    CHECK(n == 2);
    carat_conversation_free(again);
    remove(path);
    carat_model_free(model);
}

static int count_progress(void *user_data, uint64_t done, uint64_t total) {
    int *calls = (int *)user_data;
    CHECK(done <= total);
    ++*calls;
    return 1;
}

static int stop_progress(void *user_data, uint64_t done, uint64_t total) {
    (void)user_data, (void)done, (void)total;
    return 0;
}

static void log_length(void *user_data, int32_t level, const char *text, size_t len) {
    CHECK(level == CARAT_LOG_INFO || level == CARAT_LOG_WARN);
    CHECK(text && len);
    *(size_t *)user_data += len;
}

static void release_bytes(void *user_data) { ++*(int *)user_data; }

static void opening(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/tiny-gemma3.gguf", data_dir);
    carat_model_options options;
    carat_model_options_init(&options, sizeof options);
    int calls = 0;
    size_t logged = 0;
    options.progress = count_progress;
    options.progress_data = &calls;
    options.log = log_length;
    options.log_data = &logged;
    options.preload = 1;
    options.isa = CARAT_ISA_SCALAR;
    options.threads = 1;
    options.lock = 1;
    carat_model *model = NULL;
    OK(carat_model_open(path, strlen(path), &options, &model, &error));
    CHECK(calls > 0 && logged > 0);
    carat_model_info info;
    carat_model_info_init(&info, sizeof info);
    OK(carat_model_get_info(model, &info, &error));
    CHECK(info.arch == CARAT_ARCH_GEMMA3 && info.isa == CARAT_ISA_SCALAR && info.threads == 1);
    CHECK(info.memory_lock == CARAT_MEMORY_LOCKED || info.memory_lock == CARAT_MEMORY_LOCK_REFUSED);
    CHECK(strcmp(carat_isa_name(info.isa), "scalar") == 0 && carat_isa_available(CARAT_ISA_SCALAR) == 1);
    char text[256];
    size_t len = 0;
    OK(carat_model_metadata(model, "general.architecture", 20, text, sizeof text, &len, &error));
    CHECK(strcmp(text, "gemma3") == 0);
    EXPECT(CARAT_METADATA, carat_model_metadata(model, "no.such", 7, text, sizeof text, &len, &error));
    EXPECT(CARAT_UNSUPPORTED, carat_model_metadata(model, "tokenizer.ggml.tokens", 21, text, sizeof text, &len, &error));
    carat_tensor_info tensor;
    carat_tensor_info_init(&tensor, sizeof tensor);
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < info.n_tensors; i++) {
        OK(carat_model_tensor(model, i, &tensor, &error));
        CHECK(tensor.name_len > 0 && tensor.n_dims >= 1 && tensor.offset + tensor.size <= info.file_bytes);
        bytes += tensor.size;
    }
    CHECK(bytes > 0);
    EXPECT(CARAT_INVALID_ARGUMENT, carat_model_tensor(model, info.n_tensors, &tensor, &error));
    carat_plan plan, same;
    carat_plan_init(&plan, sizeof plan);
    carat_plan_init(&same, sizeof same);
    OK(carat_model_plan(path, strlen(path), 1, NULL, &plan, &error));
    OK(carat_model_plan_session(model, NULL, &same, &error));
    CHECK(plan.total == same.total && plan.total > plan.file && plan.file == info.file_bytes);
    carat_model_free(model);

    model = NULL;
    options.progress = stop_progress;
    EXPECT(CARAT_CANCELLED, carat_model_open(path, strlen(path), &options, &model, &error));
    carat_model_options_init(&options, sizeof options);
    carat_cancel *cancel = carat_cancel_new(), *clone = carat_cancel_clone(cancel);
    carat_cancel_set(clone);
    carat_cancel_free(clone);
    CHECK(carat_cancel_is_set(cancel));
    options.cancel = cancel;
    EXPECT(CARAT_CANCELLED, carat_model_open(path, strlen(path), &options, &model, &error));
    carat_cancel_free(cancel);
    options.cancel = NULL;
    options.isa = 99;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_model_open(path, strlen(path), &options, &model, &error));
    options.isa = 0;
    options.threads = -1;
    EXPECT(CARAT_INVALID_OPTION, carat_model_open(path, strlen(path), &options, &model, &error));
    EXPECT(CARAT_IO, carat_model_open("no/such", 7, NULL, &model, &error));
    EXPECT(CARAT_INVALID_ARGUMENT, carat_model_open(path, strlen(path), NULL, NULL, &error));
    CHECK(model == NULL);

    /* From memory that is lent: given back once, also by a failure. */
    size_t size;
    char *file = read_file("tiny-gemma3.gguf", &size);
    int released = 0;
    OK(carat_model_open_bytes((uint8_t *)file, size, release_bytes, &released, NULL, &model, &error));
    carat_session *session = new_session(model, 32, 16);
    carat_model_free(model);
    OK(carat_session_step(session, 2, NULL, &error));
    CHECK(released == 0);
    carat_session_free(session);
    CHECK(released == 1);
    EXPECT(CARAT_TENSOR, carat_model_open_bytes((uint8_t *)file, size / 2, release_bytes, &released, NULL, &model, &error));
    CHECK(released == 2);
    free(file);

    /* A descriptor, from the middle of a file. */
#ifndef _WIN32
    FILE *f = fopen(path, "rb");
    if (f) {
        extern int fileno(FILE *);
        model = NULL;
        OK(carat_model_open_fd(fileno(f), 0, UINT64_MAX, NULL, &model, &error));
        EXPECT(CARAT_FORMAT, carat_model_open_fd(fileno(f), 64, UINT64_MAX, NULL, &model, &error));
        EXPECT(CARAT_INVALID_OPTION, carat_model_open_fd(fileno(f), 1u << 30, UINT64_MAX, NULL, &model, &error));
        fclose(f);
        carat_model_free(model);
    }
#endif
    EXPECT(CARAT_INVALID_ARGUMENT, carat_model_open_fd(-1, 0, UINT64_MAX, NULL, &model, &error));
    EXPECT(CARAT_IO, carat_model_open_fd(9999, 0, UINT64_MAX, NULL, &model, &error));
}

static void limits(void) {
    carat_limits limits;
    carat_limits_init(&limits, sizeof limits);
    OK(carat_limits_measure(1, CARAT_ISA_AUTO, &limits, &error));
    CHECK(limits.read_bytes_per_s > 0 && limits.dot_macs_per_s > 0 && limits.fma_macs_per_s > 0);
}

static void versions(void) {
    CHECK(carat_abi_version() >= CARAT_ABI_VERSION);
    CHECK(strchr(carat_version(), '.') != NULL);
    CHECK(strcmp(carat_status_name(CARAT_IO), "CARAT_IO") == 0);
    CHECK(strcmp(carat_status_name(-5), "CARAT_?") == 0);
    for (int i = CARAT_OK; i <= CARAT_NO_LOGITS; i++) CHECK(strcmp(carat_status_name(i), "CARAT_?") != 0);
    CHECK(carat_error_message(NULL)[0] == 0 && carat_error_status(NULL) == CARAT_OK);
}

int main(int argc, char **argv) {
    static const test tests[] = {
        {"logits_are_golden", logits_are_golden},
        {"logits_that_are_kept_neither_change_nor_dangle", logits_that_are_kept_neither_change_nor_dangle},
        {"text_to_ids_and_back", text_to_ids_and_back},
        {"generating", generating},
        {"scoring", scoring},
        {"an_empty_prompt_needs_logits", an_empty_prompt_needs_logits},
        {"guessing_ahead_changes_nothing", guessing_ahead_changes_nothing},
        {"saving_and_loading", saving_and_loading},
        {"conversing", conversing},
        {"opening", opening},
        {"limits", limits},
        {"versions", versions},
    };
    if (argc > 1) data_dir = argv[1];
    read_golden_ids();
    return RUN(tests);
}
