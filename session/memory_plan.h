/* --plan_memory: what a cache would take, from a checkpoint's configuration or from a shape given by hand. */
#ifndef STOWKV_MEMORY_PLAN_H
#define STOWKV_MEMORY_PLAN_H

#include "session/session.h"

#include <stdio.h>

/* `shape_text` is NULL (then options->checkpoint_path names the model, whose weights are not loaded), or
 * "layers=80,kv_heads=8,head_dim=128,n_ctx=131072". Prints the ledger to `stream` as a table, or as JSON. */
int memory_plan(SessionOptions *options, const char *shape_text, bool json, FILE *stream, Error *error);

#endif
