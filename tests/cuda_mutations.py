#!/usr/bin/env python3
"""Whether the tests of the CUDA kernels see faults: puts one after another of those in tests/mutations/ into a copy of the
sources, builds the test that must fail, and runs it on the simulated GPU with AddressSanitizer.

    python3 tests/cuda_mutations.py [--only TEXT] [--fixtures build/fixtures] [cmake options …]

Takes minutes, and some more for the first build. Exit status 1 where a fault was not seen. tests/mutations/NAME.txt is for
tests/test_cuda_NAME.c: each line a file, a tab, and s/regular expression/what replaces it/n for the n-th line (the first,
where there is no n) that the expression matches."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")

MUTATION = re.compile(r"s/((?:[^/\\]|\\.)*)/((?:[^/\\]|\\.)*)/(\d*)")


def read_mutations():
    """(test, path, expression, replacement, n) of all."""
    folder = os.path.join(ROOT, "tests", "mutations")
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            for line in file.read().splitlines():
                if line and not line.startswith("#"):
                    path, substitution = line.split("\t")
                    old, new, n = MUTATION.fullmatch(substitution).groups()
                    yield f"test_cuda_{os.path.splitext(name)[0]}", path, old, new.replace("\\/", "/"), int(n or 1)


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def copy_sources(to):
    for path in run(["git", "ls-files"], cwd=ROOT).stdout.split():
        os.makedirs(os.path.dirname(os.path.join(to, path)), exist_ok=True)
        shutil.copy2(os.path.join(ROOT, path), os.path.join(to, path))


def mutate(text, old, new, n):
    """The text with the n-th line that matches changed, or None."""
    lines = text.split("\n")
    matching = [i for i, line in enumerate(lines) if re.search(old, line)]
    if len(matching) < n:
        return None
    lines[matching[n - 1]] = re.sub(old, lambda _: new, lines[matching[n - 1]], count=1)
    return "\n".join(lines)


def try_mutation(source, build, environment, mutation):
    """Says what happened: "seen", or what else."""
    test, path, old, new, n = mutation
    with open(os.path.join(source, path), encoding="utf-8") as file:
        text = file.read()
    changed = mutate(text, old, new, n)
    if changed is None:
        return "NOT THERE"
    try:
        with open(os.path.join(source, path), "w", encoding="utf-8") as file:
            file.write(changed)
        built = run(["cmake", "--build", build, "--target", test])
        if built.returncode != 0:
            return "DOES NOT COMPILE:\n" + built.stdout[-2000:]
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
    chosen = [m for m in read_mutations() if any(options.only in str(part) for part in m)]
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
            print(f"{result}: {mutation[1]}: {mutation[2]} -> {mutation[3]}", flush=True)
    print(f"{n_seen} of {len(chosen)} faults seen")
    return 0 if n_seen == len(chosen) and chosen else 1


if __name__ == "__main__":
    sys.exit(main())
