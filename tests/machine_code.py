#!/usr/bin/env python3
"""Whether ptxas made of the hot kernels what their sources count on: compiles them as the build does, and reads the
machine code. A kernel whose registers do not suffice, or whose array has an index that is no constant, is right and
slow: it goes through local memory; one that loads 4 bytes where it could 16 likewise.

    python3 tests/machine_code.py [--nvcc nvcc] [--options "--fmad=false"] [--only TEXT] [folder]

Prints a line for each kernel and architecture. Exit status 1 where one is not as RULES says; 77 without nvcc."""

import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

import cubin

# Architectures, by how long their code takes to make: that of attention, for one, takes most of this test's time.
BOTH, NEWEST = ("sm_80", "sm_90"), ("sm_90",)
FILES = {
    "cuda/matvec.cu": BOTH,
    "cuda/dequantize.cu": BOTH,
    "cuda/elements.cu": NEWEST,
    "cuda/cache.cu": BOTH,
    "cuda/channel_steps.cu": BOTH,
    "cuda/channel_fused.cu": BOTH,
    "cuda/attend_fused.cu": NEWEST,
    "cuda/attend_prefill.cu": NEWEST,
}


class Rule:
    """What kernels whose name matches must have: how many of some instructions at least, a number or a function of the
    name's match; and the bytes of their stack and of spills to it that they may have, with the reason. Between the first
    HMMA and the last there is no access to the stack."""

    def __init__(self, name, needs=None, stack=0, spills=0, reason=None):
        assert (stack > 0) == (reason is not None)
        self.name = re.compile(name)
        self.needs = needs or {}
        self.stack, self.spills = stack, spills


def code_loads(match):
    """Of 32 columns: a piece of four rows' codes for each bit, twice where the next block is on its way."""
    return CODE_BITS[match[1]] * (2 if match[2] == "1" else 1)


def block_loads(match):
    """The same, and the activations of each token."""
    return code_loads(match) + 8 * int(match[2])


ATTENDS = {("LDG.128", "LDGSTS.128"): 1, ("HMMA",): 1}
PLAN_BYTES = 176  # of KvPlan (kvcache/plan.h) and what is made of it

# The first rule that matches holds.
RULES = [
    Rule(r"multiply_coded<(\w+), (4), false>", {("LDG.128",): block_loads}, stack=24, spills=24,
         reason="ptxas keeps to 128 registers, so that two blocks of threads fit: up to three loads in some 800 instructions"),
    Rule(r"multiply_coded<(\w+), (1), false>", {("LDG.128",): block_loads}, stack=8, spills=4,
         reason="80 registers let three blocks of threads fit; what tells a gate's second turn waits outside of the loop"),
    Rule(r"multiply_coded<(\w+), (1), true>", {("LDG.128",): code_loads, ("LDS.128",): 8}),
    Rule(r"multiply_floats<", {("LDG.128",): 8}),
    Rule(r"make_halves<", {("STG.128",): 1}),
    Rule(r"(find_largest<|halve_token|undo_factor)"),
    Rule(r"(embed_coded<|embed_floats<|normalize|gate_up|gate_gelu|add_to|scale_by|cap_at)"),
    Rule(r"(codes_vectorized|find_largest)<\w+( short)?, true>", {("LDG.128",): 8}),
    Rule(r"decode_vectorized<\w+( short)?, true>", {("STG.128",): 8}),
    Rule(r"fused<\w+( short)?, true>", {("LDG.128",): 8}),
    Rule(r"((codes|decode)_(naive|tiled|coarsened|vectorized)|find_largest|scales_naive|fused)<|set_scales"),
    Rule(r"commit_batch", {("LDG.128",): 4}),
    Rule(r"(append_token|encode_due|take_batch|begin_batch)"),
    Rule(r"plan_layers", stack=PLAN_BYTES, reason="a plan of the cache, once for a layer and step, by one thread"),
    Rule(r"attend_fused<", ATTENDS),
    Rule(r"attend_prefill<", ATTENDS, stack=PLAN_BYTES,
         reason="plans of the cache, whose arrays have a tier as index, once for a block of queries"),
]
SHOWN = ["LDG.128", "LDS.128", "LDGSTS.128", "STG.128", "HMMA"]

CODE_BITS = {}  # of tensor types, filled by read_types()

PROPERTIES = re.compile(r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, "
                        r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
                        r"Used (?P<registers>\d+) registers", re.DOTALL)


def read_types(root):
    """Names of tensor types in the order of their enum, by which names of kernels have them."""
    with open(os.path.join(root, "model/packed_format.h"), encoding="utf-8") as file:
        CODE_BITS.update((name, int(bits)) for name, bits in re.findall(r"DO\(TYPE_(\w+), +(\d+),", file.read()))
    with open(os.path.join(root, "base/tensor.h"), encoding="utf-8") as file:
        return re.findall(r"^    DO\((\w+),", file.read(), re.MULTILINE)


def short_name(demangled, types):
    """multiply_coded<Q4_K, 4> of "void (anonymous namespace)::multiply_coded<(TensorType)11, 4>(…)"."""
    name = re.match(r"(?:void )?(?:\(anonymous namespace\)::)?(\w+(?:<.*?>(?=\())?)", demangled).group(1)
    name = re.sub(r"\(TensorType\)(\d+)", lambda match: types[int(match.group(1))], name)
    return re.sub(r"\(\w+\)", "", name)


def demangle(names):
    filter_ = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True)
    return dict(zip(names, filter_.stdout.splitlines()))


def compile_file(root, work, nvcc, options, path, architecture):
    """(properties by mangled name, kernels), or what the compiler says."""
    out = os.path.join(work, f"{os.path.basename(path)}.{architecture}")
    command = [nvcc, "-cubin", f"-arch={architecture}", "-std=c++17", "-O3", "-DNDEBUG", *options, "-Xptxas", "-v", "-I",
               root, os.path.join(root, path), "-o", out]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}")
    return {match["name"]: match for match in PROPERTIES.finditer(done.stdout)}, list(cubin.kernels(out))


def local_in_products(kernel):
    """Loads from local memory, and stores, between the first HMMA and the last, in the order of the code."""
    products = [i for i, instruction in enumerate(kernel.instructions) if instruction == "HMMA"]
    between = kernel.instructions[products[0]:products[-1]] if products else []
    return sum((instruction or "").startswith(("LDL", "STL")) for instruction in between)


def faults(name, properties, kernel):
    """What is not as it must be, in words."""
    rule, match = next(((rule, rule.name.match(name)) for rule in RULES if rule.name.match(name)), (None, None))
    if rule is None:
        return ["RULES of tests/machine_code.py do not know it"]
    found = []
    for what, number, allowed in (("spills", int(properties["stores"]), rule.spills),
                                  ("stack frame", int(properties["stack"]), rule.stack)):
        if number > allowed:
            found.append(f"{what} of {number} bytes, {allowed} are allowed")
    if rule.stack == 0 and kernel.count("LDL") + kernel.count("STL") > 0:
        found.append(f"{kernel.count('LDL')} loads from local memory, {kernel.count('STL')} stores")
    if local_in_products(kernel) > 0:
        found.append(f"{local_in_products(kernel)} accesses to local memory between the first HMMA and the last")
    for instructions, least in rule.needs.items():
        least, number = least(match) if callable(least) else least, sum(map(kernel.count, instructions))
        if number < least:
            found.append(f"{number} {' or '.join(instructions)}, at least {least} are expected")
    return found


def check_file(path, architecture, properties, kernels, types):
    """Prints the file's lines; returns how many kernels have faults."""
    names = demangle([kernel.name for kernel in kernels])
    n_faulty = 0
    for kernel in sorted(kernels, key=lambda k: short_name(names[k.name], types)):
        name = short_name(names[kernel.name], types)
        found = faults(name, properties[kernel.name], kernel)
        n_faulty += bool(found)
        columns = "".join(f"{kernel.count(shown):>{max(len(shown), 4) + 2}}" for shown in SHOWN)
        print(f"{architecture}  {name:<36}{properties[kernel.name]['registers']:>10}{len(kernel.instructions):>14}{columns}"
              + "".join(f"\n       FAULT in {path}: {fault}" for fault in found))
    return n_faulty


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--nvcc", default=shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc")
    parser.add_argument("--options", default="--fmad=false", help="of cuda/CMakeLists.txt")
    parser.add_argument("--only", default="", help="files whose name has this")
    parser.add_argument("root", nargs="?", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    arguments = parser.parse_args()
    if not os.path.exists(arguments.nvcc):
        print("SKIPPED: there is no nvcc; name it with --nvcc")
        return 77
    jobs = [(path, architecture) for path, architectures in FILES.items() for architecture in architectures
            if arguments.only in path and os.path.exists(os.path.join(arguments.root, path))]
    types, n_faulty, n_kernels = read_types(arguments.root), 0, 0
    with tempfile.TemporaryDirectory() as work, \
            concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        longest_first = sorted(jobs, key=lambda job: "attend" not in job[0])
        compiled = {job: pool.submit(compile_file, arguments.root, work, arguments.nvcc, arguments.options.split(), *job)
                    for job in longest_first}
        print(f"{'':<5}  {'kernel':<36}{'registers':>10}{'instructions':>14}" + "".join(
            f"{shown:>{max(len(shown), 4) + 2}}" for shown in SHOWN))
        for path, architecture in jobs:
            properties, kernels = compiled[path, architecture].result()
            n_kernels += len(kernels)
            n_faulty += check_file(path, architecture, properties, kernels, types)
    print(f"{n_kernels} kernels, {n_faulty} with faults")
    return 0 if n_faulty == 0 and n_kernels > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
