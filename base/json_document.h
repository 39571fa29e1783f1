/* JSON of files that nobody vouches for, as a tree of cJSON.
 *
 *     cJSON *root = json_document_parse(mapped_file_bytes(&file), path, &error);
 *     if (root == NULL) …
 *     cJSON_Delete(root);
 */
#ifndef STOWKV_JSON_DOCUMENT_H
#define STOWKV_JSON_DOCUMENT_H

#include "base/error.h"
#include "base/string_view.h"

#include <cjson/cJSON.h>

#define JSON_DOCUMENT_DEPTH 64 /* objects and arrays in one another; what is deeper is refused */

/* NULL, and ERROR_FORMAT, where `text` is not one JSON value, is nested too deep, or has an object with the same key
 * twice: readers would disagree about which of them counts. The caller deletes it. */
cJSON *json_document_parse(StringView text, const char *path, Error *error);

/* The same of a whole file. */
cJSON *json_document_load(const char *path, Error *error);

/* A number without a fraction, from 0 to 2^53; false for all else, also where `item` is NULL. */
bool json_whole_number(const cJSON *item, size_t *out);

#endif
