#!/usr/bin/env python3
"""Makes the files that the tests compare with: decoded blocks, tiny models and their logits, what cache policies and
definitions of perplexity make of them, malformed checkpoints, tokenizations. Deterministic; does nothing where DIR
already holds what these sources and inputs make.

    python checkpoints/make_fixtures.py --output build/fixtures --data DIR --smollm2 FILE
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib
import importlib.util
import os
import platform
import shutil
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
PACKAGES = ("numpy", "gguf", "sentencepiece", "tokenizers", "jinja2", "rouge-score", "nltk")
PARTS = ("dequant", "codec", "models", "streaming", "cache", "perplexity", "bad", "tokenizer", "rouge")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's matrices here are small: threads would only wait


def package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def fingerprint(data: Path | None, smollm2: Path | None) -> str:
    """A hash of all that decides the output: sources, packages, and the inputs by name, size and time."""
    digest = hashlib.sha256(repr((platform.python_version(), [package_version(name) for name in PACKAGES])).encode())
    for source in sorted([Path(__file__), *HERE.glob("fixtures/*.py")]):
        digest.update(source.name.encode() + source.read_bytes())
    inputs = sorted(path for path in data.iterdir() if path.is_file()) if data else []
    for path in [*inputs, *([smollm2] if smollm2 else [])]:
        status = path.stat()
        digest.update(repr((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def make(output: Path, data: Path | None, smollm2: Path | None) -> None:
    from fixtures import (bad_cases, cache_cases, codec_cases, dequant_cases, model_cases, perplexity_cases,
                          rouge_cases, trained_cases)

    for part in PARTS:
        shutil.rmtree(output / part, ignore_errors=True)
    dequant_cases.make(output)
    codec_cases.make(output)
    model_cases.make(output)
    trained_cases.make(output, data, smollm2)
    cache_cases.make(output)
    perplexity_cases.make(output, data)
    bad_cases.make(output)
    rouge_cases.make(output, data)
    if data is None:
        print("make_fixtures.py: no --data: the tokenizer cases, whose texts are from there, are left out",
              file=sys.stderr)
    elif importlib.util.find_spec("fixtures.tokenizer_cases"):
        importlib.import_module("fixtures.tokenizer_cases").make(output, data, smollm2)


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the test fixtures.")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="where the fixtures go")
    parser.add_argument("--data", type=Path, metavar="DIR", help="has stories260K.bin and tok512.model (optional)")
    parser.add_argument("--smollm2", type=Path, metavar="FILE", help="SmolLM2-135M-Instruct's GGUF (optional)")
    arguments = parser.parse_args()
    for path, there in ((arguments.data, Path.is_dir), (arguments.smollm2, Path.is_file)):
        if path and not there(path):
            print(f"make_fixtures.py: error: {path} is not there; correct the path or leave the option out",
                  file=sys.stderr)
            return 1
    arguments.output.mkdir(parents=True, exist_ok=True)
    stamp = arguments.output / "made-from"
    with open(arguments.output / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = fingerprint(arguments.data, arguments.smollm2)
        if stamp.exists() and stamp.read_text() == wanted:
            return 0
        stamp.unlink(missing_ok=True)
        start = time.monotonic()
        make(arguments.output, arguments.data, arguments.smollm2)
        stamp.write_text(wanted)
        print(f"make_fixtures.py: made {arguments.output} in {time.monotonic() - start:.1f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
