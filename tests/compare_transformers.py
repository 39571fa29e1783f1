#!/usr/bin/env python3
"""Hugging Face's transformers as an oracle, by hand: its library is too large for tests. Needs the PyPI packages torch and
transformers, and a build with tests.

    tests/compare_transformers.py build/tests/write_logits

For each family a tiny random model is made and saved by transformers, in F32, and logits of as many tokens as a few windows
are compared with those of the program on the saved folder. README.md has what it said."""

import argparse
import pathlib
import subprocess
import tempfile

import numpy as np
import torch
import transformers

N_TOKENS, WINDOW = 96, 24
SIZES = {"vocab_size": 101, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "pad_token_id": 0,
         "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False}
WIDE = {"head_dim": 24}  # apart from hidden_size / num_attention_heads
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
LONGROPE = {"type": "longrope", "short_factor": [1.0, 1.0, 1.1, 1.1, 1.2, 1.3, 1.5, 1.7],
            "long_factor": [1.0, 1.2, 2.0, 4.0, 8.0, 16.0, 20.0, 30.0]}
GEMMA = {"sliding_window": WINDOW, "query_pre_attn_scalar": 48, "tie_word_embeddings": True, **WIDE}

# A model: its class without ForCausalLM, and its configuration.
MODELS = {
    "llama": ("Llama", {}),
    "llama3": ("Llama", {"rope_scaling": LLAMA3, "rope_theta": 500000.0, "tie_word_embeddings": True}),
    "llama linear": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mistral": ("Mistral", {"sliding_window": WINDOW, **WIDE}),
    "qwen2": ("Qwen2", {"rope_theta": 1000000.0}),
    "qwen2 window": ("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 3}),
    "qwen3": ("Qwen3", {"rope_theta": 1000000.0, **WIDE}),
    "phi3": ("Phi3", {"sliding_window": WINDOW}),
    "phi3 long": ("Phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 64}),  # of fewer tokens than the text
    "phi3 short": ("Phi3", {"rope_scaling": LONGROPE, "original_max_position_embeddings": 128}),  # as many as write_logits takes
    "gemma2": ("Gemma2", {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, **GEMMA}),
    "gemma3": ("Gemma3", {"rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, **GEMMA}),
    "gemma3 linear": ("Gemma3", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, **GEMMA}),
    "olmo2": ("Olmo2", {"rope_theta": 500000.0}),
    "smollm3": ("SmolLM3", {"rope_theta": 2000000.0}),
}


def make_model(kind: str, fields: dict) -> torch.nn.Module:
    """Random weights of which all have a part in the logits: softmax is far from even, gains far from 1."""
    config_class = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
    model = getattr(transformers, f"{kind}ForCausalLM")(config_class(**(SIZES | fields), attn_implementation="eager"))
    for name, values in model.named_parameters():
        mean = 1.0 if values.dim() == 1 and name.endswith("norm.weight") and not kind.startswith("Gemma") else 0.0
        std = values.shape[1]**-0.5 if values.dim() == 2 else 1.0 if name.endswith("bias") else 0.2
        sharp = name.endswith(("q_proj.weight", "k_proj.weight", "qkv_proj.weight"))
        torch.nn.init.normal_(values, mean, 2 * std if sharp else std)
    return model.float().eval()


class HalfCache(transformers.DynamicCache):
    """Keys and values in F16, as the program's cache has them."""

    def update(self, keys: torch.Tensor, values: torch.Tensor, *where: object) -> tuple[torch.Tensor, torch.Tensor]:
        return super().update(keys.half().to(keys.dtype), values.half().to(values.dtype), *where)


def reference(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.double()(torch.from_numpy(tokens.astype(np.int64))[None], past_key_values=HalfCache(), use_cache=True).logits[0].numpy()


def program(write_logits: str, folder: pathlib.Path, tokens: np.ndarray) -> np.ndarray:
    tokens.astype("<i4").tofile(folder / "tokens")
    subprocess.run([write_logits, folder, folder / "tokens", folder / "logits"], check=True)
    return np.fromfile(folder / "logits", "<f4").reshape(len(tokens), -1).astype(np.float64)


def compare(write_logits: str, name: str, folder: pathlib.Path) -> None:
    kind, fields = MODELS[name]
    torch.manual_seed(len(name))
    model = make_model(kind, fields)
    model.save_pretrained(folder)
    tokens = np.random.default_rng(len(name)).integers(3, SIZES["vocab_size"], N_TOKENS)
    expected, got = reference(model, tokens), program(write_logits, folder, tokens)
    size = np.sqrt(np.mean(expected**2))
    print(f"{name:16} rms {np.sqrt(np.mean((got - expected)**2)) / size:.1e}  "
          f"largest {np.abs(got - expected).max() / size:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("write_logits")
    parser.add_argument("models", nargs="*", choices=[*MODELS, []], help="default: all")
    args = parser.parse_args()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}; {N_TOKENS} tokens, windows of {WINDOW}")
    for name in args.models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            compare(args.write_logits, name, pathlib.Path(folder))


if __name__ == "__main__":
    main()
