/* The tensors of a Llama-family model by their role, each checked for its shape. */
#ifndef STOWKV_WEIGHTS_H
#define STOWKV_WEIGHTS_H

#include "checkpoints/checkpoint.h"

/* Shapes as GGUF writes them, {columns, rows}: y = W x has one output a row. */
typedef struct LayerWeights {
    Tensor attn_norm;   /* {n_embd} */
    Tensor attn_q;      /* {n_embd, n_heads * head_dim} */
    Tensor attn_k;      /* {n_embd, n_kv_heads * head_dim} */
    Tensor attn_v;      /* {n_embd, n_kv_heads * head_dim} */
    Tensor attn_output; /* {n_heads * head_dim, n_embd} */
    Tensor ffn_norm;    /* {n_embd} */
    Tensor ffn_gate;    /* {n_embd, n_ffn} */
    Tensor ffn_up;      /* {n_embd, n_ffn} */
    Tensor ffn_down;    /* {n_ffn, n_embd} */
} LayerWeights;

typedef struct Weights {
    Tensor token_embd;  /* {n_embd, n_vocab} */
    Tensor output_norm; /* {n_embd} */
    Tensor output;      /* {n_embd, n_vocab}; token_embd where the checkpoint ties them */
    Tensor
        rope_freqs; /* {head_dim / 2} divisors of RoPE's frequencies (Llama 3.1); data is NULL where there are none */
    LayerWeights *layers; /* (n_layers), owned */
} Weights;

/* The views point into `checkpoint`, which must outlive them. */
int weights_bind(Weights *weights, const Checkpoint *checkpoint, const char *path, Error *error);
void weights_free(Weights *weights);

/* Bytes of weights that one token reads on its way through the model: every matrix and gain once, but of the token
 * embedding one row (where it is the output matrix too, that is read whole). */
size_t weights_bytes_per_token(const Weights *weights, size_t n_layers);

/* The first tensor of the checkpoint that holds a NaN or an infinity, or NULL: what to look for when logits are not
 * finite. Reads every weight. */
const Tensor *weights_find_nonfinite(const Checkpoint *checkpoint);

#endif
