#!/usr/bin/env python3
"""Compares what `omex plan` forecasts with what `omex benchmark` measures, on this machine.

    cargo build --release
    target/release/omex synth --shape tinyllama-1.1b --output-dir 1.1b.omex
    python3 benches/forecasts.py 1.1b.omex --memory 400MB

Prints, for each package, with 1 thread and with all, in memory and within each budget, the tokens a
second that were forecast and measured, and how far the forecast is off; then the worst of all.
`DECODE_ERROR` and `PROMPT_ERROR` of host/src/forecast.rs are what this printed, rounded up, for passes of a
millisecond and more.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

OMEX = Path(__file__).resolve().parent.parent / "target/release/omex"


def omex(*args):
    return json.loads(subprocess.run([OMEX, *map(str, args), "--json"], capture_output=True, check=True).stdout)


def compare(model, threads, budget):
    machine = ["--threads", threads, *(["--memory", budget] if budget else [])]
    plan = omex("plan", model, *machine)["forecast"]
    tokens = plan["prompt_tokens"]
    # A text may not grow past the context while it is measured.
    length = tokens // 4
    lengths = ["--prefill", length, "--decode-at", length, "--runs", 5]
    measured = omex("benchmark", model, *machine, *lengths)
    for what, found in (("decode", measured["decode"]), ("prompt", measured["prefill"])):
        expected, found = plan[f"{what}_tok_s"], found[0]["tok_s"]
        off = expected / found - 1
        yield abs(off)
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
    print(f"worst: {max(max(compare(*case)) for case in cases):.1%}")


if __name__ == "__main__":
    main()
