/* config.json of a Hugging Face checkpoint as a ModelConfig, by tables of its keys: read, without meaning here, or
 * refused unless the value changes nothing. A key that is in no table is refused by name, as in metadata_rules.h.
 *
 *     if (hf_config_read(root, "model/config.json", &config, &tied, &error) < 0) …
 *
 * A further architecture is a row of ARCHITECTURES in hf_config.c, with the keys in which it differs. */
#ifndef STOWKV_HF_CONFIG_H
#define STOWKV_HF_CONFIG_H

#include "base/json_document.h"
#include "checkpoints/config.h"

/* Fills `config` from the whole document; *tied_output tells whether the embedding is the output matrix too. `path` is
 * for messages. ERROR_FORMAT: missing, or of no sense; ERROR_UNSUPPORTED: asks for what the forward pass does not have.
 * What the numbers are is left to model_config_check(). */
int hf_config_read(const cJSON *root, const char *path, ModelConfig *config, bool *tied_output, Error *error);

#endif
