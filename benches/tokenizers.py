#!/usr/bin/env python3
"""Compares how fast OMEX and Hugging Face's `tokenizers` encode 1 MB of English and 1 MB of code.

    cargo build --release -p omex-benches --example tokenizer
    python3 benches/tokenizers.py                           # installs `tokenizers` under target/
    python3 benches/tokenizers.py --python VENV/bin/python  # uses one that has it
    python3 benches/tokenizers.py my/tokenizer.json

The English is the text of Python's own manual, the code is Python's own library. Both programs stay open, each on
one thread, and take turns: what is measured is the encoding of a text in memory, without the start of a process.
`tokenizers` keeps its cache of words from one turn to the next, OMEX begins every text with an empty one. The ids
are compared.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "target"
MODELS = ROOT.parent / "shared" / "models" / "tokenizers"
SIZE = 1_000_000


def peer(path):
    """Run by the interpreter that has `tokenizers`: answers as benches/examples/tokenizer.rs does."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(path)
    # What files say of batches is not asked for here.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    for line in sys.stdin:
        text = Path(line.rstrip("\n")).read_bytes().decode()
        start = time.perf_counter()
        encoding = tokenizer.encode(text, add_special_tokens=False)
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "ids": encoding.ids}), flush=True)


# Below: run by any Python.


def interpreter():
    """A virtual environment's Python with `tokenizers`, made if missing."""
    home = TARGET / "tokenizers"
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "tokenizers"], check=True)
    return python


def english():
    """The manual's text, as often as it takes."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    return text * (SIZE // len(text) + 1)


def code():
    """The library's sources, the first by name."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files)


def texts(folder):
    """Writes the texts, and gives their names and paths."""
    for name, text in {"english": english(), "code": code()}.items():
        path = folder / f"{name}.txt"
        path.write_bytes(text.encode()[:SIZE].decode(errors="ignore").encode())
        yield name, path


def vocabularies(folder):
    """The vocabularies beside the repository: names and paths."""
    for name in ["gpt2", "llama3", "qwen2", "llama2"]:
        plain, packed = (MODELS / name / f"tokenizer.json{end}" for end in ["", ".gz"])
        if plain.exists():
            yield name, plain
        elif packed.exists():
            path = folder / f"{name}.json"
            path.write_bytes(gzip.decompress(packed.read_bytes()))
            yield name, path
        else:
            print(f"skipped: {plain} is absent", file=sys.stderr)


class Program:
    """A program that answers every path with the seconds that its text took and the ids."""

    def __init__(self, *command):
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
        pipe, command = subprocess.PIPE, [str(word) for word in command]
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment
        )

    def encode(self, path):
        self.process.stdin.write(f"{path}\n")
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compare(args, vocabulary, path, texts):
    """Measures both programs in turn, a first turn not counted; gives a row for each text."""
    ours = Program(args.omex, path)
    # Isolated (-I), since this folder has a file called tokenizers.
    theirs = Program(args.python or interpreter(), "-I", __file__, "--peer", path)
    for name, text in texts:
        size, rates, same = text.stat().st_size, {"omex": [], "tokenizers": []}, True
        for run in range(args.runs + 1):
            answers = {"omex": ours.encode(text), "tokenizers": theirs.encode(text)}
            same &= answers["omex"]["ids"] == answers["tokenizers"]["ids"]
            for program, answer in answers.items() if run else ():
                rates[program].append(size / 1e6 / answer["seconds"])
        medians = {program: statistics.median(rate) for program, rate in rates.items()}
        yield {
            "vocabulary": vocabulary,
            "text": name,
            "same ids": same,
            "ids": len(answers["omex"]["ids"]),
            "MB/s": rates,
            "median": medians,
            "ratio": medians["omex"] / medians["tokenizers"],
        }
    ours.close()
    theirs.close()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vocabulary", nargs="*", type=Path, help="tokenizer.json [default: those beside the repository]")
    parser.add_argument("--python", help="an interpreter with tokenizers")
    example = TARGET / "release" / "examples" / "tokenizer"
    parser.add_argument("--omex", default=example, help="the program to measure")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=TARGET / "bench-texts", help="for the texts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer(args.peer)
    args.folder.mkdir(parents=True, exist_ok=True)
    chosen = [(path.stem, path) for path in args.vocabulary] or vocabularies(args.folder)
    files, rows = list(texts(args.folder)), []
    if not args.json:
        print(f"MB/s, median of {args.runs} (least - largest)\n")
        print("vocabulary  text     omex                    tokenizers              ratio")
    for name, path in chosen:
        for row in compare(args, name, path, files):
            rows.append(row)
            if not args.json:
                print(shown(row), flush=True)
    if args.json:
        print(json.dumps({"runs": args.runs, "rows": rows}))
    if not all(row["same ids"] for row in rows):
        sys.exit("the ids differ")


def shown(row):
    """A row as text."""
    figures = [
        f"{row['median'][program]:6.1f} ({min(rates):5.1f} - {max(rates):5.1f})"
        for program, rates in row["MB/s"].items()
    ]
    same = "" if row["same ids"] else "  the ids differ"
    return f"{row['vocabulary']:11} {row['text']:8} {figures[0]}  {figures[1]}  {row['ratio']:5.1f}{same}"


if __name__ == "__main__":
    main()
