/* OMEX for C on machines with an operating system: runs packages and images within a memory budget.

   What can fail returns null or -1, and omex_last_error says why, in words. Texts that are given are UTF-8 that a zero
   ends. Of a model, one thread uses one function at a time; of several models, there is nothing shared. All may be
   used from any thread. docs/c.md has a program from beginning to end; for firmware there is omex.h.

   Made by cbindgen: OMEX_UPDATE_HEADERS=1 cargo test -p omex-tests --test c_headers */

#ifndef OMEX_HOST_H
#define OMEX_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The version of this interface. It grows when a program that was compiled for the last one no longer works.
#define OMEX_HOST_VERSION 1

// What an array's elements are.
typedef enum {
    // 32-bit floats.
    OMEX_ARRAY_ELEMENT_F32 = 0,
    // Signed bytes.
    OMEX_ARRAY_ELEMENT_I8 = 1,
} omex_array_element;

// A model that is open.
typedef struct omex_model omex_model;

// An input or an output of a model.
typedef struct {
    // Its name, as long as the model is open.
    const char *name;
    // What its elements are.
    omex_array_element element;
    // How many dimensions it has.
    uint32_t rank;
    // Its dimensions, the outermost first; those behind `rank` are 0.
    uint32_t dims[4];
    // Its elements, the innermost dimension's next to one another: of an input, to be written.
    void *data;
    // Bytes of the elements.
    size_t bytes;
} omex_array;

// How a model is to be run. Null, and zeros, leave it to the planner.
typedef struct {
    // Bytes that may be used for everything.
    uint64_t memory;
    // Positions of the text that are kept.
    uint32_t context;
    // Threads.
    uint32_t threads;
} omex_options;

// How a text is gone on with. Null, and all zeros, take the most likely token until the model ends the text.
typedef struct {
    // Tokens at most; 0 for as many as the model writes.
    uint32_t max_tokens;
    // Randomness; 0 takes the most likely token.
    float temperature;
    // Keeps so many of the most likely tokens; 0 keeps all.
    uint32_t top_k;
    // Keeps the most likely tokens that make up this probability; 0 keeps all.
    float top_p;
    // Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all.
    float min_p;
    // Makes recent tokens less likely; 0 does nothing, and so does 1.
    float repetition_penalty;
    // Where the random numbers begin.
    uint64_t seed;
} omex_generation;

// Takes a piece of a text, whole characters in UTF-8 that no zero ends; returns whether the text goes on.
typedef bool (*omex_piece_fn)(void *context, const char *piece, size_t bytes);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version that the library was built with: compare it with OMEX_HOST_VERSION.
uint32_t omex_host_version(void);

// The input of this number; -1 past the last. Write all of every input before each omex_model_infer: it computes in
// the same memory. The array is valid until then.
int32_t omex_model_input(omex_model *model,
                         uint32_t number,
                         omex_array *array);

// The output of this number, which the last omex_model_infer computed; -1 past the last. Valid until the next.
int32_t omex_model_output(omex_model *model,
                          uint32_t number,
                          omex_array *array);

// Computes the outputs of the inputs that were written.
int32_t omex_model_infer(omex_model *model);

// Why this thread's last call that failed did so; empty if none has. Valid until the next one fails.
const char *omex_last_error(void);

// Where every byte of memory would go, as a JSON object: what `omex plan --json` prints of it. Null if the package or
// image can't be read, or the budget is too small. Valid until this thread's next call.
const char *omex_plan(const char *path,
                      const omex_options *options);

// Opens a package or a flash image; null if that fails. Who has a model closes it.
omex_model *omex_model_open(const char *path, const omex_options *options);

// Gives back all that a model holds; does nothing to null.
void omex_model_close(omex_model *model);

// Goes on with a prompt, and gives the text to `piece` as it comes, until that returns false. A prompt that begins as
// the last text did is run from there on.
int32_t omex_model_generate(omex_model *model,
                            const char *prompt,
                            const omex_generation *options,
                            omex_piece_fn piece,
                            void *context);

// Answers a conversation by the model's chat template: JSON, a list of objects with role and content, as
// [{"role": "user", "content": "Name a bird."}]. Else as omex_model_generate.
int32_t omex_model_chat(omex_model *model,
                        const char *messages,
                        const omex_generation *options,
                        omex_piece_fn piece,
                        void *context);

// The vector of a text, for models that make them. `width` becomes how many numbers it has; if that is more than
// `room`, which may be 0 to ask, the result is -1.
int32_t omex_model_embed(omex_model *model,
                         const char *text,
                         float *vector,
                         size_t room,
                         size_t *width);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OMEX_HOST_H */
