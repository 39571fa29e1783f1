/* Woven records, read by the description in codec_weave.h, against what the codec decodes. */
#include "kvcache/codec_weave.h"
#include "kvcache/codec_half.h"
#include "tests/codec_cases.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static unsigned code_at(const uint8_t *codes, size_t bits, KvSide side, size_t head_dim, size_t token, size_t element) {
    size_t block = element / 32, i = element % 32, n_blocks = head_dim / 32, word, byte;
    size_t half = bits == 4 ? i / 16 : 0, steps = bits == 4 ? 4 : 8, lanes = bits == 4 ? 16 : 32;
    if (bits == 4)
        i %= 16;
    if (side == KV_KEYS) {
        word = ((token / 16 * n_blocks + block) * steps + i / 4) * 16 + token % 16;
        byte = i % 4;
    } else {
        word = (token / 4 * n_blocks + block) * lanes + i;
        byte = token % 4;
    }
    return bits == 4 ? codes[word * 4 + byte] >> 4 * half & 15u : codes[word * 4 + byte];
}

static float element_at(const KvWoven *woven, const KvGroup *group, KvSide side, const uint8_t *record, size_t token,
                        size_t element) {
    size_t index = woven->by_channel ? element : element / woven->block * group->n_tokens + token;
    float scale = half_load(record + index * 2);
    unsigned code = code_at(record + woven->codes, woven->bits, side, group->head_dim, token, element);
    float product = scale * (float)((int)code - woven->bias);
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
