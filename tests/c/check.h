/* What the C tests share: each test program is a list of functions, and prints how many passed. */
#ifndef CHECK_H
#define CHECK_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "carat.h"

static int failures_of_test;

#define CHECK(condition)                                                                     \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            printf("  %s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                 \
            failures_of_test++;                                                              \
        }                                                                                    \
    } while (0)

/* Fails unless `call`, which is given &error, returns `expected`. */
#define EXPECT(expected, call)                                                               \
    do {                                                                                     \
        carat_error *error = NULL;                                                           \
        carat_status status_ = (call);                                                       \
        if (status_ != (expected)) {                                                         \
            printf("  %s:%d: %s, expected %s: %s\n", __FILE__, __LINE__,                     \
                   carat_status_name(status_), carat_status_name(expected),                  \
                   carat_error_message(error));                                              \
            failures_of_test++;                                                              \
        }                                                                                    \
        if ((status_ == CARAT_OK) != (error == NULL)) {                                      \
            printf("  %s:%d: an error object without an error, or none\n", __FILE__, __LINE__); \
            failures_of_test++;                                                              \
        }                                                                                    \
        carat_error_free(error);                                                             \
    } while (0)

#define OK(call) EXPECT(CARAT_OK, call)

typedef struct test {
    const char *name;
    void (*run)(void);
} test;

static int run_tests(const test *tests, size_t n) {
    int passed = 0, failed = 0;
    for (size_t i = 0; i < n; i++) {
        failures_of_test = 0;
        tests[i].run();
        printf("%s %s\n", failures_of_test ? "FAILED" : "ok    ", tests[i].name);
        if (failures_of_test) failed++; else passed++;
        fflush(stdout);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

/* Not every program uses all that follows. */
#if defined(__GNUC__)
#define SHARED static __attribute__((unused))
#else
#define SHARED static
#endif

#define RUN(tests) run_tests(tests, sizeof(tests) / sizeof((tests)[0]))

/* The folder of the golden data: the program's argument. */
static const char *data_dir = "tests/data";

SHARED carat_model *open_model(const char *name, int threads) {
    char path[4096];
    carat_model_options options;
    carat_model *model = NULL;
    snprintf(path, sizeof path, "%s/%s.gguf", data_dir, name);
    carat_model_options_init(&options, sizeof options);
    options.threads = threads;
    OK(carat_model_open(path, strlen(path), &options, &model, &error));
    if (!model) exit(1);
    return model;
}

SHARED carat_session *new_session(const carat_model *model, uint64_t context, uint32_t batch) {
    carat_session_options options;
    carat_session *session = NULL;
    carat_session_options_init(&options, sizeof options);
    options.context = context;
    options.batch = batch;
    OK(carat_session_new(model, &options, &session, &error));
    if (!session) exit(1);
    return session;
}

/* Ids that every tiny model knows, the beginning of the sequence first. */
SHARED void some_ids(uint32_t *ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        ids[i] = i == 0 ? 2 : (uint32_t)(300 + (i * 37 + i * i) % 400);
    }
}

#endif
