/* Goes on with a prompt, within a budget: generate MODEL.omex MEGABYTES PROMPT */
#include <omex_host.h>
#include <stdio.h>
#include <stdlib.h>

static bool print(void *context, const char *piece, size_t bytes) {
    size_t *all = context;
    *all += bytes;
    fwrite(piece, 1, bytes, stdout);
    return fflush(stdout) == 0;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: generate MODEL.omex MEGABYTES PROMPT\n");
        return 2;
    }
    omex_options options = {.memory = strtoull(argv[2], NULL, 10) * 1000000};
    omex_model *model = omex_model_open(argv[1], &options);
    if (!model) {
        fprintf(stderr, "error: %s\n", omex_last_error());
        return 1;
    }
    size_t bytes = 0;
    omex_generation how = {.max_tokens = 40};
    int failed = omex_model_generate(model, argv[3], &how, print, &bytes);
    if (failed) fprintf(stderr, "error: %s\n", omex_last_error());
    printf("\n");
    omex_model_close(model);
    return failed || bytes == 0 ? 1 : 0;
}
