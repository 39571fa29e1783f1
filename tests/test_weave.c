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

/* The bits of a tile that is packed with n bits for each code. */
static unsigned bits_at(const uint8_t *tile, size_t n, size_t vector, size_t word, size_t byte) {
    return tile[(vector % n * 16 + word) * 4 + byte] >> vector / n * n & ((1u << n) - 1);
}

static unsigned code_at(const uint8_t *codes, size_t bits, KvSide side, size_t head_dim, size_t token, size_t element) {
    const uint8_t *tile = codes + (token / 16 * (head_dim / 32) + element / 32) * 64 * bits;
    size_t t = token % 16, i = element % 32;
    size_t vector = side == KV_KEYS ? i / 4 : t / 4 * 2 + i / 16, word = side == KV_KEYS ? t : i % 16;
    size_t byte = side == KV_KEYS ? i % 4 : t % 4;
    if (bits == 5)
        return bits_at(tile, 4, vector, word, byte) | bits_at(tile + 4 * 64, 1, vector, word, byte) << 4;
    return bits_at(tile, bits, vector, word, byte);
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
    uint8_t *room = malloc(size), *kept = malloc(size);
    codec_data(DATA_GAUSSIAN, (unsigned)(n + id), group->n_tokens, group->head_dim, values);
    uint8_t *record = codec_encoded(codec, side, group, values);
    float *decoded = codec_decoded(codec, side, group, record, SIMD_SCALAR);
    memcpy(kept, record, size);
    kv_weave(id, side, group, kept, room);
    if (!kv_is_woven(id, group->head_dim)) {
        assert_memory_equal(kept, record, size);
    } else {
        KvWoven woven = kv_woven(id, side, group);
        n_woven++;
        for (size_t i = 0; i < n; i++)
            if (element_at(&woven, group, side, kept, i / group->head_dim, i % group->head_dim) != decoded[i])
                fail_msg("%s, head_dim %zu, element %zu", kv_codec_name(codec), group->head_dim, i);
    }
    kv_decode_kept(id, side, group, kept, room, values);
    assert_memory_equal(room, record, size);
    assert_memory_equal(values, decoded, n * sizeof *values);
    free(values);
    free(room);
    free(kept);
    free(record);
    free(decoded);
}

static void test_every_codec(void **state) {
    (void)state;
    for_each_codec_shape(check);
    assert_true(n_woven > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_codec)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
