/* The tables of names, and the translation; see tensor_names.h. */
#include "checkpoints/tensor_names.h"

#include "base/block_decode.h"
#include "checkpoints/fused.h"
#include "checkpoints/roles.h"

#include <assert.h>
#include <stdio.h>

/* A name of theirs, in which '*' stands for the number of a layer, and the one or more roles in GGUF's table whose rows
 * it holds one behind the other. */
typedef struct NameRow {
    const char *theirs;
    const char *roles[FUSED_PARTS];
    const char *family; /* NULL: of all; rows of a family stand before those of all */
} NameRow;

/* clang-format off */
static const NameRow HUGGING_FACE_NAMES[] = {
    {"model.embed_tokens.weight", {TOKEN_EMBD_NAME}, NULL},
    {"model.layers.*.input_layernorm.weight", {"attn_norm.weight"}, NULL},
    {"model.layers.*.self_attn.q_proj.weight", {"attn_q.weight"}, NULL},
    {"model.layers.*.self_attn.k_proj.weight", {"attn_k.weight"}, NULL},
    {"model.layers.*.self_attn.v_proj.weight", {"attn_v.weight"}, NULL},
    {"model.layers.*.self_attn.q_proj.bias", {"attn_q.bias"}, NULL},
    {"model.layers.*.self_attn.k_proj.bias", {"attn_k.bias"}, NULL},
    {"model.layers.*.self_attn.v_proj.bias", {"attn_v.bias"}, NULL},
    {"model.layers.*.self_attn.qkv_proj.weight", {"attn_q.weight", "attn_k.weight", "attn_v.weight"}, "phi3"},
    {"model.layers.*.self_attn.q_norm.weight", {"attn_q_norm.weight"}, NULL},
    {"model.layers.*.self_attn.k_norm.weight", {"attn_k_norm.weight"}, NULL},
    {"model.layers.*.self_attn.o_proj.weight", {"attn_output.weight"}, NULL},
    {"model.layers.*.post_attention_layernorm.weight", {"post_attention_norm.weight"}, "gemma2"},
    {"model.layers.*.post_attention_layernorm.weight", {"post_attention_norm.weight"}, "gemma3"},
    {"model.layers.*.post_attention_layernorm.weight", {"post_attention_norm.weight"}, "olmo2"},
    {"model.layers.*.post_attention_layernorm.weight", {"ffn_norm.weight"}, NULL},
    {"model.layers.*.pre_feedforward_layernorm.weight", {"ffn_norm.weight"}, NULL},
    {"model.layers.*.post_feedforward_layernorm.weight", {"post_ffw_norm.weight"}, NULL},
    {"model.layers.*.mlp.gate_up_proj.weight", {"ffn_gate.weight", "ffn_up.weight"}, "phi3"},
    {"model.layers.*.mlp.gate_proj.weight", {"ffn_gate.weight"}, NULL},
    {"model.layers.*.mlp.up_proj.weight", {"ffn_up.weight"}, NULL},
    {"model.layers.*.mlp.down_proj.weight", {"ffn_down.weight"}, NULL},
    {"model.norm.weight", {"output_norm.weight"}, NULL},
    {"lm_head.weight", {"output.weight"}, NULL},
};

static const NameRow META_NAMES[] = {
    {"tok_embeddings.weight", {TOKEN_EMBD_NAME}, NULL},
    {"layers.*.attention_norm.weight", {"attn_norm.weight"}, NULL},
    {"layers.*.attention.wq.weight", {"attn_q.weight"}, NULL},
    {"layers.*.attention.wk.weight", {"attn_k.weight"}, NULL},
    {"layers.*.attention.wv.weight", {"attn_v.weight"}, NULL},
    {"layers.*.attention.wqkv.weight", {"attn_q.weight", "attn_k.weight", "attn_v.weight"}, NULL}, /* gpt-fast */
    {"layers.*.attention.wo.weight", {"attn_output.weight"}, NULL},
    {"layers.*.ffn_norm.weight", {"ffn_norm.weight"}, NULL},
    {"layers.*.feed_forward.w1.weight", {"ffn_gate.weight"}, NULL},
    {"layers.*.feed_forward.w3.weight", {"ffn_up.weight"}, NULL},
    {"layers.*.feed_forward.w2.weight", {"ffn_down.weight"}, NULL},
    {"norm.weight", {"output_norm.weight"}, NULL},
    {"output.weight", {"output.weight"}, NULL},
};
/* clang-format on */

/* The first row of each is the embedding, by which one tells them apart. */
static const struct NameTable {
    const NameRow *rows;
    size_t count;
    RopePairing llama_pairing;
} TABLES[] = {
    {HUGGING_FACE_NAMES, sizeof HUGGING_FACE_NAMES / sizeof *HUGGING_FACE_NAMES, ROPE_HALVES},
    {META_NAMES, sizeof META_NAMES / sizeof *META_NAMES, ROPE_INTERLEAVED},
};

/* Whether `name` is the pattern, with the layer's number (of at most 6 digits) in *layer. */
static bool matches(StringView name, const char *pattern, size_t *layer) {
    const char *star = strchr(pattern, '*');
    if (star == NULL)
        return sv_is(name, pattern);
    size_t begin = (size_t)(star - pattern), at = begin, end = strlen(star + 1);
    if (!sv_starts_with(name, (StringView){pattern, begin}))
        return false;
    for (*layer = 0; at < name.length && at < begin + 6 && name.bytes[at] >= '0' && name.bytes[at] <= '9'; at++)
        *layer = 10 * *layer + (size_t)(name.bytes[at] - '0');
    bool plain = at > begin && (name.bytes[begin] != '0' || at == begin + 1);
    return plain && name.length - at == end && memcmp(name.bytes + at, star + 1, end) == 0;
}

static const NameRow *find_row(const struct NameTable *table, const ModelFamily *family, StringView name,
                               size_t *layer) {
    for (size_t i = 0; i < table->count; i++)
        if ((table->rows[i].family == NULL || strcmp(table->rows[i].family, family->name) == 0) &&
            matches(name, table->rows[i].theirs, layer))
            return &table->rows[i];
    return NULL;
}

static const struct NameTable *find_table(const Checkpoint *checkpoint, const char *path, Error *error) {
    for (size_t i = 0; i < sizeof TABLES / sizeof *TABLES; i++)
        if (checkpoint_tensor(checkpoint, TABLES[i].rows[0].theirs) != NULL)
            return &TABLES[i];
    error_set(error, ERROR_FORMAT,
              "%s: has no tensor %s, as Hugging Face's models have, nor %s, as Meta's; use the checkpoint of a causal "
              "language model",
              path, TABLES[0].rows[0].theirs, TABLES[1].rows[0].theirs);
    return NULL;
}

/* Gives the tensor its name as a role's. */
static int name_tensor(Checkpoint *checkpoint, size_t i, const TensorRole *role, size_t layer, Error *error) {
    char *name = checkpoint_allocate(checkpoint, ROLE_NAME_BYTES, 1, "a tensor's name", error);
    if (name == NULL)
        return error->code;
    checkpoint->tensors[i].name = sv(role_name(role, layer, name));
    return 0;
}

static int translate(Checkpoint *checkpoint, const struct NameTable *table, const char *path, Error *error) {
    size_t n_theirs = checkpoint->n_tensors, layer = 0;
    for (size_t i = 0; i < n_theirs; i++) {
        const NameRow *row = find_row(table, checkpoint->config.family, checkpoint->tensors[i].name, &layer);
        if (row == NULL)
            continue;
        const TensorRole *role = tensor_role(sv(row->roles[0]));
        assert(role != NULL);
        int status = row->roles[1] != NULL ? checkpoint_split_rows(checkpoint, i, row->roles, layer, path, error)
                                           : name_tensor(checkpoint, i, role, layer, error);
        if (status < 0)
            return status;
    }
    return 0;
}

/* Where the output is the embedding, files may have it twice. */
static int settle_output(Checkpoint *checkpoint, bool tied_output, const char *path, Error *error) {
    const Tensor *embedding = checkpoint_tensor(checkpoint, TOKEN_EMBD_NAME);
    const Tensor *output = checkpoint_tensor(checkpoint, "output.weight");
    if (!tied_output && output == NULL)
        return error_set(error, ERROR_FORMAT,
                         "%s: missing the output matrix (lm_head.weight), and tie_word_embeddings is not true; fetch "
                         "the checkpoint again",
                         path);
    if (!tied_output || output == NULL)
        return 0;
    if (output->type != embedding->type || output->size_bytes != embedding->size_bytes ||
        memcmp(output->data, embedding->data, output->size_bytes) != 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: tie_word_embeddings is true, and lm_head.weight is another matrix than the embedding; "
                         "take one of the two out",
                         path);
    size_t at = (size_t)(output - checkpoint->tensors);
    checkpoint->tensors[at] = checkpoint->tensors[--checkpoint->n_tensors];
    return 0;
}

/* Of families that count gains from one: gains, in F32. */
static int complete_gains(Checkpoint *checkpoint, Error *error) {
    for (size_t i = 0; checkpoint->config.family->gains_less_one && i < checkpoint->n_tensors; i++) {
        Tensor *tensor = &checkpoint->tensors[i];
        const TensorRole *role = tensor_role_of(tensor->name);
        if (role == NULL || role->use != TENSOR_VECTOR || tensor_n_rows(tensor) != 1)
            continue;
        size_t n = tensor->shape[0];
        float *gains = checkpoint_allocate(checkpoint, n, sizeof *gains, "gains of a norm", error);
        if (gains == NULL)
            return error->code;
        tensor_decoder(tensor->type, SIMD_SCALAR)(tensor, 0, n, gains);
        for (size_t j = 0; j < n; j++)
            gains[j] += 1;
        tensor->type = TYPE_F32;
        tensor->data = (const uint8_t *)gains;
        tensor->size_bytes = n * sizeof *gains;
    }
    return 0;
}

int tensor_names_adopt(Checkpoint *checkpoint, bool tied_output, const char *path, Error *error) {
    const struct NameTable *table = find_table(checkpoint, path, error);
    if (table == NULL)
        return error->code;
    ModelConfig *config = &checkpoint->config;
    config->rope_pairing = config->family->rope_pairing == ROPE_INTERLEAVED ? table->llama_pairing : ROPE_HALVES;
    if (translate(checkpoint, table, path, error) < 0 || complete_gains(checkpoint, error) < 0)
        return error->code;
    return settle_output(checkpoint, tied_output, path, error);
}
