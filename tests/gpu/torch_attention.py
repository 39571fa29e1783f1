#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention of one FP16 query on the shapes of gpu_attention, as JSON lines: what a decode
step's attention costs in a widely used framework, to stand beside ours.

    python3 tests/gpu/torch_attention.py [--depths 8192,32768,131072]

Layers are as many as exceed the second cache three times; calls are recorded as a CUDA graph where that works, and
timed by events. Exits with 77 where there is no PyTorch or no GPU."""

import argparse
import json
import sys

SKIPPED = 77
BACKENDS = {"default": [], "flash": ["FLASH_ATTENTION"], "cudnn": ["CUDNN_ATTENTION"], "efficient": ["EFFICIENT_ATTENTION"]}


def milliseconds(torch, work):
    """Median and least time of work(), over about 0.2 s after one call that is not timed."""
    times = []
    work()
    torch.cuda.synchronize()
    while len(times) < 3 or (sum(times) < 200 and len(times) < 200):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    times.sort()
    return times[len(times) // 2], times[0]


def copy_bandwidth(torch, cache_bytes):
    """Bytes read and written a second by a copy of eight times the second cache."""
    source = torch.zeros(8 * cache_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    _, best = milliseconds(torch, lambda: target.copy_(source))
    return 2 * source.numel() / (best * 1e-3)


def recorded(torch, work):
    """work() as a replay of a graph, and whether it could be recorded."""
    try:
        work()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay, True
    except RuntimeError:
        torch.cuda.synchronize()
        return work, False


def attention(torch, backend, q, layers):
    """A function that attends with q to each (k, v) of layers."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    sdpa = torch.nn.functional.scaled_dot_product_attention
    chosen = [getattr(SDPBackend, name) for name in BACKENDS[backend]]

    def work():
        for k, v in layers:
            sdpa(q, k, v, enable_gqa=True)

    def work_chosen():
        with sdpa_kernel(chosen):
            work()

    return work_chosen if chosen else work


def measure(torch, args, backend, depth, cache_bytes, bandwidth):
    shape = (1, args.kv_heads, depth, args.head_dim)
    layer_bytes = 2 * 2 * depth * args.kv_heads * args.head_dim
    n_layers = min(max(-(-3 * cache_bytes // layer_bytes), 2), 64)
    make = lambda *size: torch.randn(*size, dtype=torch.float16, device="cuda")
    layers = [(make(*shape), make(*shape)) for _ in range(n_layers)]
    work, graph = recorded(torch, attention(torch, backend, make(1, args.heads, 1, args.head_dim), layers))
    median, least = milliseconds(torch, work)
    rate = layer_bytes * n_layers / (median * 1e-3)
    return {"test": "torch_attention", "device_name": torch.cuda.get_device_name(0), "torch": torch.__version__,
            "backend": backend, "codec": "f16", "depth": depth, "layers": n_layers, "graph": graph,
            "bytes_per_layer": layer_bytes, "us_per_layer": 1e3 * median / n_layers,
            "us_per_layer_min": 1e3 * least / n_layers, "bytes_per_second": rate, "copy_bandwidth": bandwidth,
            "bandwidth_share": rate / bandwidth}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depths", default="8192,32768,131072")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv_heads", type=int, default=8)
    parser.add_argument("--head_dim", type=int, default=128)
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        print("torch_attention.py: error: this Python has no PyTorch", file=sys.stderr)
        return SKIPPED
    if not torch.cuda.is_available():
        print("torch_attention.py: error: PyTorch finds no GPU", file=sys.stderr)
        return SKIPPED
    torch.manual_seed(1)
    properties = torch.cuda.get_device_properties(0)
    cache_bytes = getattr(properties, "L2_cache_size", 64 << 20)
    bandwidth = copy_bandwidth(torch, cache_bytes)
    n_measured = 0
    for depth in (int(text) for text in args.depths.split(",")):
        for backend in BACKENDS:
            try:
                print(json.dumps(measure(torch, args, backend, depth, cache_bytes, bandwidth)), flush=True)
                n_measured += 1
            except RuntimeError as error:  # a kernel that does not have this shape
                print(f"torch_attention.py: {backend} at {depth}: {str(error).splitlines()[0]}", file=sys.stderr)
            torch.cuda.empty_cache()
    return 0 if n_measured else 1


if __name__ == "__main__":
    sys.exit(main())
