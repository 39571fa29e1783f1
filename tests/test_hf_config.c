/* Keys that a config.json leaves out, or has as null, against what the configuration classes of Hugging Face's
 * transformers make of the same file (fixtures/transformers_defaults.py). */
#include "checkpoints/hf_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static double number(const cJSON *expected, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(expected, name);
    assert_true(cJSON_IsNumber(item));
    return item->valuedouble;
}

static void check_number(const cJSON *record, const char *name, double is) {
    double wanted = number(cJSON_GetObjectItemCaseSensitive(record, "expected"), name);
    if (is != wanted)
        fail_msg("%s is %g, expected %g: %s", name, is, wanted, cJSON_PrintUnformatted(record));
}

static void check_layers(const cJSON *record, const char *name, const LayerSet *is, size_t n_layers) {
    const cJSON *item, *expected = cJSON_GetObjectItemCaseSensitive(record, "expected");
    LayerSet wanted = {0};
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(expected, name))
        layer_set_add(&wanted, (size_t)item->valuedouble);
    for (size_t layer = 0; layer < n_layers; layer++)
        if (layer_set_has(is, layer) != layer_set_has(&wanted, layer))
            fail_msg("%s: layer %zu: %s", name, layer, cJSON_PrintUnformatted(record));
}

static void check(const cJSON *record) {
    Error error = {0};
    ModelConfig config;
    bool tied;
    if (hf_config_read(cJSON_GetObjectItemCaseSensitive(record, "config"), "config.json", &config, &tied, &error) < 0)
        fail_msg("%s", error.message);
    model_config_complete(&config);
    check_number(record, "n_kv_heads", (double)config.n_kv_heads);
    check_number(record, "head_dim", (double)config.head_dim);
    check_number(record, "n_ctx_train", (double)config.n_ctx_train);
    check_number(record, "rope_theta", config.rope_theta);
    check_number(record, "local_rope_theta", config.local_rope_theta > 0 ? config.local_rope_theta : config.rope_theta);
    check_number(record, "lookback", (double)config.lookback);
    check_number(record, "score_divisor", (double)config.score_divisor);
    check_number(record, "score_cap", (double)config.score_cap);
    check_number(record, "logit_cap", (double)config.logit_cap);
    check_layers(record, "local", &config.local, config.n_layers);
    check_layers(record, "no_rope", &config.no_rope, config.n_layers);
    const cJSON *expected = cJSON_GetObjectItemCaseSensitive(record, "expected");
    assert_true(config.norm_eps == (float)number(expected, "norm_eps"));
    assert_int_equal(tied, cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(expected, "tied")));
}

static void test_defaults(void **state) {
    (void)state;
    Error error = {0};
    cJSON *root = json_document_load(TRANSFORMERS_DEFAULTS, &error);
    const cJSON *record, *records = cJSON_GetObjectItemCaseSensitive(root, "cases");
    if (root == NULL)
        fail_msg("%s", error.message);
    assert_true(cJSON_GetArraySize(records) >= 18); /* each class by its name, and by its type */
    cJSON_ArrayForEach(record, records) check(record);
    cJSON_Delete(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
