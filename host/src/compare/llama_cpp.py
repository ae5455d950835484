"""Runs the work of `omex compare` once on llama.cpp, and prints tokens a second as JSON."""

import json
import sys
import time

import llama_cpp

job = json.loads(sys.argv[1])
model = llama_cpp.Llama(
    job["gguf"],
    n_threads=job["threads"],
    n_threads_batch=job["threads"],
    n_ctx=job["context"],
    verbose=False,
)


def ids(first, count):
    return [(first + i) * 7919 % job["vocabulary"] for i in range(count)]


def begin(count):
    model.reset()
    if count > 0:
        model.eval(ids(0, count))


begin(8)
model.eval(ids(8, 1))
prefill, decode = [], []
for tokens in job["prefill"]:
    start = time.perf_counter()
    begin(tokens)
    prefill.append(tokens / (time.perf_counter() - start))
for context in job["decode_at"]:
    begin(context)
    tokens, start = 0, time.perf_counter()
    while tokens < job["tokens"] and (tokens == 0 or time.perf_counter() - start < job["seconds"]):
        model.eval(ids(context + tokens, 1))
        tokens += 1
    decode.append(tokens / (time.perf_counter() - start))
print(json.dumps({"prefill": prefill, "decode": decode}))
