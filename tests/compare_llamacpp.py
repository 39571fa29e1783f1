#!/usr/bin/env python3
"""llama.cpp as an oracle, by hand: it takes minutes to build, so no test runs it. Needs the PyPI packages llama-cpp-python and gguf.

    tests/compare_llamacpp.py logits build/fixtures/models       # the float64 program's logits of tiny models of each family
    tests/compare_llamacpp.py expand MODEL.gguf MODEL-f32.gguf   # all tensors in F32, so that activations are not rounded
    tests/compare_llamacpp.py perplexity MODEL-f32.gguf wiki.test.raw --context 2048 --chunks 4

docs/quality.md has what it said. llama.cpp keeps no window for `llama` and `phi3`: those models are compared within it."""

import argparse
import ctypes
import math
import pathlib

import llama_cpp
import numpy as np

MODELS = {"f32": 0, "qwen2_f32": 0, "qwen3_f32": 0, "gemma3_f32": 0, "gemma3_global": 0, "gemma2_f32": 0, "olmo2_f32": 0,
          "smollm3_f32": 0, "phi3_f32": 40, "mistral_f32": 33}  # how many tokens; 0: all
F32, F16 = 0, 1


class Run:
    """One model, and contexts of n tokens that are read at once."""

    def __init__(self, path: pathlib.Path, n: int, cache_type: int) -> None:
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        assert self.model, path
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = n
        params.type_k = params.type_v = cache_type
        params.flash_attn_type = 0
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        assert self.context, path

    def logits(self, tokens: list[int], first: int = 0):
        """Of each token from `first` on, in order."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = int(token), i, 1, 0
            batch.logits[i] = i >= first
        assert llama_cpp.llama_decode(self.context, batch) == 0
        for i in range(first, len(tokens)):
            row = llama_cpp.llama_get_logits_ith(self.context, i)
            yield np.ctypeslib.as_array(row, (self.n_vocab,)).astype(np.float64)
        llama_cpp.llama_batch_free(batch)

    def tokens(self, text: bytes) -> list[int]:
        buffer = (llama_cpp.llama_token * (len(text) + 8))()
        n = llama_cpp.llama_tokenize(self.vocab, text, len(text), buffer, len(buffer), True, False)
        return list(buffer[:n])


def compare_logits(folder: pathlib.Path) -> None:
    for name, most in MODELS.items():
        tokens = np.fromfile(folder / f"{name}.tokens", "<i4")
        expected = np.fromfile(folder / f"{name}.logits", "<f8").reshape(len(tokens), -1)
        n = most or len(tokens)
        got = np.stack(list(Run(folder / f"{name}.gguf", 256, F16).logits(list(tokens[:n]))))
        size = np.sqrt(np.mean(expected[:n]**2))
        print(f"{name:16} {n:4} tokens: rms {np.sqrt(np.mean((got - expected[:n])**2)) / size:.1e}", flush=True)


def expand(source: pathlib.Path, target: pathlib.Path) -> None:
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, quants
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.")):
            sub_type = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=sub_type)
    for tensor in reader.tensors:
        shape = [int(n) for n in reversed(tensor.shape)]
        writer.add_tensor(tensor.name, quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def perplexity(model: pathlib.Path, text: pathlib.Path, context: int, n_chunks: int) -> None:
    """Chunks, the first token of each replaced by BOS, the second half scored."""
    run, total, count = Run(model, context, F32), 0.0, 0
    tokens = run.tokens(text.read_bytes())
    for chunk in range(n_chunks):
        ids = tokens[chunk * context:(chunk + 1) * context]
        ids[0] = llama_cpp.llama_vocab_bos(run.vocab)
        for i, row in zip(range(context // 2, context - 1), run.logits(ids, context // 2)):
            total += row.max() + math.log(np.exp(row - row.max()).sum()) - row[ids[i + 1]]
            count += 1
        print(f"{chunk + 1} {math.exp(total / count):.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("logits").add_argument("folder", type=pathlib.Path)
    expanding, measuring = commands.add_parser("expand"), commands.add_parser("perplexity")
    expanding.add_argument("source", type=pathlib.Path)
    expanding.add_argument("target", type=pathlib.Path)
    measuring.add_argument("model", type=pathlib.Path)
    measuring.add_argument("text", type=pathlib.Path)
    measuring.add_argument("--context", type=int, default=512)
    measuring.add_argument("--chunks", type=int, default=4)
    args = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    if args.command == "logits":
        compare_logits(args.folder)
    elif args.command == "expand":
        expand(args.source, args.target)
    else:
        perplexity(args.model, args.text, args.context, args.chunks)


if __name__ == "__main__":
    main()
