/* Calls every function with what it takes and with what it does not. */
#include <omex_host.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int line_failed(int line, const char *what) {
    fprintf(stderr, "line %d: %s; last error: %s\n", line, what, omex_last_error());
    return 1;
}

#define EXPECT(condition) \
    if (!(condition)) return line_failed(__LINE__, #condition)
#define EXPECT_ERROR(words) EXPECT(strstr(omex_last_error(), words))

struct text {
    char bytes[4096];
    size_t length, pieces, most;
};

static bool append(void *context, const char *piece, size_t bytes) {
    struct text *text = context;
    if (text->length + bytes >= sizeof text->bytes) return false;
    memcpy(text->bytes + text->length, piece, bytes);
    text->length += bytes;
    text->bytes[text->length] = 0;
    return ++text->pieces != text->most;
}

int main(int argc, char **argv) {
    EXPECT(argc == 2);
    EXPECT(omex_host_version() == OMEX_HOST_VERSION);
    EXPECT(*omex_last_error() == 0);

    const char *plan = omex_plan(argv[1], NULL);
    EXPECT(plan && strstr(plan, "\"total\":"));
    EXPECT(!omex_plan("nowhere.omex", NULL));
    EXPECT_ERROR("nowhere.omex");
    EXPECT(!omex_plan(NULL, NULL));
    EXPECT_ERROR("path: found null");
    omex_options options = {.memory = 1000};
    EXPECT(!omex_plan(argv[1], &options));
    EXPECT_ERROR("the budget of 1000 bytes");
    EXPECT(!omex_model_open("\xff", NULL));
    EXPECT_ERROR("not UTF-8");
    omex_model_close(NULL);

    options = (omex_options){.context = 64, .threads = 1};
    omex_model *model = omex_model_open(argv[1], &options);
    EXPECT(model);
    struct text first = {.most = 0}, second = {.most = 0}, third = {.most = 2};
    omex_generation how = {.max_tokens = 8};
    EXPECT(omex_model_generate(model, "Once", &how, append, &first) == 0);
    EXPECT(first.length > 0);
    EXPECT(omex_model_generate(model, "Once", &how, append, &second) == 0);
    EXPECT(strcmp(first.bytes, second.bytes) == 0);
    /* A piece that says so ends the text, and the next text is whole again. */
    EXPECT(omex_model_generate(model, "Once", &how, append, &third) == 0);
    EXPECT(third.pieces == 2 && strncmp(first.bytes, third.bytes, third.length) == 0);
    second = (struct text){.most = 0};
    EXPECT(omex_model_generate(model, "Once", &how, append, &second) == 0);
    EXPECT(strcmp(first.bytes, second.bytes) == 0);

    EXPECT(omex_model_generate(NULL, "Once", &how, append, &first) == -1);
    EXPECT_ERROR("model: found null");
    EXPECT(omex_model_generate(model, NULL, &how, append, &first) == -1);
    EXPECT_ERROR("prompt: found null");
    EXPECT(omex_model_generate(model, "Once", &how, NULL, NULL) == -1);
    EXPECT_ERROR("piece: found null");
    how.temperature = -1;
    EXPECT(omex_model_generate(model, "Once", &how, append, &first) == -1);
    EXPECT_ERROR("temperature: expected");

    EXPECT(omex_model_chat(model, "[", NULL, append, &first) == -1);
    EXPECT_ERROR("messages: expected JSON");
    EXPECT(omex_model_chat(model, "[]", NULL, append, &first) == -1);
    EXPECT_ERROR("no chat template");
    float vector[4];
    size_t width;
    EXPECT(omex_model_embed(model, "Once", vector, 4, &width) == -1);
    EXPECT_ERROR("makes no vectors");
    omex_array array;
    EXPECT(omex_model_input(model, 0, &array) == -1);
    EXPECT_ERROR("takes tokens, not arrays");
    EXPECT(omex_model_output(model, 0, NULL) == -1);
    EXPECT(omex_model_infer(model) == -1);
    EXPECT_ERROR("takes tokens, not arrays");
    omex_model_close(model);
    return 0;
}
