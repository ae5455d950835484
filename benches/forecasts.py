#!/usr/bin/env python3
"""Compares what `omex plan` forecasts with what `omex benchmark` measures, on this machine.

    cargo build --release
    target/release/omex synth --shape tinyllama-1.1b --output-dir 1.1b.omex
    python3 benches/forecasts.py 1.1b.omex --memory 400MB

Prints, for each package, with 1 thread and with all, in memory and within each budget, the tokens a
second that were forecast and measured, and how far the forecast is off; then the least and the most.
`DECODE_ERROR` and `PROMPT_ERROR` of host/src/forecast.rs are the most that this printed, rounded up.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

OMEX = Path(__file__).resolve().parent.parent / "target/release/omex"
RUNS = 5
# Tokens that `omex benchmark` decodes in a run.
DECODED = 32


def omex(*args):
    return json.loads(subprocess.run([OMEX, *map(str, args), "--json"], capture_output=True, check=True).stdout)


def compare(model, threads, budget):
    machine = ["--threads", threads, *(["--memory", budget] if budget else [])]
    # A text may not grow past the context while it is measured.
    grown = RUNS * DECODED
    length = min(512, omex("plan", model)["context"]) - grown
    forecast = {
        "prompt": omex("plan", model, *machine, "--context", length)["forecast"]["prompt_tok_s"],
        # The middle one of the runs, which follow one another.
        "decode": omex("plan", model, *machine, "--context", length + grown // 2)["forecast"]["decode_tok_s"],
    }
    lengths = ["--prefill", length, "--decode-at", length, "--runs", RUNS, "--context", length + grown]
    measured = omex("benchmark", model, *machine, *lengths)
    for what, found in (("decode", measured["decode"]), ("prompt", measured["prefill"])):
        expected, found = forecast[what], found[0]["tok_s"]
        off = expected / found - 1
        yield off
        print(f"{model:24} {threads} threads {budget or 'all':>7} {what}: {expected:10.2f} forecast"
              f" {found:10.2f} measured {off:+7.1%}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--memory", action="append", default=[], help="a budget, besides none")
    args = parser.parse_args()
    omex("profile", "--refresh")
    threads = sorted({1, os.cpu_count()})
    cases = [(m, t, b) for m in args.models for t in threads for b in [None, *args.memory]]
    off = [off for case in cases for off in compare(*case)]
    print(f"from {min(off):+.1%} to {max(off):+.1%}")


if __name__ == "__main__":
    main()
