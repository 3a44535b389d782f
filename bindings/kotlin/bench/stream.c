/* Microseconds a token of the C interface: what bench/Stream.kt is compared with.
 * usage: stream MODEL [TOKENS [ROUNDS]] */
#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "carat.h"

static int32_t count(void *data, const carat_piece *piece) {
    *(uint64_t *)data += piece->has_token;
    return 1;
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    uint64_t tokens = argc > 2 ? strtoull(argv[2], NULL, 10) : 2000, seen = 0;
    int rounds = argc > 3 ? atoi(argv[3]) : 7;
    const uint32_t prompt[] = {2, 300, 301, 302};
    double best = 1e300;

    carat_model_options m;
    carat_model_options_init(&m, sizeof m);
    m.threads = 1;
    carat_session_options s;
    carat_session_options_init(&s, sizeof s);
    s.context = tokens + 16;
    carat_generate_options g;
    carat_generate_options_init(&g, sizeof g);
    g.max_tokens = tokens;
    g.temperature = 0;
    g.ignore_end = 1;

    carat_model *model = NULL;
    carat_session *session = NULL;
    if (carat_model_open(argv[1], strlen(argv[1]), &m, &model, NULL) || carat_session_new(model, &s, &session, NULL)) return 1;
    for (int i = 0; i < rounds; i++) {
        if (carat_session_truncate(session, 0, NULL)) return 1;
        double start = now_us();
        if (carat_session_generate(session, prompt, 4, &g, count, &seen, NULL, NULL)) return 1;
        double took = (now_us() - start) / (double)tokens;
        if (took < best) best = took;
    }
    if (seen != tokens * (uint64_t)rounds) return 1;
    printf("c %.2f us a token\n", best);
    carat_session_free(session);
    carat_model_free(model);
    return 0;
}
