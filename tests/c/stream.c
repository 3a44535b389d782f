/* As benches/stream.rs, over carat.h. usage: stream MODEL */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "carat.h"

enum { TOKENS = 200, ROUNDS = 25 };

static int32_t on_piece(void *bytes, const carat_piece *piece) {
    *(size_t *)bytes += piece->text_len;
    return 1;
}

static int ascending(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

static void must(carat_status status) {
    if (status == CARAT_OK) return;
    fprintf(stderr, "%s\n", carat_status_name(status));
    exit(1);
}

int main(int argc, char **argv) {
    const uint32_t prompt[] = {2, 300, 301};
    carat_model_options model_options;
    carat_session_options session_options;
    carat_generate_options options;
    carat_model *model = NULL;
    double took[ROUNDS];
    size_t bytes = 0;
    if (argc != 2) return 2;
    carat_model_options_init(&model_options, sizeof model_options);
    model_options.threads = 1;
    must(carat_model_open(argv[1], strlen(argv[1]), &model_options, &model, NULL));
    carat_session_options_init(&session_options, sizeof session_options);
    session_options.context = 256;
    carat_generate_options_init(&options, sizeof options);
    options.temperature = 0;
    options.max_tokens = TOKENS;
    options.ignore_end = 1;
    for (int i = 0; i < ROUNDS; i++) {
        struct timespec began, ended;
        carat_session *session = NULL;
        must(carat_session_new(model, &session_options, &session, NULL));
        must(carat_session_prefill(session, prompt, 3, NULL, NULL));
        clock_gettime(CLOCK_MONOTONIC, &began);
        must(carat_session_generate(session, NULL, 0, &options, on_piece, &bytes, NULL, NULL));
        clock_gettime(CLOCK_MONOTONIC, &ended);
        took[i] = ((double)(ended.tv_sec - began.tv_sec) * 1e6 + (double)(ended.tv_nsec - began.tv_nsec) / 1e3) / TOKENS;
        carat_session_free(session);
    }
    carat_model_free(model);
    qsort(took, ROUNDS, sizeof *took, ascending);
    printf("C: callback: %.2f\n", took[ROUNDS / 2]);
    return bytes == 0;
}
