#!/usr/bin/env python3
"""Whether every include points down: reads the #include "..." lines of all sources, and fails on one that points at a
room which its own may not use, on circles between files, and on sources outside of all rooms.

    python3 tests/test_rooms.py [folder]

A file and a header of one name in one folder (kvcache/plan.c, kvcache/plan.h) are one unit: what a unit needs, directly
or through others, must not need that unit. Folders that begin with a dot, or were built in, are not looked at."""

import os
import re
import sys

BASE = ["base", "base/machine", "base/simd"]
CACHE = ["kvcache", "kvcache/codec"]
CHECKPOINTS = ["checkpoints", "tokenizer"]
MODEL = BASE + CACHE + CHECKPOINTS + ["attention", "model"]
SESSION = MODEL + ["cpu", "cuda", "jinja", "session"]
EVAL = SESSION + ["eval"]

# Each room, and what else its files may include: rooms, or single headers of one. "." is the folder of the programs.
ROOMS = {
    "base": ["base/simd"],  # blocks are decoded in vectors, which know half.h
    "base/machine": ["base"],
    "base/simd": ["base", "base/machine"],
    "tokenizer": BASE,
    "jinja": BASE + ["tokenizer/utf8.h"],
    "kvcache/codec": BASE,
    "kvcache/prefix": BASE,
    "kvcache": BASE + ["kvcache/codec", "kvcache/prefix"],
    "attention": BASE + CACHE,
    "channel_int8": BASE,
    "checkpoints": BASE + ["tokenizer/vocabulary.h", "tokenizer/vocabulary_file.h"],
    "model": BASE + CACHE + CHECKPOINTS + ["attention"],
    "cpu": MODEL,
    "cuda": MODEL + ["channel_int8", "tests/cuda_shim/primitives.h"],  # in place of nvcc where kernels run on the host
    "session": SESSION,
    "eval": SESSION,
    "eval/bench": EVAL,
    "eval/calibrate": EVAL + ["eval/perplexity"],
    "eval/kv_quant": EVAL + ["channel_int8"],
    "eval/perplexity": EVAL,
    "eval/prefix": EVAL + ["kvcache/prefix"],
    "eval/profile": EVAL + ["eval/bench", "eval/perplexity", "eval/recall", "eval/rouge"],
    "eval/recall": EVAL + ["eval/perplexity"],  # a sequence is a window of an evaluation
    "eval/rouge": EVAL,
    "generate": SESSION + ["eval", "eval/profile"],
    ".": SESSION + ["eval", "eval/profile", "generate"],
    "tests": EVAL + ["kvcache/prefix", "eval/bench", "eval/calibrate", "eval/perplexity", "eval/profile", "eval/recall",
                     "eval/rouge",
                     "cuda", "channel_int8", "eval/kv_quant", "tests/cuda_shim"],
    "tests/cuda_shim": ["base", "cuda/blas_library.h"],
    "tests/gpu": MODEL + ["channel_int8", "cpu", "cuda"],
}

SOURCES = (".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".cuh")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">\n]*)[">]', re.MULTILINE)


def find_sources(root):
    """Paths of all sources from root on, in order, with / between folders."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not is_built(os.path.join(folder, f)))
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        found += [file if inside == "." else f"{inside}/{file}" for file in sorted(files) if file.endswith(SOURCES)]
    return found


def is_built(folder):
    return os.path.exists(os.path.join(folder, "CMakeCache.txt"))


def room_of(path):
    return os.path.dirname(path) or "."


def unit_of(path):
    return os.path.splitext(path)[0]


def read_includes(root, sources):
    """(file, line number, what it includes) of all, but for headers that are not the repository's: <math.h>."""
    for source in sources:
        with open(os.path.join(root, source), encoding="utf-8") as file:
            text = file.read()
        for match in INCLUDE.finditer(text):
            if match.group(1) == '"' or match.group(2) in sources:
                yield source, text.count("\n", 0, match.start()) + 1, match.group(2)


def check_rooms(sources):
    """Every source is in a room of the table, and every room of the table is there."""
    rooms = {room_of(source) for source in sources}
    for room in sorted(rooms - set(ROOMS)):
        example = next(source for source in sources if room_of(source) == room)
        yield f"{example} is in no room: add {room} to ROOMS of tests/test_rooms.py, with what it may use"
    for room in sorted(set(ROOMS) - rooms):
        yield f"{room}/ is a room of tests/test_rooms.py and has no sources: take it out of ROOMS"
    for room, allowed in ROOMS.items():
        for other in allowed:
            if other not in ROOMS and other not in sources:
                yield f"ROOMS of tests/test_rooms.py lets {room} use {other}, which is not there"


def check_arrow(source, line, included, sources):
    room = room_of(source)
    allowed = ROOMS.get(room)
    if included not in sources:
        return f'{source}:{line}: "{included}" is no file of the repository: write its path from the top folder'
    target = room_of(included)
    if allowed is None or target == room or target in allowed or included in allowed:
        return None
    return (f'{source}:{line}: "{included}" points from {room} to {target}, where no arrow may go: '
            f"{room} may use {', '.join(sorted(set(allowed) - {room})) or 'nothing else'}")


def find_circle(needs):
    """Units that need each other, as [(unit, file, line), …] around the circle; None where there is none."""
    state = {}  # True: through; False: on the way

    def visit(unit, way):
        state[unit] = False
        for other, (file, line) in sorted(needs.get(unit, {}).items()):
            step = way + [(unit, file, line)]
            if state.get(other) is False:
                return step[[u for u, _, _ in step].index(other):]
            if other not in state:
                circle = visit(other, step)
                if circle:
                    return circle
        state[unit] = True
        return None

    for unit in sorted(needs):
        if unit not in state:
            circle = visit(unit, [])
            if circle:
                return circle
    return None


def check_circles(includes):
    """One message for each circle: it is broken at its last include to look for further ones."""
    needs = {}
    for source, line, included in includes:
        unit, other = unit_of(source), unit_of(included)
        if unit != other:
            needs.setdefault(unit, {}).setdefault(other, (source, line))
    while True:
        circle = find_circle(needs)
        if circle is None:
            return
        units = [unit for unit, _, _ in circle]
        steps = [f"{file}:{line} includes {after}" for (_, file, line), after in zip(circle, units[1:] + units[:1])]
        yield f"a circle of files, {' -> '.join(units + units[:1])}: {'; '.join(steps)}"
        del needs[units[-1]][units[0]]


def main(root):
    sources = find_sources(root)
    includes = list(read_includes(root, sources))
    problems = list(check_rooms(sources))
    problems += [p for p in (check_arrow(*include, sources) for include in includes) if p]
    inside = [include for include in includes if include[2] in sources]
    problems += check_circles(inside)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(sources)} sources in {len(ROOMS)} rooms, {len(includes)} includes, {len(problems)} problems")
    return 1 if problems or not includes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")))
