/* The configuration of weights under Meta's names: params.json, or what is known of the model that a folder is named
 * after. Neither says all: what is taken for granted becomes a note. */
#ifndef STOWKV_META_CONFIG_H
#define STOWKV_META_CONFIG_H

#include "base/json_document.h"
#include "checkpoints/checkpoint.h"

/* Fills checkpoint->config from params.json; the number of tokens is that of the embedding, which must be there. */
int meta_config_read(const cJSON *root, const char *path, Checkpoint *checkpoint, Error *error);

/* The same by the name of `folder`, "checkpoints/llama3-8b/", or "" for the one we are in; ERROR_IO where no known
 * model has such a name. `path` is for messages. */
int meta_config_known(const char *path, const char *folder, Checkpoint *checkpoint, Error *error);

#endif
