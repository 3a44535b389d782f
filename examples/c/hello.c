/* Continues a text: carat-hello MODEL.gguf "The capital of France is" */
#include <stdio.h>
#include <string.h>

#include "carat.h"

static int print_piece(void *user_data, const carat_piece *piece) {
    (void)user_data;
    fwrite(piece->text, 1, piece->text_len, stdout);
    fflush(stdout);
    return 1; /* 0 would stop */
}

static int fail(carat_error *error) {
    fprintf(stderr, "%s: %s\n", carat_status_name(carat_error_status(error)), carat_error_message(error));
    carat_error_free(error);
    return 1;
}

int main(int argc, char **argv) {
    carat_error *error = NULL;
    carat_model *model = NULL;
    carat_session *session = NULL;
    carat_tokenize_options with_bos;
    carat_generate_options options;
    uint32_t ids[1024];
    size_t n = 0;
    int result = 0;
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL.gguf TEXT\n", argv[0]);
        return 2;
    }

    carat_tokenize_options_init(&with_bos, sizeof with_bos);
    with_bos.bos = 1;
    carat_generate_options_init(&options, sizeof options);
    options.max_tokens = 32;
    options.temperature = 0;

    if (carat_model_open(argv[1], strlen(argv[1]), NULL, &model, &error) ||
        carat_tokenize(model, argv[2], strlen(argv[2]), &with_bos, ids, 1024, &n, &error) ||
        carat_session_new(model, NULL, &session, &error) ||
        carat_session_generate(session, ids, n, &options, print_piece, NULL, NULL, &error)) {
        result = fail(error);
    }
    putchar('\n');
    carat_session_free(session);
    carat_model_free(model);
    return result;
}
