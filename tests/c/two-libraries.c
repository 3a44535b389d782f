/* A program with two Rust libraries in it.
 * usage: two-libraries MODEL */
#include "carat.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

size_t other_length(unsigned n);

int main(int argc, char **argv) {
    carat_model *model = NULL;
    carat_error *error = NULL;
    if (argc != 2) {
        return 2;
    }
    if (other_length(3) != 5 || other_length(10) != 20) {
        puts("the other library is wrong");
        return 1;
    }
    if (carat_model_open(argv[1], strlen(argv[1]), NULL, &model, &error) != CARAT_OK) {
        puts("the model does not open");
        return 1;
    }
    carat_model_free(model);
    return 0;
}
