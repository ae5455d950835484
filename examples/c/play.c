/* Plays a flash image with the core alone: no threads, no files, and no memory but what is given to it.

       play IMAGE ID...              a text: goes on behind these tokens
       play IMAGE < INPUT > OUTPUT   arrays: the bytes of all inputs, and those of all outputs

   With OMEX_READ set, the image is read block by block as from a card, else it is used where it lies. */
#include <omex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, omex_status status) {
    fprintf(stderr, "error: %s: %s\n", what, omex_status_text(status));
    return 1;
}

/* An image as a device has it. */
static int32_t read_file(void *context, uint64_t offset, uint8_t *out, size_t length) {
    FILE *file = context;
    if (fseek(file, (long)offset, SEEK_SET) != 0) return -1;
    size_t there = fread(out, 1, length, file);
    memset(out + there, 0, length - there);
    return ferror(file) ? -1 : 0;
}

/* All of a file, on a multiple of OMEX_ALIGNMENT. */
static uint8_t *load(FILE *file, size_t *length) {
    if (fseek(file, 0, SEEK_END) != 0) return NULL;
    *length = (size_t)ftell(file);
    rewind(file);
    size_t room = (*length + OMEX_ALIGNMENT) / OMEX_ALIGNMENT * OMEX_ALIGNMENT;
    uint8_t *bytes = aligned_alloc(OMEX_ALIGNMENT, room);
    if (bytes && fread(bytes, 1, *length, file) != *length) {
        free(bytes);
        return NULL;
    }
    return bytes;
}

/* Opens an image in as much memory as it needs. */
static omex_status open_image(const omex_source *source, void **arena, omex_engine **engine) {
    size_t needed = 0, given;
    do {
        given = needed;
        free(*arena);
        *arena = given ? aligned_alloc(OMEX_ALIGNMENT, given) : NULL;
        omex_status status = omex_open(source, *arena, given, NULL, engine, &needed);
        needed = (needed + OMEX_ALIGNMENT - 1) / OMEX_ALIGNMENT * OMEX_ALIGNMENT;
        if (status != OMEX_STATUS_MEMORY) return status;
    } while (needed > given);
    return OMEX_STATUS_MEMORY;
}

static void print(void *context, const char *text, size_t bytes) {
    fwrite(text, 1, bytes, context);
}

static int write_text(omex_engine *engine, const omex_description *model, int count, char **words) {
    uint32_t token = 0;
    for (int i = 0; i < count; i++) {
        token = (uint32_t)strtoul(words[i], NULL, 10);
        omex_status status = omex_feed(engine, &token, 1);
        if (status != OMEX_STATUS_OK) return fail(words[i], status);
    }
    for (uint32_t i = 0; i < model->context; i++) {
        omex_status status = omex_next(engine, &token);
        if (status == OMEX_STATUS_END) break;
        if (status != OMEX_STATUS_OK) return fail("the next token", status);
        printf("%u ", (unsigned)token);
        if (model->has_tokenizer) {
            status = omex_decode(engine, token, print, stdout);
            if (status != OMEX_STATUS_OK) return fail("its text", status);
        }
        putchar('\n');
    }
    return 0;
}

static int infer(omex_engine *engine, const omex_description *model) {
    omex_tensor tensor;
    for (uint32_t i = 0; i < model->inputs; i++) {
        omex_status status = omex_input(engine, i, &tensor);
        if (status != OMEX_STATUS_OK) return fail("an input", status);
        if (fread(tensor.data, 1, tensor.bytes, stdin) != tensor.bytes) {
            fprintf(stderr, "error: input %.*s: expected %zu bytes\n", (int)tensor.name_bytes, tensor.name,
                    tensor.bytes);
            return 1;
        }
    }
    omex_status status = omex_infer(engine);
    if (status != OMEX_STATUS_OK) return fail("inference", status);
    for (uint32_t i = 0; i < model->outputs; i++) {
        status = omex_output(engine, i, &tensor);
        if (status != OMEX_STATUS_OK) return fail("an output", status);
        fwrite(tensor.data, 1, tensor.bytes, stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: play IMAGE [ID...]\n");
        return 2;
    }
    if (omex_version() != OMEX_VERSION) return fail(argv[0], OMEX_STATUS_VERSION);
    FILE *file = fopen(argv[1], "rb");
    if (!file) {
        perror(argv[1]);
        return 1;
    }
    omex_source source = {0};
    uint8_t *image = NULL;
    if (getenv("OMEX_READ")) {
        source.read = read_file;
        source.context = file;
    } else {
        source.mapped = image = load(file, &source.length);
    }
    void *arena = NULL;
    omex_engine *engine;
    omex_description model;
    omex_status status = open_image(&source, &arena, &engine);
    int result = 1;
    if (status == OMEX_STATUS_OK) status = omex_describe(engine, &model);
    if (status != OMEX_STATUS_OK) {
        fail(argv[1], status);
    } else if (model.vocabulary > 0) {
        result = write_text(engine, &model, argc - 2, argv + 2);
    } else {
        result = infer(engine, &model);
    }
    free(arena);
    free(image);
    fclose(file);
    return result;
}
