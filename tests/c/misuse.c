/* Wrong use is an error or nothing at all, never undefined. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

typedef struct nested {
    carat_session *session;
    int freed;
    carat_status from_callback;
    carat_status len_from_callback;
    int pieces;
} nested;

static int use_the_session(void *user_data, const carat_piece *piece) {
    nested *n = (nested *)user_data;
    (void)piece;
    n->pieces++;
    n->from_callback = carat_session_step(n->session, 301, NULL, NULL);
    n->len_from_callback = carat_session_len(n->session, NULL, NULL, NULL);
    return 1;
}

static int free_the_session(void *user_data, const carat_piece *piece) {
    nested *n = (nested *)user_data;
    (void)piece;
    if (!n->freed) carat_session_free(n->session);
    n->freed = 1;
    n->pieces++;
    return 1;
}

static carat_generate_options few(void) {
    carat_generate_options options;
    carat_generate_options_init(&options, sizeof options);
    options.temperature = 0;
    options.max_tokens = 4;
    options.ignore_end = 1;
    return options;
}

static void a_callback_calls_its_session(void) {
    carat_model *model = open_model("tiny-gemma3", 2);
    nested n = {new_session(model, 64, 16), 0, 0, 0, 0};
    uint32_t ids[4];
    some_ids(ids, 4);
    carat_generate_options options = few();
    OK(carat_session_generate(n.session, ids, 4, &options, use_the_session, &n, NULL, &error));
    CHECK(n.pieces >= 4 && n.from_callback == CARAT_BUSY && n.len_from_callback == CARAT_BUSY);
    OK(carat_session_step(n.session, 301, NULL, &error));
    carat_session_free(n.session);
    carat_model_free(model);
}

static void a_callback_frees_its_session(void) {
    carat_model *model = open_model("tiny-gemma3", 2);
    nested n = {new_session(model, 64, 16), 0, 0, 0, 0};
    uint32_t ids[4];
    some_ids(ids, 4);
    carat_generate_options options = few();
    OK(carat_session_generate(n.session, ids, 4, &options, free_the_session, &n, NULL, &error));
    CHECK(n.pieces >= 4);
    carat_model_free(model);
}

typedef struct shared {
    carat_session *session;
    carat_cancel *cancel;
    int reached;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} shared;

static int report(void *user_data, const carat_piece *piece) {
    shared *s = (shared *)user_data;
    (void)piece;
    pthread_mutex_lock(&s->lock);
    s->reached = 1;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return 1;
}

static void *generate_long(void *user_data) {
    shared *s = (shared *)user_data;
    uint32_t ids[4];
    some_ids(ids, 4);
    carat_generate_options options = few();
    options.max_tokens = UINT64_MAX;
    options.cancel = s->cancel;
    carat_summary summary;
    carat_summary_init(&summary, sizeof summary);
    OK(carat_session_generate(s->session, ids, 4, &options, report, s, &summary, &error));
    CHECK(summary.reason == CARAT_FINISH_CANCELLED || summary.reason == CARAT_FINISH_CONTEXT_FULL);
    return NULL;
}

static void wait_for_a_piece(shared *s) {
    pthread_mutex_lock(&s->lock);
    while (!s->reached) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void cancelled_and_freed_from_another_thread(void) {
    carat_model *model = open_model("tiny-gemma3", 1);
    for (int i = 0; i < 8; i++) {
        shared s = {new_session(model, 256, 16), carat_cancel_new(), 0, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};
        pthread_t thread;
        pthread_create(&thread, NULL, generate_long, &s);
        wait_for_a_piece(&s);
        carat_status status = carat_session_step(s.session, 301, NULL, NULL);
        CHECK(status == CARAT_BUSY || status == CARAT_OK || status == CARAT_CONTEXT_FULL);
        carat_cancel_set(s.cancel);
        carat_cancel_free(s.cancel);
        carat_session_free(s.session); /* perhaps during the call, which ends first */
        pthread_join(thread, NULL);
    }
    carat_model_free(model);
}

static void *generate_some(void *user_data) {
    carat_session *session = (carat_session *)user_data;
    uint32_t ids[40];
    some_ids(ids, 40);
    carat_generate_options options = few();
    options.max_tokens = 30;
    OK(carat_session_generate(session, ids, 40, &options, NULL, NULL, NULL, &error));
    return NULL;
}

static void two_sessions_in_two_threads(void) {
    carat_model *model = open_model("tiny-gemma2", 2);
    carat_session *a = new_session(model, 128, 16), *b = new_session(model, 128, 32);
    carat_model_free(model); /* the sessions keep it */
    pthread_t one, two;
    pthread_create(&one, NULL, generate_some, a);
    pthread_create(&two, NULL, generate_some, b);
    pthread_join(one, NULL);
    pthread_join(two, NULL);
    uint32_t of_a[128], of_b[128];
    size_t n_a = 0, n_b = 0;
    OK(carat_session_tokens(a, of_a, 128, &n_a, &error));
    OK(carat_session_tokens(b, of_b, 128, &n_b, &error));
    CHECK(n_a == 70 && n_a == n_b && memcmp(of_a, of_b, n_a * sizeof of_a[0]) == 0);
    carat_session_free(a);
    carat_session_free(b);
}

/* A struct of an older header ends where a page ends that may not be touched. */
static void nothing_is_touched_past_an_older_struct(void) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *pages = (char *)mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    CHECK(mprotect(pages + page, page, PROT_NONE) == 0);
    carat_model *model = open_model("tiny-gemma3", 1);
    carat_session *session = new_session(model, 64, 16);
    uint32_t ids[4];
    some_ids(ids, 4);

    size_t old_options = offsetof(carat_generate_options, logit_bias);
    carat_generate_options *options = (carat_generate_options *)(void *)(pages + page - old_options);
    carat_generate_options_init(options, old_options);
    CHECK(options->struct_size == old_options && options->top_k == 64);
    options->max_tokens = 3;
    options->temperature = 0;
    options->ignore_end = 1;
    OK(carat_session_generate(session, ids, 4, options, NULL, NULL, NULL, &error));
    size_t len = 0;
    OK(carat_session_len(session, &len, NULL, &error));
    CHECK(len == 7);

    size_t old_summary = offsetof(carat_summary, prompt_ns);
    carat_summary *summary = (carat_summary *)(void *)(pages + page - old_summary);
    carat_summary_init(summary, old_summary);
    carat_generate_options now = few();
    now.max_tokens = 2;
    OK(carat_session_generate(session, NULL, 0, &now, NULL, NULL, summary, &error));
    CHECK(summary->generated_tokens == 2 && summary->struct_size == old_summary);

    size_t old_info = offsetof(carat_model_info, n_kv_heads);
    carat_model_info *info = (carat_model_info *)(void *)(pages + page - old_info);
    carat_model_info_init(info, old_info);
    OK(carat_model_get_info(model, info, &error));
    CHECK(info->n_layers > 0 && info->n_heads > 0);

    /* Sizes that none had, and a newer struct that asks for what is not known. */
    now.struct_size = 3;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_generate(session, NULL, 0, &now, NULL, NULL, NULL, &error));
    struct {
        carat_session_options known;
        uint64_t unknown;
    } newer;
    carat_session_options_init(&newer.known, sizeof newer);
    CHECK(newer.unknown == 0);
    carat_session *made = NULL;
    newer.known.context = 32;
    OK(carat_session_new(model, &newer.known, &made, &error));
    carat_session_free(made);
    newer.unknown = 1;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_new(model, &newer.known, &made, &error));
    carat_session_free(session);
    carat_model_free(model);
    munmap(pages, 2 * page);
}

static void null_and_nonsense(void) {
    carat_model *model = open_model("tiny-gemma3", 1);
    carat_session *session = new_session(model, 64, 16);
    uint32_t ids[4];
    some_ids(ids, 4);
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_prefill(NULL, ids, 4, NULL, &error));
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_prefill(session, NULL, 4, NULL, &error));
    EXPECT(CARAT_EMPTY_PROMPT, carat_session_prefill(session, NULL, 0, NULL, &error));
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_prefill(session, ids, (size_t)-1, NULL, &error));
    ids[2] = 1000000;
    EXPECT(CARAT_TOKEN_OUT_OF_RANGE, carat_session_prefill(session, ids, 4, NULL, &error));
    EXPECT(CARAT_TOKEN_OUT_OF_RANGE, carat_session_step(session, 1000000, NULL, &error));
    uint32_t many[65];
    some_ids(many, 65);
    EXPECT(CARAT_PROMPT_TOO_LONG, carat_session_prefill(session, many, 65, NULL, &error));
    OK(carat_session_prefill(session, many, 64, NULL, &error));
    EXPECT(CARAT_CONTEXT_FULL, carat_session_step(session, 301, NULL, &error));
    EXPECT(CARAT_INVALID_OPTION, carat_session_truncate(session, 65, &error));
    carat_session_options options;
    carat_session_options_init(&options, sizeof options);
    carat_session *made = NULL;
    options.kv = 44;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_new(model, &options, &made, &error));
    options.kv = CARAT_KV_Q8_0;
    options.exact = 2;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_session_new(model, &options, &made, &error));
    options.exact = 0;
    options.context = UINT64_MAX;
    EXPECT(CARAT_INVALID_OPTION, carat_session_new(model, &options, &made, &error));
    CHECK(made == NULL);
    carat_conversation *talk = NULL;
    EXPECT(CARAT_INVALID_ARGUMENT, carat_conversation_new(session, "\xff", 1, &talk, &error));
    carat_session_free(NULL);
    carat_model_free(NULL);
    carat_cancel_free(NULL);
    carat_cancel_set(NULL);
    carat_error_free(NULL);
    carat_logits_free(NULL);
    carat_decoder_free(NULL);
    carat_conversation_free(NULL);
    carat_session_free(session);
    carat_model_free(model);
}

int main(int argc, char **argv) {
    static const test tests[] = {
        {"a_callback_calls_its_session", a_callback_calls_its_session},
        {"a_callback_frees_its_session", a_callback_frees_its_session},
        {"cancelled_and_freed_from_another_thread", cancelled_and_freed_from_another_thread},
        {"two_sessions_in_two_threads", two_sessions_in_two_threads},
        {"nothing_is_touched_past_an_older_struct", nothing_is_touched_past_an_older_struct},
        {"null_and_nonsense", null_and_nonsense},
    };
    if (argc > 1) data_dir = argv[1];
    return RUN(tests);
}
