/* Woven records, read by the description in kvcache/codec/weave.h, against what the codec decodes. */
#include "kvcache/codec/half.h"
#include "kvcache/codec/weave.h"
#include "tests/codec_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* By the description in base/bit_planes.h: the planes of a width are its binary digits. */
static unsigned code_in_pack(const uint8_t *pack, size_t bits, size_t lane, size_t step, size_t place) {
    unsigned code = 0, shift = 0;
    for (size_t plane = 8; plane > 0; plane /= 2) {
        if ((bits & plane) == 0)
            continue;
        unsigned piece = pack[step % plane * 64 + lane * 4 + place];
        code |= (piece >> step / plane * plane & ((1u << plane) - 1)) << shift;
        shift += (unsigned)plane;
        pack += plane * 64;
    }
    return code;
}

static unsigned code_at(const uint8_t *codes, size_t bits, KvSide side, size_t head_dim, size_t token, size_t element) {
    const uint8_t *pack = codes + (token / 16 * (head_dim / 32) + element / 32) * 64 * bits;
    size_t t = token % 16, i = element % 32;
    return side == KV_KEYS ? code_in_pack(pack, bits, t, i / 4, i % 4)
                           : code_in_pack(pack, bits, i % 16, t / 4 * 2 + i / 16, t % 4);
}

static float element_at(const KvWoven *woven, const KvGroup *group, KvSide side, const uint8_t *record, size_t token,
                        size_t element) {
    size_t index = woven->by_channel ? element : element / woven->block * group->n_tokens + token;
    float scale = half_load(record + index * 2);
    unsigned code = code_at(record + woven->codes, woven->bits, side, group->head_dim, token, element);
    float product = scale * (float)(woven->factor * (int)code - woven->bias);
    return woven->has_minima ? product + half_load(record + woven->minima + index * 2) : product;
}

static size_t n_woven;

static void check(const KvCodec *codec, KvSide side, const KvGroup *group) {
    KvCodecId id = kv_codec_id(codec);
    size_t size = kv_codec_bytes(codec, side, group), n = group->n_tokens * group->head_dim;
    float *values = malloc(n * sizeof *values);
    uint8_t *scratch = malloc(size), *stored = malloc(size);
    codec_data(DATA_GAUSSIAN, (unsigned)(n + id), group->n_tokens, group->head_dim, values);
    uint8_t *record = codec_encoded(codec, side, group, values);
    float *decoded = codec_decoded(codec, side, group, record, SIMD_SCALAR);
    assert_int_equal(KV_WOVEN_RECORDS.stored_bytes(id, side, group), size);
    KV_WOVEN_RECORDS.store(id, side, group, record, stored);
    if (!kv_is_woven(id, group->head_dim)) {
        assert_memory_equal(stored, record, size);
    } else {
        KvWoven woven = kv_woven(id, side, group);
        n_woven++;
        for (size_t i = 0; i < n; i++)
            if (element_at(&woven, group, side, stored, i / group->head_dim, i % group->head_dim) != decoded[i])
                fail_msg("%s, head_dim %zu, element %zu", kv_codec_name(codec), group->head_dim, i);
    }
    kv_stored_decode(&KV_WOVEN_RECORDS, id, side, group, stored, scratch, values);
    assert_memory_equal(scratch, record, size);
    assert_memory_equal(values, decoded, n * sizeof *values);
    free(values);
    free(scratch);
    free(stored);
    free(record);
    free(decoded);
}

static void test_every_codec(void **state) {
    (void)state;
    for_each_codec_shape(check);
    assert_true(n_woven > 50);
}

/* Widths that no codec has too: any codes, one lane after the other, against the description and back. */
static void test_bit_planes_of_every_width(void **state) {
    (void)state;
    for (size_t bits = 1; bits <= 8; bits++) {
        uint8_t pack[8 * 64], codes[PLANE_LANES][LANE_CODES], back[LANE_CODES];
        assert_int_equal(planes_bytes(bits), bits * 64);
        for (size_t i = 0; i < sizeof codes; i++)
            codes[i / LANE_CODES][i % LANE_CODES] = (uint8_t)((i * 2654435761u >> 13) & ((1u << bits) - 1));
        memset(pack, 0xa5, sizeof pack);
        for (size_t lane = 0; lane < PLANE_LANES; lane++)
            planes_put(bits, codes[lane], lane, pack);
        for (size_t lane = 0; lane < PLANE_LANES; lane++) {
            for (size_t i = 0; i < LANE_CODES; i++)
                assert_int_equal(code_in_pack(pack, bits, lane, i / 4, i % 4), codes[lane][i]);
            planes_get(bits, pack, lane, back);
            assert_memory_equal(back, codes[lane], LANE_CODES);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bit_planes_of_every_width),
                                       cmocka_unit_test(test_every_codec)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
