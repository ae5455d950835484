#!/usr/bin/env python3
"""Runs a model that is larger than memory in a memory cgroup, page cache included, and compares the
time of a token with what the disk allows.

    cargo build --release
    target/release/omex synth --shape llama3-8b --quantization int4 --output-dir 8b.omex
    sudo python3 benches/larger_than_memory.py 8b.omex --memory 1GiB --memory 2GiB
    sudo python3 benches/larger_than_memory.py 8b.omex --memory 1GiB --gguf 8b.gguf --python VENV/bin/python
    sudo python3 benches/larger_than_memory.py 30b-a3b.omex --memory 4GB --tokens 40 --draft-acceptance 0.7

A round drops the caches, asks `omex plan`, which reads the package's weights for two seconds without
computing, runs OMEX, reads again, and runs llama.cpp (mapped, without repacking, which it needs
memory for) if there is a GGUF file of the same model: `omex compare --gguf` writes one. The disk's
bandwidth is the mean of the two readings. The cgroup's limit is the budget and 64 MiB. With
`--draft-acceptance`, OMEX runs the same text again, of which it guesses so large a part.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OMEX = Path(__file__).resolve().parent.parent / "target/release/omex"
SLACK = 64 << 20
UNITS = {"MiB": 1 << 20, "GiB": 1 << 30, "MB": 10**6, "GB": 10**9}

LLAMA_CPP = """
import ctypes, json, sys, time
import llama_cpp as l
path, context, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
l.llama_backend_init()
how = l.llama_model_default_params()
how.use_mmap, how.use_extra_bufts = True, False
model = l.llama_model_load_from_file(path.encode(), how)
how = l.llama_context_default_params()
how.n_ctx, how.n_threads, how.n_threads_batch = context, 2, 2
run = l.llama_init_from_model(model, how)
def step(ids):
    array = (l.llama_token * len(ids))(*ids)
    assert l.llama_decode(run, l.llama_batch_get_one(array, len(ids))) == 0
step([1, 2, 3, 4])
start = time.perf_counter()
for i in range(tokens):
    step([5 + i])
print(json.dumps({"seconds": (time.perf_counter() - start) / tokens}))
"""


class Cgroup:
    """A memory cgroup, of version 1 or 2."""

    def __init__(self, limit):
        old = Path("/sys/fs/cgroup/memory")
        self.path = (old if old.exists() else Path("/sys/fs/cgroup")) / f"omex-bench-{os.getpid()}"
        self.limit, self.peak = (
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes") if old.exists() else ("memory.max", "memory.peak")
        )
        self.path.mkdir()
        (self.path / self.limit).write_text(str(limit))

    def run(self, command):
        """The output of a command that runs inside, and the group's peak."""
        enter = lambda: (self.path / "cgroup.procs").write_text(str(os.getpid()))
        done = subprocess.run(command, preexec_fn=enter, capture_output=True, text=True)
        peak = int((self.path / self.peak).read_text())
        for _ in range(100):
            try:
                self.path.rmdir()
                break
            except OSError:
                time.sleep(0.05)
        if done.returncode:
            return {"failed": done.returncode, "said": done.stderr[-300:]}, peak
        return json.loads(done.stdout), peak


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def plan(args, budget):
    """What `omex plan` forecasts: it reads the package's weights for two seconds, past the cache and without computing."""
    command = [str(OMEX), "plan", args.model, "--memory", str(budget), "--context", str(args.context), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["forecast"]


def size(text):
    unit = next(unit for unit in UNITS if text.endswith(unit))
    return int(float(text.removesuffix(unit)) * UNITS[unit])


def drafted(args, command, ids, budget):
    """Seconds a token of the same text, whose tokens are known beforehand."""
    with tempfile.NamedTemporaryFile("w", suffix=".ids") as known:
        known.write(",".join(map(str, ids)))
        known.flush()
        drop_caches()
        with_drafts = command[: command.index("--draft")]
        with_drafts += ["--draft-ids", known.name, "--draft-acceptance", str(args.draft_acceptance)]
        said, _ = Cgroup(budget + SLACK).run(with_drafts)
    if said.get("ids") != ids:
        sys.exit(f"drafts changed the text: {said}")
    return 1 / said["stats"]["decode_tok_s"]


def measure(args, budget):
    """Rounds of one budget."""
    command = [str(OMEX), "run", args.model, "--ids", "1,2,3,4", "--max-tokens", str(args.tokens + 1)]
    command += ["--memory", str(budget), "--context", str(args.context), "--json", "--draft", "none"]
    rows = []
    for _ in range(args.runs):
        drop_caches()
        before = plan(args, budget)
        said, peak = Cgroup(budget + SLACK).run(command)
        if "failed" in said:
            sys.exit(f"omex at {budget} bytes: {said}")
        after = plan(args, budget)
        stats = said["stats"]
        seconds = 1 / stats["decode_tok_s"]
        streamed = stats["streamed_bytes_per_token"]
        row = {"seconds": seconds, "streamed": streamed, "peak": peak, "pages": stats["pages"]}
        row |= {"first_token": stats["time_to_first_token_ms"] / 1e3, "forecast": before["pass_seconds"] / seconds}
        if streamed:
            row["bandwidth"] = (before["storage_bandwidth"] + after["storage_bandwidth"]) / 2
            row["limit"] = seconds * row["bandwidth"] / streamed
        if args.draft_acceptance:
            row["drafted"] = drafted(args, command, said["ids"], budget)
        if args.gguf:
            drop_caches()
            peer = [args.python, "-c", LLAMA_CPP, args.gguf, str(args.context), str(args.peer_tokens)]
            said, _ = Cgroup(budget + SLACK).run(peer)
            row |= {"peer": said.get("seconds"), "peer_failed": said.get("failed")}
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--memory", action="append", type=size, required=True)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--peer-tokens", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--draft-acceptance", type=float)
    parser.add_argument("--gguf")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {budget: measure(args, budget) for budget in args.memory}
    if args.json:
        print(json.dumps(found))
        return
    print("budget MiB | s a token | forecast | streamed GB | disk GB/s | times the disk's | peak MiB | drafts times faster | llama.cpp s a token | times faster")
    for budget, rows in found.items():
        middle = lambda name: statistics.median([row[name] for row in rows if row.get(name) is not None] or [float("nan")])
        ratios = [row["peer"] / row["seconds"] for row in rows if row.get("peer")] or [float("nan")]
        drafts = [row["seconds"] / row["drafted"] for row in rows if row.get("drafted")] or [float("nan")]
        print(
            f"{budget >> 20:10} | {middle('seconds'):9.3f} | {middle('forecast'):7.2f}x | {middle('streamed') / 1e9:11.2f} | "
            f"{middle('bandwidth') / 1e9:9.2f} | {middle('limit'):16.3f} | {max(row['peak'] for row in rows) >> 20:8} | "
            f"{statistics.median(drafts):19.2f} | {middle('peer'):19.3f} | {statistics.median(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
