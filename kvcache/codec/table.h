/* The table of codecs, in the order of --list_codecs: enum, names, formats, decoders, weaving and kernels grow from it.
 * A further codec is a further row; its width may be new too. A row that no encoder or decoder can do does not compile
 * (codec.c), and the tests go through all rows.
 *
 *     id       KV_INT8 in code
 *     kind     KvCodeKind: how an element follows from its code, scale and minimum
 *     bits     of a code
 *     keys     KV_BY_CHANNEL: K has a scale for each channel over the group's tokens; KV_BY_TOKEN: K is encoded as V
 *     block    elements of a token that share a scale: a number, KV_WHOLE_ROW, or KV_GROUP_BLOCK: KvGroup.block
 *     layout   KV_SCALED: scales, minima, codes (format.h); or a tensor type: the record is rows of it */
#ifndef STOWKV_CODEC_TABLE_H
#define STOWKV_CODEC_TABLE_H

/* clang-format off */
#define KV_CODECS(DO)                                                                                                  \
    /* id    name      kind            bits keys           block           layout     purpose */                       \
    DO(F16,    "f16",    KV_CODE_HALF,     16, KV_BY_TOKEN,   1,              TYPE_F16,                                \
       "exact")                                                                                                        \
    DO(INT8,   "int8",   KV_CODE_SIGNED,    8, KV_BY_CHANNEL, KV_WHOLE_ROW,   KV_SCALED,                               \
       "nearly exact; the usual choice")                                                                               \
    DO(INT8G,  "int8g",  KV_CODE_UNSIGNED,  8, KV_BY_CHANNEL, KV_GROUP_BLOCK, KV_SCALED,                               \
       "nearly exact where values lie far from zero")                                                                  \
    DO(Q8_0,   "q8_0",   KV_CODE_SIGNED,    8, KV_BY_TOKEN,   32,             TYPE_Q8_0,                               \
       "nearly exact; GGML's format")                                                                                  \
    DO(FP8,    "fp8",    KV_CODE_E4M3,      8, KV_BY_TOKEN,   KV_WHOLE_ROW,   KV_SCALED,                               \
       "E4M3, for values of very different size")                                                                      \
    DO(INT6,   "int6",   KV_CODE_UNSIGNED,  6, KV_BY_CHANNEL, KV_GROUP_BLOCK, KV_SCALED,                               \
       "close to int8 in a fifth fewer bits")                                                                          \
    DO(Q5_1,   "q5_1",   KV_CODE_UNSIGNED,  5, KV_BY_TOKEN,   32,             TYPE_Q5_1,                               \
       "values, and keys with care; GGML's format")                                                                    \
    DO(Q5_0,   "q5_0",   KV_CODE_OFFSET,    5, KV_BY_TOKEN,   32,             TYPE_Q5_0,                               \
       "values, and keys with care; GGML's format")                                                                    \
    DO(INT4,   "int4",   KV_CODE_UNSIGNED,  4, KV_BY_CHANNEL, KV_GROUP_BLOCK, KV_SCALED,                               \
       "the best 4 bits for keys, and good for values")                                                                \
    DO(Q4_1,   "q4_1",   KV_CODE_UNSIGNED,  4, KV_BY_TOKEN,   32,             TYPE_Q4_1,                               \
       "values, rotated; GGML's format")                                                                               \
    DO(Q4_0,   "q4_0",   KV_CODE_OFFSET,    4, KV_BY_TOKEN,   32,             TYPE_Q4_0,                               \
       "values, rotated; GGML's format")                                                                               \
    DO(NF4,    "nf4",    KV_CODE_NF4,       4, KV_BY_TOKEN,   64,             KV_SCALED,                               \
       "values, rotated; the fewest bits of the 4-bit codecs")                                                         \
    DO(INT3,   "int3",   KV_CODE_UNSIGNED,  3, KV_BY_CHANNEL, KV_GROUP_BLOCK, KV_SCALED,                               \
       "values of old tokens, at less of a price than int2")                                                           \
    DO(INT2,   "int2",   KV_CODE_UNSIGNED,  2, KV_BY_CHANNEL, KV_GROUP_BLOCK, KV_SCALED,                               \
       "values of old tokens, at a price (KIVI)")                                                                      \
    DO(BINARY, "binary", KV_CODE_SIGN,      1, KV_BY_CHANNEL, KV_WHOLE_ROW,   KV_SCALED,                               \
       "experiments: signs and a mean magnitude")
/* clang-format on */

#endif
