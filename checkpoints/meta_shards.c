/* See meta_shards.h. Which matrices are cut along which side is that of Meta's parallel layers: what spreads a vector
 * over GPUs is cut by its outputs, which are rows, what gathers it by its inputs, columns. */
#include "checkpoints/meta_shards.h"

#include "base/checked.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

typedef enum Cut { CUT_ROWS, CUT_COLUMNS, CUT_EMBEDDING, CUT_NOT } Cut;

/* By the ends of names. */
static const struct {
    const char *ending;
    Cut cut;
} CUTS[] = {
    {"tok_embeddings.weight", CUT_EMBEDDING}, /* columns up to Llama 2, rows since Llama 3 */
    {"attention.wq.weight", CUT_ROWS},
    {"attention.wk.weight", CUT_ROWS},
    {"attention.wv.weight", CUT_ROWS},
    {"attention.wo.weight", CUT_COLUMNS},
    {"feed_forward.w1.weight", CUT_ROWS},
    {"feed_forward.w2.weight", CUT_COLUMNS},
    {"feed_forward.w3.weight", CUT_ROWS},
    {"output.weight", CUT_ROWS},
    {"norm.weight", CUT_NOT},
    {"rope.freqs", CUT_NOT},
};

typedef struct Shards {
    Checkpoint *checkpoint;
    const char *folder; /* for messages */
    size_t count;
    size_t n_tensors; /* of each */
    size_t n_embd;    /* columns of the whole embedding */
} Shards;

const char *meta_shard_name(size_t i, char name[META_SHARD_NAME_BYTES]) {
    snprintf(name, META_SHARD_NAME_BYTES, "consolidated.%02zu.pth", i);
    return name;
}

/* The number in a shard's name; META_SHARDS_MAX where it is none. */
static size_t number_of(const char *name) {
    static const char STEM[] = "consolidated.";
    const char *digits = name + sizeof STEM - 1;
    if (strncmp(name, STEM, sizeof STEM - 1) != 0 || !isdigit((unsigned char)digits[0]) ||
        !isdigit((unsigned char)digits[1]) || strcmp(digits + 2, ".pth") != 0)
        return META_SHARDS_MAX;
    return (size_t)(10 * (digits[0] - '0') + digits[1] - '0');
}

bool meta_shard_is_name(const char *name) {
    return number_of(name) < META_SHARDS_MAX;
}

int meta_shards_count(const char *folder, size_t *n_shards, Error *error) {
    bool found[META_SHARDS_MAX + 1] = {false};
    char missing[META_SHARD_NAME_BYTES], last[META_SHARD_NAME_BYTES];
    DIR *files = opendir(folder[0] == '\0' ? "." : folder);
    if (files == NULL)
        return error_set(error, ERROR_IO, "%s: cannot be listed (%s); its shards have to be found", folder,
                         strerror(errno));
    *n_shards = 0;
    for (const struct dirent *file = readdir(files); file != NULL; file = readdir(files)) {
        size_t number = number_of(file->d_name);
        found[number] = true;
        if (number < META_SHARDS_MAX)
            *n_shards = at_least(*n_shards, number + 1);
    }
    closedir(files);
    for (size_t i = 0; i < *n_shards; i++)
        if (!found[i])
            return error_set(error, ERROR_IO, "%s%s: is missing, and %s is there; fetch all files of the model", folder,
                             meta_shard_name(i, missing), meta_shard_name(*n_shards - 1, last));
    return 0;
}

static Tensor *tensors_of(const Shards *shards, size_t shard) {
    return shards->checkpoint->tensors + shard * shards->n_tensors;
}

static int damaged(const Shards *shards, size_t shard, StringView tensor, const char *what, Error *error) {
    char name[META_SHARD_NAME_BYTES];
    return error_set(error, ERROR_FORMAT, "%s%s: %.*s: %s; fetch the files of one release", shards->folder,
                     meta_shard_name(shard, name), SV_ARGS(tensor), what);
}

static int by_name(const void *a, const void *b) {
    return sv_compare(((const Tensor *)a)->name, ((const Tensor *)b)->name);
}

/* The tensors of each shard, sorted, are those of the first. */
static int match_names(Shards *shards, const size_t *ends, Error *error) {
    Tensor *all = shards->checkpoint->tensors;
    size_t n_first = ends[0];
    qsort(all, n_first, sizeof *all, by_name);
    for (size_t shard = 1; shard < shards->count; shard++) {
        Tensor *tensors = all + ends[shard - 1];
        size_t n = ends[shard] - ends[shard - 1];
        qsort(tensors, n, sizeof *tensors, by_name);
        for (size_t i = 0; i < n_first || i < n; i++) {
            int order = i == n_first ? 1 : i == n ? -1 : by_name(&all[i], &tensors[i]);
            if (order != 0)
                return damaged(shards, order < 0 ? shard : 0, order < 0 ? all[i].name : tensors[i].name,
                               "is in another shard, and not in this", error);
        }
    }
    shards->n_tensors = n_first;
    return 0;
}

static bool has_shape_of(const Tensor *a, const Tensor *b) {
    return a->type == b->type && a->n_dims == b->n_dims && memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

/* Parts are alike, and take no more than their files, which bounds what is allocated. */
static int match_parts(const Shards *shards, Error *error) {
    size_t size_bytes = 0, files_bytes = 0;
    for (size_t shard = 0; shard < shards->count; shard++)
        for (size_t i = 0; i < shards->n_tensors; i++) {
            const Tensor *part = &tensors_of(shards, shard)[i];
            if (!has_shape_of(part, &tensors_of(shards, 0)[i]))
                return damaged(shards, shard, part->name, "has another type or shape than in the first shard", error);
            if (!checked_add(size_bytes, part->size_bytes, &size_bytes))
                return damaged(shards, shard, part->name, "impossible size", error);
        }
    for (size_t i = 0; i < shards->checkpoint->n_files; i++)
        files_bytes += shards->checkpoint->files[i].size;
    return size_bytes <= files_bytes
               ? 0
               : damaged(shards, 0, shards->checkpoint->tensors->name, "shares its bytes with other tensors", error);
}

static int find_cut(const Shards *shards, const Tensor *tensor, Cut *cut, Error *error) {
    size_t i = 0;
    while (i < sizeof CUTS / sizeof *CUTS && !sv_ends_with(tensor->name, sv(CUTS[i].ending)))
        i++;
    if (i == sizeof CUTS / sizeof *CUTS)
        return damaged(shards, 0, tensor->name, "is no tensor of a model that Meta has cut", error);
    *cut = CUTS[i].cut;
    if (*cut == CUT_EMBEDDING)
        *cut = tensor->shape[0] == shards->n_embd ? CUT_ROWS : CUT_COLUMNS;
    if (*cut != CUT_NOT && tensor->n_dims != 2)
        return damaged(shards, 0, tensor->name, "is no matrix", error);
    return 0;
}

static int check_copies(const Shards *shards, size_t i, Error *error) {
    const Tensor *first = &shards->checkpoint->tensors[i];
    for (size_t shard = 1; shard < shards->count; shard++)
        if (memcmp(tensors_of(shards, shard)[i].data, first->data, first->size_bytes) != 0)
            return damaged(shards, shard, first->name, "has other numbers than in the first shard", error);
    return 0;
}

/* Rows of all parts one behind the other; or of each row, the parts' columns. */
static void copy_parts(const Shards *shards, size_t i, size_t n_pieces, uint8_t *out) {
    size_t piece_bytes = shards->checkpoint->tensors[i].size_bytes / n_pieces;
    for (size_t piece = 0; piece < n_pieces; piece++)
        for (size_t shard = 0; shard < shards->count; shard++, out += piece_bytes)
            memcpy(out, tensors_of(shards, shard)[i].data + piece * piece_bytes, piece_bytes);
}

/* Makes the first shard's tensor the whole one. Sizes do not overflow: match_parts() has added the parts'. */
static int join_parts(const Shards *shards, size_t i, Cut cut, size_t *joined_bytes, Error *error) {
    Tensor *tensor = &shards->checkpoint->tensors[i];
    size_t size_bytes = tensor->size_bytes * shards->count;
    uint8_t *data = checkpoint_allocate(shards->checkpoint, size_bytes, 1, "a matrix of joined shards", error);
    if (data == NULL)
        return error->code;
    if (!shards->checkpoint->is_outline)
        copy_parts(shards, i, cut == CUT_ROWS ? 1 : tensor->shape[1], data);
    tensor->shape[cut == CUT_ROWS] *= shards->count;
    tensor->data = data;
    tensor->size_bytes = size_bytes;
    *joined_bytes += size_bytes;
    return 0;
}

static int find_width(Shards *shards, Error *error) {
    const Tensor *norm = checkpoint_tensor(shards->checkpoint, "norm.weight");
    if (norm == NULL)
        return damaged(shards, 0, sv("norm.weight"), "is missing", error);
    shards->n_embd = norm->shape[0];
    return 0;
}

int meta_shards_join(Checkpoint *checkpoint, const char *folder, const size_t *ends, size_t n_shards, Error *error) {
    Shards shards = {.checkpoint = checkpoint, .folder = folder, .count = n_shards};
    size_t joined_bytes = 0;
    if (n_shards < 2)
        return 0;
    if (match_names(&shards, ends, error) < 0 || find_width(&shards, error) < 0 || match_parts(&shards, error) < 0)
        return error->code;
    for (size_t i = 0; i < shards.n_tensors; i++) {
        Cut cut = CUT_NOT;
        if (find_cut(&shards, &checkpoint->tensors[i], &cut, error) < 0)
            return error->code;
        int status =
            cut == CUT_NOT ? check_copies(&shards, i, error) : join_parts(&shards, i, cut, &joined_bytes, error);
        if (status < 0)
            return status;
    }
    checkpoint->n_tensors = shards.n_tensors;
    return checkpoint_note(checkpoint, error,
                           "%s: matrices are cut over %zu files, and joined in memory, of which they take %zu bytes; "
                           "Hugging Face's form of the model is read in place",
                           folder[0] == '\0' ? "." : folder, n_shards, joined_bytes);
}

int meta_shards_check(const Checkpoint *checkpoint, const char *folder, size_t n_shards, Error *error) {
    const ModelConfig *config = &checkpoint->config;
    const Tensor *matrix = checkpoint_tensor(checkpoint, "layers.0.attention.wo.weight");
    size_t width;
    if (matrix == NULL || matrix->shape[1] != config->n_embd ||
        !checked_mul(config->n_heads, config->head_dim, &width) || width == matrix->shape[0])
        return 0; /* of which it is not the shards' number that is wrong, others tell */
    size_t part = matrix->shape[0] / n_shards;
    if (width % part != 0 || width == 0 || width / part > META_SHARDS_MAX)
        return 0;
    return error_set(
        error, ERROR_FORMAT,
        "%s: has %zu of the files consolidated.NN.pth, and such a model is cut into %zu; fetch all of them, "
        "and no others",
        folder[0] == '\0' ? "." : folder, n_shards, width / part);
}
