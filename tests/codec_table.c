/* Prints the tables of docs/codecs.md: how far each codec is off, on keys and values, plain and rotated. */
#include "base/simd/detect.h"
#include "tests/codec_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_GROUPS = 32, N_TOKENS = 64, HEAD_DIM = 128, N = N_TOKENS * HEAD_DIM };

typedef struct Errors {
    double squares, magnitudes, largest;
    double product, square_x, square_y; /* for the cosine */
} Errors;

static void add_group(Errors *errors, const float *x, const float *y) {
    for (size_t i = 0; i < N; i++) {
        double a = (double)x[i], b = (double)y[i], error = fabs(a - b);
        errors->squares += error * error;
        errors->magnitudes += error;
        errors->largest = fmax(errors->largest, error);
        errors->product += a * b;
        errors->square_x += a * a;
        errors->square_y += b * b;
    }
}

static Errors measure(KvCodecId id, KvSide side, CodecData data, bool rotated) {
    static float values[N];
    const KvGroup group = {N_TOKENS, HEAD_DIM, 64, rotated};
    Errors errors = {0};
    for (unsigned seed = 0; seed < N_GROUPS; seed++) {
        codec_data(data, 100 + seed, N_TOKENS, HEAD_DIM, values);
        uint8_t *record = codec_encoded(kv_codec(id), side, &group, values);
        float *decoded = codec_decoded(kv_codec(id), side, &group, record, cpu_best_simd_level());
        if (rotated)
            kv_rotate(decoded, N_TOKENS, HEAD_DIM);
        add_group(&errors, values, decoded);
        free(record);
        free(decoded);
    }
    return errors;
}

static void print_cells(const Errors *errors) {
    double n = (double)N_GROUPS * N;
    printf(" %.3g | %.3g | %.3g | %.6f |", errors->squares / n, errors->magnitudes / n, errors->largest,
           errors->product / sqrt(errors->square_x * errors->square_y));
}

static void print_table(CodecData data, KvSide side) {
    const KvGroup group = {N_TOKENS, HEAD_DIM, 64, false};
    printf("\n%s, %s:\n\n| codec | bits | MSE | MAE | max | cosine | MSE r | MAE r | max r | cosine r |\n"
           "|---|---|---|---|---|---|---|---|---|---|\n",
           side == KV_KEYS ? "Keys" : "Values", codec_data_name(data));
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++) {
        double bits = (double)kv_codec_bytes(kv_codec(id), side, &group) * 8 / N;
        printf("| %s | %.4g |", kv_codec_name(kv_codec(id)), bits);
        for (int rotated = 0; rotated < 2; rotated++) {
            Errors errors = measure(id, side, data, rotated);
            print_cells(&errors);
        }
        printf("\n");
    }
}

int main(void) {
    for (CodecData data = DATA_GAUSSIAN; data <= DATA_OUTLIER_CHANNELS; data++)
        for (KvSide side = KV_KEYS; side <= KV_VALUES; side++)
            print_table(data, side);
    return 0;
}
