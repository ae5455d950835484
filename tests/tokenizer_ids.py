#!/usr/bin/env python3
"""Records what Hugging Face's `tokenizers` makes of 10 MB of mixed text, for tests/tests/tokenizer_texts.rs.

    cargo run -p omex-tests --example mixed_text -- target/mixed
    python3 tests/tokenizer_ids.py target/mixed            # needs `pip install tokenizers`

For each tokenizer of tests/tokenizer_ids.json, which may be one beside the repository with other parts, and for each
text, it notes the CRC-32 of the ids and of what they are decoded to. With --ids NAME NUMBER it prints those of one
text instead, to look at a difference.
"""

import argparse
import gzip
import json
import zlib
from array import array
from pathlib import Path

import tokenizers

HERE = Path(__file__).resolve().parent
RECORD = HERE / "tokenizer_ids.json"
MODELS = HERE.parent.parent / "shared" / "models" / "tokenizers"


def tokenizer(entry):
    """The tokenizer of an entry, without padding and truncation."""
    folder = MODELS / entry["base"]
    plain, packed = folder / "tokenizer.json", folder / "tokenizer.json.gz"
    text = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    file = json.loads(text) | entry.get("parts", {})
    made = tokenizers.Tokenizer.from_str(json.dumps(file))
    made.no_padding()
    made.no_truncation()
    return made


def sums(made, text):
    ids = made.encode(text).ids
    decoded = made.decode(ids, skip_special_tokens=False)
    return f"{zlib.crc32(array('I', ids).tobytes()):08x}{zlib.crc32(decoded.encode()):08x}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--ids", nargs=2, metavar=("NAME", "NUMBER"))
    parser.add_argument("names", nargs="*", help="only these [default: all]")
    args = parser.parse_args()
    record = json.loads(RECORD.read_text())
    texts = [path.read_bytes().decode() for path in sorted(args.texts.iterdir())]
    if args.ids:
        made = tokenizer(record["tokenizers"][args.ids[0]])
        encoding = made.encode(texts[int(args.ids[1])])
        return print(json.dumps({"ids": encoding.ids, "offsets": encoding.offsets}))
    record["tool"] = f"tokenizers {tokenizers.__version__}"
    for name, entry in record["tokenizers"].items():
        if not args.names or name in args.names:
            made = tokenizer(entry)
            entry["sums"] = [sums(made, text) for text in texts]
            print(name, flush=True)
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
