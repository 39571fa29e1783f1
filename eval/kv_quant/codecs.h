/* The cache's codecs compared: bytes an element, errors and speed on the same numbers, as they are and rotated.
 *
 *     CodecStudy study = {.samples = samples, …};
 *     if (codec_study_choose(&study, "q4_0,q4_1,int4,nf4", &error) < 0 || codec_study_run(&study, &error) < 0) …
 *     codec_study_print(&study, stdout);
 *     codec_study_free(&study); */
#ifndef STOWKV_QUANT_CODECS_H
#define STOWKV_QUANT_CODECS_H

#include "base/simd/levels.h"
#include "eval/kv_quant/samples.h"

#include <cjson/cJSON.h>
#include <stdio.h>

typedef struct CodecRow {
    const CodecSample *sample;
    KvSide side;
    KvCodecId codec;
    bool rotated;
    char skipped[160];               /* why there are no figures; "" where there are */
    double bytes_per_element;        /* scales counted */
    double relative;                 /* ||x~ - x|| / ||x|| (Frobenius) */
    double max_abs;                  /* |x~ - x| */
    double score;                    /* of keys: mean |q k - q k~| over mean |q k|, for normal queries; NaN of values */
    double encode_rate, decode_rate; /* bytes a second that one thread reads and writes; the median */
} CodecRow;

typedef struct CodecStudy {
    CodecSamples samples;
    KvCodecId codecs[KV_CODEC_COUNT];
    size_t n_codecs, repetitions;
    SimdLevel level;
    uint64_t seed; /* of the queries */
    const volatile sig_atomic_t *interrupted;
    CodecRow *rows;
    size_t n_rows;
} CodecStudy;

/* `names`: codecs with commas between, or "all". ERROR_USAGE. */
int codec_study_choose(CodecStudy *study, const char *names, Error *error);
int codec_study_run(CodecStudy *study, Error *error); /* ERROR_INTERRUPTED leaves the rows that were through */
void codec_study_free(CodecStudy *study); /* the samples too; twice is fine */

/* By sample and side, fewest bytes first. */
void codec_study_print(const CodecStudy *study, FILE *stream);
cJSON *codec_study_json(const CodecStudy *study); /* NULL out of memory */
void codec_study_csv(const CodecStudy *study, FILE *stream);

#endif
