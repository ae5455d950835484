/* The core of OMEX for C: plays an image that omex pack wrote, in memory that you give it.

   Needs memcpy, memmove, memset and memcmp, and nothing else. Nothing is allocated and nothing is global; there is
   nothing to close. Functions return a status, which omex_status_text has in words. Of an engine, one thread uses one
   function at a time; of several engines, there is nothing shared. docs/c.md has a program from beginning to end.

   Made by cbindgen: OMEX_UPDATE_HEADERS=1 cargo test -p omex-tests --test c_headers */

#ifndef OMEX_H
#define OMEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The version of this interface. It grows when a program that was compiled for the last one no longer works.
#define OMEX_VERSION 1

// What arenas and images that can be addressed are aligned to, in bytes.
#define OMEX_ALIGNMENT 16

// What reads begin on and are multiples of, in bytes.
#define OMEX_BLOCK 512

// What came of a call; omex_status_text has each in words.
typedef enum {
    // It is done.
    OMEX_STATUS_OK = 0,
    // The model has ended the text: no error.
    OMEX_STATUS_END = 1,
    // A pointer is null, or a number is none that can be.
    OMEX_STATUS_ARGUMENT = 2,
    // Not an image that `omex pack` wrote.
    OMEX_STATUS_NOT_AN_IMAGE = 3,
    // An image of a version that this library does not read.
    OMEX_STATUS_VERSION = 4,
    // The image needs an operation, a format or a tokenizer that the library was built without.
    OMEX_STATUS_UNSUPPORTED = 5,
    // The image is cut short, or does not match its checksums.
    OMEX_STATUS_DAMAGED = 6,
    // The arena is too small.
    OMEX_STATUS_MEMORY = 7,
    // The arena or the image does not begin on a multiple of OMEX_ALIGNMENT.
    OMEX_STATUS_ALIGNMENT = 8,
    // The read callback failed.
    OMEX_STATUS_READ = 9,
    // The model takes tokens and not tensors, or tensors and not tokens.
    OMEX_STATUS_KIND = 10,
    // There is no input or output of that number.
    OMEX_STATUS_NO_SUCH_TENSOR = 11,
    // A token is outside of the vocabulary.
    OMEX_STATUS_TOKEN = 12,
    // No tokens were given, or more than there is room for.
    OMEX_STATUS_LENGTH = 13,
    // The image has no tokenizer.
    OMEX_STATUS_NO_TOKENIZER = 14,
    // The text is not UTF-8.
    OMEX_STATUS_ENCODING = 15,
    // A value became infinite or not a number.
    OMEX_STATUS_NOT_FINITE = 16,
} omex_status;

// What a tensor's elements are.
typedef enum {
    // 32-bit floats.
    OMEX_ELEMENT_F32 = 0,
    // Signed bytes.
    OMEX_ELEMENT_I8 = 1,
} omex_element;

// A model that is open: it lies in the arena that it was opened in, and needs no closing. One thread at a time
// may use it.
typedef struct omex_engine omex_engine;

// Reads bytes of an image; returns 0, or anything else if they can't be had. Offset and length are multiples
// of OMEX_BLOCK; what lies behind the end of the image may be anything.
typedef int32_t (*omex_read_fn)(void *context, uint64_t offset, uint8_t *out, size_t length);

// Where an image lies: in memory that can be addressed, as flash or a mapped file, or anywhere else.
typedef struct {
    // The image, on a multiple of OMEX_ALIGNMENT: it stays, and does not change. Weights and tables are used
    // where they lie. Null if it is read.
    const uint8_t *mapped;
    // Bytes of it.
    size_t length;
    // Reads it, if it is not mapped.
    omex_read_fn read;
    // Given to `read`.
    void *context;
} omex_source;

// One piece of work: is called with its argument and a number.
typedef void (*omex_task_fn)(const void *argument, size_t index);

// Calls `task` once for each number below `tasks`, in any order, on any core, and returns after the last call
// has ended. What was written before is seen by the tasks, and what they write is seen when it returns.
typedef void (*omex_run_fn)(void *context, size_t tasks, omex_task_fn task, const void *argument);

// The cores of a machine.
typedef struct {
    // How many there are.
    size_t count;
    // Has work done on them. Tasks may call it again, from several threads; such a call waits for no other,
    // and may do all of its work itself.
    omex_run_fn run;
    // Given to `run`.
    void *context;
} omex_cores;

// What a model is.
typedef struct {
    // Tokens of its vocabulary; 0 if it takes tensors.
    uint32_t vocabulary;
    // Positions that its cache holds: beyond them the middle of a text is forgotten; 0 if it takes tensors.
    uint32_t context;
    // Tensors that it takes, for omex_input.
    uint32_t inputs;
    // Tensors that it gives, for omex_output.
    uint32_t outputs;
    // Whether the image has a tokenizer.
    bool has_tokenizer;
} omex_description;

// An input or an output of a model.
typedef struct {
    // Its name, which no zero ends.
    const char *name;
    // Bytes of the name.
    size_t name_bytes;
    // What its elements are.
    omex_element element;
    // How many dimensions it has.
    uint32_t rank;
    // Its dimensions, the outermost first; those behind `rank` are 0.
    uint32_t dims[4];
    // Its elements, the innermost dimension's next to one another: of an input, to be written.
    void *data;
    // Bytes of the elements.
    size_t bytes;
} omex_tensor;

// How tokens are chosen. All zeros, the most likely one is taken.
typedef struct {
    // Logits are divided by it; 0 takes the most likely token.
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
} omex_sampling;

// Takes a piece of text, whole characters in UTF-8 that no zero ends.
typedef void (*omex_text_fn)(void *context, const char *text, size_t bytes);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version that the library was built with: compare it with OMEX_VERSION.
uint32_t omex_version(void);

// Opens an image in `arena`, which is aligned to OMEX_ALIGNMENT and belongs to the engine for as long as it is
// used, as do the source's image and context. What an image that is read leaves of the arena holds its pages.
//
// `cores` may be null, for one core. `needed` may be null; else it becomes the bytes that the arena must have,
// as soon as they are known. So with a null arena of 0 bytes the result is OMEX_STATUS_MEMORY, and `needed` the
// size of the arena to open it with. Of an image that is read, its tables have to be seen for that: then it is
// their size, and the second call tells the rest.
omex_status omex_open(const omex_source *source,
                      void *arena,
                      size_t arena_bytes,
                      const omex_cores *cores,
                      omex_engine **engine,
                      size_t *needed);

// What a model is.
omex_status omex_describe(const omex_engine *engine, omex_description *description);

// A status in words: text that is there for ever.
const char *omex_status_text(int32_t status);

// The input of this number. Write all of every input before each omex_infer: it computes in the same memory.
// The tensor is valid until then.
omex_status omex_input(omex_engine *engine, uint32_t number, omex_tensor *tensor);

// The output of this number, which the last omex_infer computed; valid until the next.
omex_status omex_output(const omex_engine *engine, uint32_t number, omex_tensor *tensor);

// Computes the outputs of the inputs that were written.
omex_status omex_infer(omex_engine *engine);

// Begins a new text.
omex_status omex_reset(omex_engine *engine);

// Chooses tokens in this way from now on.
omex_status omex_set_sampling(omex_engine *engine, const omex_sampling *options);

// Runs tokens behind those that were run: a prompt, or what follows.
omex_status omex_feed(omex_engine *engine, const uint32_t *tokens, size_t count);

// Chooses the next token; OMEX_STATUS_END if the model ends the text with it. It is run by the next call that needs
// what it leads to.
omex_status omex_next(omex_engine *engine,
                      uint32_t *token);

// The logits that the next token will be chosen from, one for each of the vocabulary, to be read or changed; valid
// until the next call. Who chooses tokens in another way gives them to omex_feed, and never calls omex_next.
omex_status omex_logits(omex_engine *engine,
                        float **logits);

// The tokens of a text in UTF-8, with those that the tokenizer puts around a text; omex_decode goes on behind
// them. `count` becomes how many there are; if that is more than `room`, the result is OMEX_STATUS_LENGTH.
omex_status omex_encode(omex_engine *engine,
                        const char *text,
                        size_t bytes,
                        uint32_t *tokens,
                        size_t room,
                        size_t *count);

// Gives the characters that a token completes to `tell`, piece by piece.
omex_status omex_decode(omex_engine *engine, uint32_t token, omex_text_fn tell, void *context);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OMEX_H */
