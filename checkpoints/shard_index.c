/* See shard_index.h. */
#include "checkpoints/shard_index.h"


#include <stdlib.h>

static int by_tensor(const void *a, const void *b) {
    return strcmp((*(cJSON *const *)a)->string, (*(cJSON *const *)b)->string);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names of files only: an index leads nowhere else. */
static bool is_plain_name(const cJSON *item) {
    return cJSON_IsString(item) && item->valuestring[0] != '\0' && strchr(item->valuestring, '/') == NULL &&
           strcmp(item->valuestring, ".") != 0 && strcmp(item->valuestring, "..") != 0;
}

static int read_entries(ShardIndex *index, const cJSON *map, Error *error) {
    size_t n = (size_t)cJSON_GetArraySize(map);
    index->entries = calloc(n + 1, sizeof *index->entries);
    index->found = calloc(n + 1, sizeof *index->found);
    index->files = calloc(n + 1, sizeof *index->files);
    if (index->entries == NULL || index->found == NULL || index->files == NULL)
        return error_memory(error, "the index of shards", n * sizeof *index->entries);
    for (cJSON *item = map->child; item != NULL; item = item->next) {
        if (!is_plain_name(item))
            return error_set(error, ERROR_FORMAT, "%s: %.128s: names no file in the same folder; fetch the index again",
                             index->path, item->string);
        index->files[index->n_entries] = item->valuestring;
        index->entries[index->n_entries++] = item;
    }
    return 0;
}

static void keep_distinct_files(ShardIndex *index) {
    qsort(index->files, index->n_entries, sizeof *index->files, by_name);
    for (size_t i = 0; i < index->n_entries; i++)
        if (index->n_files == 0 || strcmp(index->files[index->n_files - 1], index->files[i]) != 0)
            index->files[index->n_files++] = index->files[i];
}

int shard_index_open(ShardIndex *index, const char *path, Error *error) {
    *index = (ShardIndex){.path = path, .root = json_document_load(path, error)};
    if (index->root == NULL)
        return error->code;
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index->root, "weight_map");
    if (!cJSON_IsObject(map) || map->child == NULL)
        return error_set(error, ERROR_FORMAT, "%s: has no weight_map; fetch the index again", path);
    if (read_entries(index, map, error) < 0)
        return error->code;
    qsort(index->entries, index->n_entries, sizeof *index->entries, by_tensor);
    keep_distinct_files(index);
    return 0;
}

void shard_index_close(ShardIndex *index) {
    free(index->entries);
    free(index->found);
    free(index->files);
    cJSON_Delete(index->root);
    *index = (ShardIndex){0};
}

static int tensor_order(const void *name, const void *entry) {
    return sv_compare(*(const StringView *)name, sv((*(cJSON *const *)entry)->string));
}

void shard_index_found(ShardIndex *index, const char *file, const Tensor *tensors, size_t n) {
    for (size_t i = 0; i < n; i++) {
        cJSON **entry =
            bsearch(&tensors[i].name, index->entries, index->n_entries, sizeof *index->entries, tensor_order);
        if (entry != NULL && strcmp((*entry)->valuestring, file) == 0)
            index->found[entry - index->entries] = true;
    }
}

int shard_index_check(const ShardIndex *index, Error *error) {
    for (size_t i = 0; i < index->n_entries; i++)
        if (!index->found[i])
            return error_set(error, ERROR_FORMAT,
                             "%s: %.128s is not in %.128s, where the index has it; fetch the files of one release",
                             index->path, index->entries[i]->string, index->entries[i]->valuestring);
    return 0;
}
