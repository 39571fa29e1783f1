#!/usr/bin/env python3
"""What generate says, on models made here: where it ends, byte for byte in JSON and on stdout, under penalties.

    STOWKV_BUILD=build python3 tests/test_generated_text.py

Oracles: models whose next token is known; Python's UTF-8 decoder; greedy choice in float64 (reference_llama.py) under
llama.cpp's definition of penalties. Needs the packages of tests/fixtures/requirements.txt.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))  # of the package "fixtures"
from fixtures.gguf_file import GgufFile, ValueType, array  # noqa: E402
from fixtures.model_cases import as_file_stores  # noqa: E402
from fixtures.reference_llama import Config, forward  # noqa: E402
from fixtures.tiny_models import make_model  # noqa: E402

GENERATE = Path(os.environ["STOWKV_BUILD"]) / "generate"
UNKNOWN, CONTROL, NORMAL, BYTE = 2, 3, 1, 6
WORDS = ["\u2581", "a", "b", "c", "\u2581the", "caf\u00e9", "\U0001f600", "\"", "\\", "<|im_start|>", "<|im_end|>", "user",
         "assistant", "\n", "STOP"]
PIECES = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + WORDS
TYPES = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(WORDS)
CONFIG = Config(n_embd=64, n_ff=96, n_heads=4, n_kv_heads=2, n_layers=1, n_vocab=len(PIECES), n_ctx=512)
IDS = {piece: i for i, piece in enumerate(PIECES)}
failures = 0


def check(name: str, ok: bool, *details: object) -> None:
    global failures
    failures += not ok
    print(("ok      " if ok else "FAILED  ") + name, *(() if ok else details))


def set_vocabulary(file: GgufFile) -> GgufFile:
    file.set("tokenizer.ggml.tokens", array(ValueType.STRING, PIECES))
    file.set("tokenizer.ggml.scores", array(ValueType.FLOAT32, [0.0] * 259 + [-float(i) for i in range(len(WORDS))]))
    return file.set("tokenizer.ggml.token_type", array(ValueType.INT32, TYPES))


def make(config: Config, seed: int) -> tuple[GgufFile, dict[str, np.ndarray]]:
    """A random model: tiny_models' vocabulary is smaller than this one."""
    small, weights = make_model(seed, Config(**{**vars(config), "n_vocab": 96}))
    rng = np.random.default_rng(seed)
    for name in ("token_embd.weight", "output.weight"):
        matrix = rng.normal(0, config.n_embd**-0.5, (config.n_vocab, config.n_embd)).astype(np.float32)
        tensor = small.tensor(name)
        tensor.data, tensor.dims, weights[name] = matrix, [config.n_embd, config.n_vocab], matrix
    small.set("llama.vocab_size", (ValueType.UINT32, config.n_vocab))
    return set_vocabulary(small), weights


def chain(successors: dict[str, str]) -> GgufFile:
    """Says the successor of each token: one dimension for each token that has one; attention and feed-forward add 0."""
    file, _ = make(CONFIG, 1)
    for tensor in file.tensors:
        tensor.data = np.ones_like(tensor.data) if "norm" in tensor.name else np.zeros_like(tensor.data)
    for i, (token, successor) in enumerate(successors.items()):
        file.tensor("token_embd.weight").data[IDS[token], i] = 1
        file.tensor("output.weight").data[IDS[successor], i] = 1
    return file


def write(folder: Path, file: GgufFile) -> str:
    path = folder / "model.gguf"
    file.write(path)
    return str(path)


def run(path: str, *arguments: str, stdin: bytes = b"") -> tuple[bytes, dict, str]:
    """stdout, the JSON file and stderr of one run."""
    report = Path(path).with_suffix(".json")
    report.unlink(missing_ok=True)
    done = subprocess.run([GENERATE, "--checkpoint_path", path, "--threads", "1", "--json", str(report), *arguments],
                          input=stdin, capture_output=True, check=False, timeout=300)
    if done.returncode != 0:
        sys.exit(f"generate {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout, json.loads(report.read_bytes().decode("utf-8")), done.stderr.decode()


def test_ends(folder: Path) -> None:
    said = {"a": "b", "b": "c", "c": "\u2581the", "\u2581the": "a"}
    end = IDS["c"]
    for name, key, value in (
            ("end of message", "eom_token_id", (ValueType.UINT32, end)),
            ("end of turn", "eot_token_id", (ValueType.INT64, end)),
            ("several ends of text", "eos_token_ids", array(ValueType.INT32, [2, -1, end])),
            ("one in bytes", "eos_token_ids", array(ValueType.UINT16, [end])),
            ("no further end", "eos_token_ids", array(ValueType.INT32, [])),
            ("absent", "eom_token_id", (ValueType.UINT32, 2**32 - 1)),
            ("padding that stands for an end", "fim_pad_token_id", (ValueType.UINT32, end))):
        path = write(folder, chain(said).set(f"tokenizer.ggml.{key}", value))
        _, result, _ = run(path, "--prompt", "a", "--temperature", "0", "--max_new_tokens", "4")
        ends = name not in ("no further end", "absent")
        check(f"{name} ends", (result["text"], result["end"]) ==
              (("b", "end of text") if ends else ("bc thea", "--max_new_tokens reached")), result["text"], result["end"])
    _, result, _ = run(path, "--prompt", "a", "--temperature", "0", "--max_new_tokens", "3", "--ignore_eos")
    check("--ignore_eos goes on behind it", result["text"] == "b the", result["text"])


def bytes_of(tokens: list[int]) -> bytes:
    said = b""
    for token in tokens:
        piece = PIECES[token]
        if TYPES[token] == BYTE:
            said += bytes([int(piece[3:5], 16)])
        elif token == IDS["<unk>"]:
            said += " \u2047 ".encode()
        elif TYPES[token] == NORMAL and piece not in ("<|im_start|>", "<|im_end|>"):
            said += piece.replace("\u2581", " ").encode()
    return said


def test_bytes(folder: Path) -> None:
    """Random bytes: half characters, NULs, quotes. What is no UTF-8 is U+FFFD as in Python, in both places."""
    path = write(folder, make(CONFIG, 2)[0])
    texts = b""
    for seed in range(1, 5):
        sampling = ("--prompt", "a", "--temperature", "3", "--top_k", "0", "--seed", str(seed), "--ignore_eos",
                    "--max_new_tokens", "400")
        stdout, result, _ = run(path, *sampling)
        expected = bytes_of(result["tokens"]).decode("utf-8", "replace")
        check(f"seed {seed}: stdout is what the tokens spell", stdout.decode() == expected, stdout, expected)
        check(f"seed {seed}: JSON's text is stdout's", result["text"].encode() == stdout, result["text"], stdout)
        texts += stdout
    check("there were NULs, broken characters and quotes among them",
          b"\0" in texts and "\ufffd".encode() in texts and b'"' in texts and b"\\" in texts)
    stdout, result, _ = run(path, *sampling, "--compare")
    for mode in result["modes"]:
        heading = f"--- {mode['mode']} ---\n"
        check(f"{mode['mode']} of --compare: the same", (heading + mode["text"] + "\n\n").encode() in stdout, stdout)
    stdout, result, _ = run(path, "--interactive", "--chat_template", "chatml", "--temperature", "3", "--top_k", "0", "--seed",
                            "9", "--ignore_eos", "--max_new_tokens", "60", stdin=b"a\nb\0b\nc\n")
    check("a conversation: the same", result["text"].encode() == stdout and stdout.count(b"\n") >= 3, result["text"], stdout)


def test_stops(folder: Path) -> None:
    said = ["a", "<0x00>", "<0xE2>", "<0x82>", "<0xAC>", "STOP", "<0xC3>", "b"]
    path = write(folder, chain(dict(zip(said, said[1:], strict=False)) | {"b": "</s>"}))
    for stop, expected in (("STOP", "\0\u20ac"), ("\u20acS", "\0"), ("OP\ufffdb", "\0\u20acST"), ("zz", "\0\u20acSTOP\ufffdb")):
        stdout, result, _ = run(path, "--prompt", "a", "--temperature", "0", "--stop", stop)
        check(f"--stop {stop!r} behind a NUL", stdout.decode() == result["text"] == expected, stdout, result["text"])


def test_full_context(folder: Path) -> None:
    path = write(folder, make(CONFIG, 2)[0])
    talk = ("--interactive", "--chat_template", "chatml", "--temperature", "0", "--ignore_eos", "--max_new_tokens", "500")
    stdout, result, stderr = run(path, *talk, "--n_ctx", "100", stdin=b"a\n")
    lines = stderr.splitlines()
    notes = [i for i, line in enumerate(lines) if "the context of 100 tokens is full" in line]
    check("a full context is told at the answer that it cuts",
          len(notes) == 1 and "--n_ctx (up to 512)" in lines[notes[0]] and "--compress_kv" in lines[notes[0]]
          and notes[0] < next(i for i, line in enumerate(lines) if line.startswith("prompt: ")), stderr)
    check("and in the JSON", result["end"] == "the context is full", result["end"])
    _, _, stderr = run(path, *talk, stdin=b"a\n")
    check("no larger --n_ctx where there is none", "is full" in stderr and "--n_ctx" not in stderr, stderr)
    _, result, stderr = run(path, *talk, "--n_ctx", "100", "--compress_kv", "--window_size", "40", stdin=b"a\nb\n")
    check("the cure cures", result["n_generated"] == 1000 and "is full" not in stderr, result["n_generated"], stderr)


def penalized(logits: np.ndarray, history: list[int], window: int, repetition: float, frequency: float,
              presence: float) -> np.ndarray:
    """llama.cpp's llama_sampler_penalties_apply()."""
    for token, count in Counter(history[-window:]).items():
        logits[token] = logits[token] * repetition if logits[token] <= 0 else logits[token] / repetition
        logits[token] -= count * frequency + presence
    return logits


def test_penalties(folder: Path) -> None:
    config = Config(**{**vars(CONFIG), "n_layers": 2})
    file, weights = make(config, 5)
    path = write(folder, file)
    texts = set()
    for window, repetition, frequency, presence in ((64, 1, 0, 0), (64, 1.5, 0, 0), (64, 1, 1, 0), (64, 1, 0, 2),
                                                    (5, 1.5, 0.1, -0.2), (1, 9, 0, 0), (500, 1.1, -0.2, 0.3)):
        flags = ("--repetition_penalty", str(repetition), "--frequency_penalty", str(frequency), "--presence_penalty",
                 str(presence), "--penalty_window", str(window))
        _, result, _ = run(path, "--prompt", "abc a", "--temperature", "0", "--ignore_eos", "--max_new_tokens", "80", *flags)
        tokens, worst = result["prompt_tokens"] + result["tokens"], 0.0
        plain = forward(as_file_stores(config), weights, np.array(tokens))
        for i in range(result["n_prompt"], len(tokens)):
            logits = penalized(plain[i - 1], tokens[:i], window, repetition, frequency, presence)
            worst = max(worst, logits.max() - logits[tokens[i]])
        check(f"{' '.join(flags)}: each token is the definition's most likely one", worst < 1e-3, worst)
        texts.add(tuple(result["tokens"]))
        for mode in ("--quantize_kv", "--compress_kv"):
            _, other, _ = run(path, "--prompt", "abc a", "--temperature", "0", "--ignore_eos", "--max_new_tokens", "80", *flags,
                              mode, "--window_size", "200")
            check(f"{mode} with all in its window: the same", other["tokens"] == result["tokens"])
    check("each setting says something else", len(texts) == 7, len(texts))


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for test in (test_ends, test_bytes, test_stops, test_full_context, test_penalties):
            test(folder)
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
