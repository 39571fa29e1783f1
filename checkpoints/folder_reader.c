/* See folder_reader.h: which files of a folder are the weights, and which the configuration. The weights' containers
 * are safetensors.c's. */
#include "checkpoints/folder_reader.h"

#include "base/file_identity.h"
#include "base/foreign_file.h"
#include "base/json_document.h"
#include "checkpoints/hf_config.h"
#include "checkpoints/hf_longrope.h"
#include "checkpoints/meta_config.h"
#include "checkpoints/meta_shards.h"
#include "checkpoints/pth.h"
#include "checkpoints/rope_factors.h"
#include "checkpoints/safetensors.h"
#include "checkpoints/shard_index.h"
#include "checkpoints/tensor_names.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define CONFIG_NAME  "config.json"
#define PARAMS_NAME  "params.json"
#define INDEX_SUFFIX ".index.json"

/* What weights are called, in the order in which they are looked for. */
static const char *const WEIGHTS_NAMES[] = {
    "model.safetensors",
    "model.safetensors" INDEX_SUFFIX,
    "pytorch_model.bin",
    "pytorch_model.bin" INDEX_SUFFIX,
    "model.pth",
    "consolidated.00.pth",
    "consolidated.safetensors",
};

typedef struct Folder {
    Checkpoint *checkpoint;
    const char *path;   /* as the user gave it, for messages */
    const char *prefix; /* of its files' paths: empty, or with a slash at its end */
} Folder;

static const char *base_name(const char *path) {
    return path + path_folder_length(path);
}

static bool ends_with(const char *text, const char *ending) {
    size_t length = strlen(text), n = strlen(ending);
    return length >= n && strcmp(text + length - n, ending) == 0;
}

bool folder_recognises(const char *path) {
    const char *name = base_name(path);
    return path_is_folder(path) || strcmp(name, CONFIG_NAME) == 0 || strcmp(name, PARAMS_NAME) == 0 ||
           ends_with(name, INDEX_SUFFIX);
}

static int open_folder(Folder *folder, Checkpoint *checkpoint, const char *path, Error *error) {
    bool whole = path_is_folder(path);
    size_t length = whole ? strlen(path) : path_folder_length(path);
    char *prefix = checkpoint_allocate(checkpoint, length + 2, 1, "a path", error);
    if (prefix == NULL)
        return error->code;
    memcpy(prefix, path, length);
    if (whole && path[length - 1] != '/')
        prefix[length] = '/';
    *folder = (Folder){checkpoint, path, prefix};
    return 0;
}

/* The path of a file in the folder, which lives as long as the checkpoint; NULL without memory. */
static const char *path_of(const Folder *folder, const char *name, Error *error) {
    size_t size = strlen(folder->prefix) + strlen(name) + 1;
    char *path = checkpoint_allocate(folder->checkpoint, size, 1, "a path", error);
    if (path != NULL)
        snprintf(path, size, "%s%s", folder->prefix, name);
    return path;
}

/* The path of a file of the folder, in `path`, if there is one. Meta's params.json may lie in original/, as Hugging
 * Face has it. */
static bool find_file(const Folder *folder, const char *const *names, size_t n, char *path, size_t size) {
    for (size_t i = 0; i < n; i++) {
        int length = snprintf(path, size, "%s%s", folder->prefix, names[i]);
        if (length > 0 && (size_t)length < size && access(path, F_OK) == 0)
            return true;
    }
    return false;
}

typedef int (*ReadDocument)(const cJSON *root, const char *path, Checkpoint *checkpoint, bool *tied_output,
                            Error *error);

static int read_hf(const cJSON *root, const char *path, Checkpoint *checkpoint, bool *tied_output, Error *error) {
    if (hf_config_read(root, path, &checkpoint->config, tied_output, error) < 0)
        return error->code;
    return hf_longrope_read(root, path, checkpoint, error);
}

/* Meta's files say nothing about the output: it is the embedding where there is none. */
static int read_meta(const cJSON *root, const char *path, Checkpoint *checkpoint, bool *tied_output, Error *error) {
    *tied_output = checkpoint_tensor(checkpoint, "output.weight") == NULL;
    return meta_config_read(root, path, checkpoint, error);
}

/* The document stays mapped: it is a part of what the model is, as the weights are. */
static int read_document(const Folder *folder, const char *path, ReadDocument read, bool *tied_output, Error *error) {
    const MappedFile *file = checkpoint_map(folder->checkpoint, path, error);
    cJSON *root = file == NULL ? NULL : json_document_parse(mapped_file_bytes(file), path, error);
    if (root == NULL)
        return error->code;
    int status = read(root, path, folder->checkpoint, tied_output, error);
    cJSON_Delete(root);
    return status;
}

/* After the weights: their names tell whose they are. */
static int read_config(const Folder *folder, bool *tied_output, Error *error) {
    static const char *const HF_NAMES[] = {CONFIG_NAME}, *const META_NAMES[] = {PARAMS_NAME, "original/" PARAMS_NAME};
    char path[PATH_MAX];
    bool meta = checkpoint_tensor(folder->checkpoint, "tok_embeddings.weight") != NULL;
    if (meta && find_file(folder, META_NAMES, 2, path, sizeof path))
        return read_document(folder, path, read_meta, tied_output, error);
    if (find_file(folder, HF_NAMES, 1, path, sizeof path))
        return read_document(folder, path, read_hf, tied_output, error);
    *tied_output = checkpoint_tensor(folder->checkpoint, "output.weight") == NULL;
    if (meta)
        return meta_config_known(folder->path, folder->prefix, folder->checkpoint, error);
    return error_set(error, ERROR_IO,
                     "%s: there is no " CONFIG_NAME " beside the weights; fetch the folder's other files too",
                     folder->path);
}

/* The tensors of the file that was mapped last. */
static int add_mapped(Checkpoint *checkpoint, const char *path, Error *error) {
    const MappedFile *file = &checkpoint->files[checkpoint->n_files - 1];
    if (safetensors_recognises(file))
        return safetensors_add(checkpoint, file, path, error);
    if (pth_recognises(file))
        return pth_add(checkpoint, file, path, error);
    if (foreign_file_refuse(mapped_file_bytes(file), path, CHECKPOINT_FORMATS, error) < 0)
        return error->code;
    return error_set(error, ERROR_FORMAT, "%s: is neither safetensors nor a PyTorch checkpoint; fetch it again", path);
}

static int add_file(Checkpoint *checkpoint, const char *path, Error *error) {
    return checkpoint_map(checkpoint, path, error) == NULL ? error->code : add_mapped(checkpoint, path, error);
}

/* The files that an index lists. */
static int add_shards(const Folder *folder, const char *index_path, Error *error) {
    ShardIndex index;
    int status = shard_index_open(&index, index_path, error);
    for (size_t i = 0; i < index.n_files && status == 0; i++) {
        const char *path = path_of(folder, index.files[i], error);
        size_t first = folder->checkpoint->n_tensors;
        status = path == NULL ? error->code : add_file(folder->checkpoint, path, error);
        if (status == 0)
            shard_index_found(&index, index.files[i], folder->checkpoint->tensors + first,
                              folder->checkpoint->n_tensors - first);
    }
    if (status == 0)
        status = shard_index_check(&index, error);
    shard_index_close(&index);
    return status;
}

/* The files over which Meta has cut the model's matrices. */
static int add_meta_shards(const Folder *folder, size_t n_shards, Error *error) {
    size_t ends[META_SHARDS_MAX];
    for (size_t i = 0; i < n_shards; i++) {
        char name[META_SHARD_NAME_BYTES];
        const char *path = path_of(folder, meta_shard_name(i, name), error);
        if (path == NULL || add_file(folder->checkpoint, path, error) < 0)
            return error->code;
        ends[i] = folder->checkpoint->n_tensors;
    }
    return meta_shards_join(folder->checkpoint, folder->prefix, ends, n_shards, error);
}

/* The configuration, and the names that tensors have in GGUF. */
static int complete(const Folder *folder, size_t n_meta_shards, Error *error) {
    bool tied_output = false;
    if (read_config(folder, &tied_output, error) < 0)
        return error->code;
    if (n_meta_shards > 0 && meta_shards_check(folder->checkpoint, folder->prefix, n_meta_shards, error) < 0)
        return error->code;
    /* Before tensors are cut by its sizes. */
    if (model_config_check(&folder->checkpoint->config, folder->path, error) < 0)
        return error->code;
    if (tensor_names_adopt(folder->checkpoint, tied_output, folder->path, error) < 0)
        return error->code;
    if (rope_factors_add(folder->checkpoint, folder->path, error) < 0)
        return error->code;
    return checkpoint_read_tokenizer(folder->checkpoint, folder->prefix, error);
}

static int read_meta_shards(const Folder *folder, Error *error) {
    size_t n_shards = 0;
    if (meta_shards_count(folder->prefix, &n_shards, error) < 0 || add_meta_shards(folder, n_shards, error) < 0)
        return error->code;
    return complete(folder, n_shards, error);
}

static int read_all(const Folder *folder, const char *weights, Error *error) {
    if (meta_shard_is_name(base_name(weights)))
        return read_meta_shards(folder, error);
    int status = ends_with(weights, INDEX_SUFFIX) ? add_shards(folder, weights, error)
                                                  : add_file(folder->checkpoint, weights, error);
    return status < 0 ? status : complete(folder, 0, error);
}

int folder_read(Checkpoint *checkpoint, const char *path, Error *error) {
    Folder folder;
    if (open_folder(&folder, checkpoint, path, error) < 0)
        return error->code;
    if (!path_is_folder(path) && ends_with(path, INDEX_SUFFIX))
        return read_all(&folder, path, error);
    NameList looked_for = {0};
    for (size_t i = 0; i < sizeof WEIGHTS_NAMES / sizeof *WEIGHTS_NAMES; i++) {
        const char *weights = path_of(&folder, WEIGHTS_NAMES[i], error);
        if (weights == NULL)
            return error->code;
        if (access(weights, F_OK) == 0)
            return read_all(&folder, weights, error);
        name_list_add(&looked_for, WEIGHTS_NAMES[i]);
    }
    return error_set(error, ERROR_IO, "%s: is a directory without weights (%s); name the file that has them", path,
                     looked_for.text);
}

/* The name of the index of which `name` is a shard, NAME-00001-of-00002.safetensors, in `out`; false where it is none.
 */
static bool index_of_shard(const char *name, char *out, size_t size) {
    static const char FORM[] = "-00000-of-00000";
    const char *dot = strrchr(name, '.');
    size_t form = sizeof FORM - 1, stem = dot == NULL ? 0 : (size_t)(dot - name);
    if (stem <= form)
        return false;
    stem -= form;
    for (size_t i = 0; i < form; i++)
        if (FORM[i] == '0' ? !isdigit((unsigned char)name[stem + i]) : name[stem + i] != FORM[i])
            return false;
    int length = snprintf(out, size, "%.*s%s" INDEX_SUFFIX, (int)stem, name, dot);
    return length > 0 && (size_t)length < size;
}

static bool recognises_safetensors(const MappedFile *file, const char *path) {
    (void)path;
    return safetensors_recognises(file);
}

/* A file of weights by its own name, which is mapped: with the other shards where it is one. */
static int read_weights(Checkpoint *checkpoint, const char *path, Error *error) {
    Folder folder;
    char index[256];
    if (open_folder(&folder, checkpoint, path, error) < 0)
        return error->code;
    if (meta_shard_is_name(base_name(path)))
        return read_meta_shards(&folder, error);
    if (!index_of_shard(base_name(path), index, sizeof index))
        return add_mapped(checkpoint, path, error) < 0 ? error->code : complete(&folder, 0, error);
    const char *index_path = path_of(&folder, index, error);
    return index_path == NULL ? error->code : read_all(&folder, index_path, error);
}

static bool recognises_pth(const MappedFile *file, const char *path) {
    (void)path;
    return pth_recognises(file);
}

const CheckpointReader PTH_READER = {"PyTorch .pth", recognises_pth, read_weights};
const CheckpointReader SAFETENSORS_READER = {"safetensors", recognises_safetensors, read_weights};
