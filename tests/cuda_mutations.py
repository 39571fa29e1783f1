#!/usr/bin/env python3
"""Whether the tests of the CUDA kernels see faults: puts one after another of a list into a copy of the sources, builds
the test that must fail, and runs it on the simulated GPU with AddressSanitizer.

    python3 tests/cuda_mutations.py [--only TEXT] [--fixtures build/fixtures] [cmake options …]

Takes minutes, and some more for the first build. Exit status 1 where a fault was not seen. A fault is a file, a text
that is there exactly once, what replaces it, and the test."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")

MUTATIONS = [
    # encoding, and the cache's movements
    ("cuda/encode.cuh", "at[half] = a - b;", "at[half] = b - a;", "test_cuda_cache"),
    ("cuda/encode.cuh", "            at[half] = a - b;\n        }\n        __syncthreads();",
     "            at[half] = a - b;\n        }", "test_cuda_cache"),
    ("cuda/encode.cuh", "range.taint += *x - *x;", "range.taint += 0;", "test_cuda_cache"),
    ("cuda/encode.cuh", "if (dim >= shape->head_dim)", "if (dim > shape->head_dim)", "test_cuda_cache"),
    ("cuda/encode.cuh", "            __syncthreads();\n            choose_codes(", "            choose_codes(",
     "test_cuda_cache"),
    ("cuda/encode.cuh", "        __syncthreads();\n        pack_fragments(", "        pack_fragments(",
     "test_cuda_cache"),
    ("cuda/encode.cuh", "code ^ 0x80", "code", "test_cuda_cache"),
    ("cuda/cache.cu", "half - 1 : half", "half : half", "test_cuda_cache"),
    ("cuda/cache.cu", "load_record(work, KV_TIER(tier - 1), entered / group)", "load_record(work, KV_TIER(tier - 1), 0)",
     "test_cuda_cache"),
    ("cuda/cache.cu", "        __syncthreads();\n        for (size_t u = 0; u < MOVE_UNITS; u++)",
     "        for (size_t u = 0; u < MOVE_UNITS; u++)", "test_cuda_cache"),
    ("cuda/cache.cu", "copy_rows(sink + move.in_sink * dim,", "copy_rows(sink,", "test_cuda_cache"),
    ("cuda/cache.cu", "batch->group * batch->head_dim, stream", "batch->group * batch->head_dim - 1, stream",
     "test_cuda_cache"),
    ("cuda/fragments.h", "token % 2 + token / 8 % 2 * 2", "token % 2 * 2 + token / 8 % 2", "test_cuda_cache"),
    ("cuda/fragments.h", "n_words % 4 >= 2 && word - fours < 2", "n_words % 4 >= 2 && word - fours < 1",
     "test_cuda_cache"),
]


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def copy_sources(to):
    for path in run(["git", "ls-files"], cwd=ROOT).stdout.split():
        os.makedirs(os.path.dirname(os.path.join(to, path)), exist_ok=True)
        shutil.copy2(os.path.join(ROOT, path), os.path.join(to, path))


def try_mutation(source, build, environment, mutation):
    """Says what happened: "seen", or what else."""
    path, old, new, test = mutation
    with open(os.path.join(source, path), encoding="utf-8") as file:
        text = file.read()
    if text.count(old) != 1:
        return f"the text is there {text.count(old)} times"
    try:
        with open(os.path.join(source, path), "w", encoding="utf-8") as file:
            file.write(text.replace(old, new))
        built = run(["cmake", "--build", build, "--target", test])
        if built.returncode != 0:
            return "does not compile:\n" + built.stdout[-2000:]
        tested = run([os.path.join(build, "tests", test)], env=environment)
        return "seen" if tested.returncode not in (0, 77) else "NOT SEEN"
    finally:
        with open(os.path.join(source, path), "w", encoding="utf-8") as file:
            file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", default="", help="faults whose file or text has this")
    parser.add_argument("--fixtures", default=os.path.join(ROOT, "build", "fixtures"))
    options, cmake_options = parser.parse_known_args()
    environment = dict(os.environ, STOWKV_FIXTURES=os.path.abspath(options.fixtures))
    chosen = [m for m in MUTATIONS if any(options.only in part for part in m)]
    n_seen = 0
    with tempfile.TemporaryDirectory() as work:
        source, build = os.path.join(work, "source"), os.path.join(work, "build")
        copy_sources(source)
        configured = run(["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Debug", "-DSTOWKV_SANITIZE=ON",
                          "-DSTOWKV_CUDA=OFF", *cmake_options])
        if configured.returncode != 0:
            sys.exit(configured.stdout)
        for mutation in chosen:
            result = try_mutation(source, build, environment, mutation)
            n_seen += result == "seen"
            print(f"{result}: {mutation[0]}: {mutation[1].strip().splitlines()[-1]} -> "
                  f"{(mutation[2].strip().splitlines() or ['nothing'])[-1]}", flush=True)
    print(f"{n_seen} of {len(chosen)} faults seen")
    return 0 if n_seen == len(chosen) and chosen else 1


if __name__ == "__main__":
    sys.exit(main())
