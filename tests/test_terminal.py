#!/usr/bin/env python3
"""What the programs show of their progress: a line that says how far, how fast and how long on a terminal, cleared at the
end, and nothing of it in a pipe.

    STOWKV_BUILD=build STOWKV_DATA=folder python3 tests/test_terminal.py

runs the programs on stories260K with a pseudo terminal for stderr, and with a pipe. Status 77: a file is missing."""

import os
import pty
import re
import subprocess
import sys
import tempfile

BUILD, DATA = os.environ["STOWKV_BUILD"], os.environ.get("STOWKV_DATA", "")
EMULATOR = os.environ.get("STOWKV_EMULATOR", "").split()
STORIES, WIKI = os.path.join(DATA, "stories260K.bin"), os.path.join(DATA, "wiki.test.raw")
CLEAR = "\r\033[K"

# Program, arguments, and what its lines begin with.
CASES = [
    ("generate", ["--prompt_file", "prompt", "--max_new_tokens", "20", "--compress_kv"],
     ["reading the prompt", "generating"]),
    ("generate", ["--prompt", "Once", "--max_new_tokens", "10", "--profile", "run", "--quantize_kv", "--profile_quality",
                  "--n_ctx", "256"],
     ["generating", "measuring", "quality, the model's own text", "quality, perplexity", "quality, ROUGE-L", "recall"]),
    ("perplexity", ["--text_file", "text", "--context", "256", "--chunks", "4"], ["perplexity"]),
    ("recall", ["--distances", "64,200", "--samples", "4"], ["recall"]),
    ("recall", ["--needle", "--lengths", "480", "--positions", "2", "--samples", "2"], ["needles"]),
    ("bench", ["--depths", "0", "--repetitions", "1", "--prompt_tokens", "64"], ["measuring"]),
    ("rouge", ["--data", "pairs.jsonl", "--prompt_field", "a", "--reference_field", "b", "--max_new_tokens", "8"],
     ["rouge"]),
]


def run_on_terminal(command, folder):
    """stderr's text; stdout goes to a file."""
    master, slave = pty.openpty()
    with open(os.path.join(folder, "stdout"), "wb") as stdout:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=stdout, stderr=slave)
    os.close(slave)
    text = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the last one who had the terminal has closed it
            break
        if not part:
            break
        text += part
    os.close(master)
    return process.wait(), text.decode().replace("\r\n", "\n")


def lines_shown(text):
    """What was on the line before it was cleared or written over."""
    return [part for part in re.split(re.escape(CLEAR) + "|\n", text) if re.search(r": [0-9.]+ %", part)]


def check_terminal(name, command, folder, expected):
    status, text = run_on_terminal(command, folder)
    assert status == 0, f"{name}: status {status}: {text!r}"
    shown = lines_shown(text)
    for line in shown:
        assert re.match(r"[^%]+: ([0-9.]+ %(, [0-9.e+]+ \w+/s)?, [0-9]+:[0-9]{2} left|0\.0 %)(, .*)?$", line), line
        assert "PPL" not in line or name == "perplexity", line
    begun = {line.split(": ")[0] for line in shown}
    assert begun == set(expected), f"{name}: {begun} instead of {set(expected)}"
    last = text[text.rindex(shown[-1]) + len(shown[-1]):]
    assert last.startswith(CLEAR), f"{name}: a line stays: {last!r}"
    assert len(max(shown, key=len)) < 80, max(shown, key=len)


def check_pipe(name, command, folder):
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, check=True)
    assert b"\r" not in done.stderr and b"left" not in done.stderr, f"{name}: {done.stderr!r}"


def make_inputs(folder):
    with open(WIKI, encoding="utf-8") as file:
        text = file.read(6000)
    for name, content in (("text", text), ("prompt", text[:700]),
                          ("pairs.jsonl", '{"a": "Once upon a time", "b": "there was"}\n' * 3)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(content)


def main():
    if not os.access(STORIES, os.R_OK) or not os.access(WIKI, os.R_OK):
        print("\n*** SKIPPED: test_terminal; STOWKV_DATA has no stories260K.bin and wiki.test.raw ***\n")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(folder)
        for name, arguments, expected in CASES:
            command = EMULATOR + [os.path.join(BUILD, name), "--checkpoint_path", STORIES] + arguments
            check_terminal(name, command, folder, expected)
            check_pipe(name, command, folder)
            print(f"ok      {name} {' '.join(arguments)}")


if __name__ == "__main__":
    main()
