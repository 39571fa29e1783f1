/* Shapes of the matrices that are quantized: "131072x1024", tokens by channels. */
#ifndef STOWKV_QUANT_SHAPES_H
#define STOWKV_QUANT_SHAPES_H

#include "base/options.h"

#include <stddef.h>

typedef struct QuantShape {
    size_t n_tokens, n_channels;
} QuantShape;

typedef struct QuantShapes {
    QuantShape items[STRING_LIST_MAX];
    size_t count;
} QuantShapes;

/* The ten of Taneja & Shingvi 2026 (arXiv:2601.04719), from 64 thousand elements to a thousand million. */
QuantShapes quant_shapes_published(void);

/* ERROR_USAGE for what is no shape, or one whose bytes no memory could hold. */
int quant_shapes_parse(const StringList *texts, QuantShapes *out, Error *error);

#define QUANT_SHAPE_TEXT 48
const char *quant_shape_text(QuantShape shape, char text[QUANT_SHAPE_TEXT]);

#endif
