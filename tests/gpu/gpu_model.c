/* A whole step of generation with synthetic weights of Llama-3-8B's shapes, by depth and cache policy, and its products
 * alone. The cache is advanced to a depth with nothing in it: time does not depend on what numbers are. A step is what
 * `generate` does for a token, up to the logits on the host. */
#include "base/machine/clock.h"
#include "base/options.h"
#include "base/simd/detect.h"
#include "cuda/backend.h"
#include "cuda/matvec.h"
#include "kvcache/ledger.h"
#include "kvcache/policy_text.h"
#include "tests/gpu/gpu_program.h"
#include "tests/gpu/synthetic_model.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_DEPTHS = 16, MOST_STEPS = 1000, WARM_UP = 3, MOST_MATRICES = 8 };

typedef struct Settings {
    const char *depths, *type;
    StringList policies;
    size_t n_steps, n_prompt;
    bool tiny, help;
} Settings;

typedef struct Run {
    const Settings *settings;
    TensorType type;
    Model model;
    SyntheticModel synthetic;
    CopyBandwidth copies;
    size_t weights_bytes; /* that a token reads */
} Run;

static cJSON *begin_line(const Run *run, const char *test) {
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "test", test);
    cJSON_AddStringToObject(line, "device_name", run->model.backend->device_name);
    cJSON_AddStringToObject(line, "weights", tensor_type_info(run->type)->name);
    return line;
}

static void add_rates(const Run *run, cJSON *line, double bytes, double us) {
    double rate = bytes / (us * 1e-6);
    cJSON_AddNumberToObject(line, "bytes", bytes);
    cJSON_AddNumberToObject(line, "bytes_per_second", rate);
    cJSON_AddNumberToObject(line, "copy_bandwidth", run->copies.bytes_per_second);
    cJSON_AddNumberToObject(line, "bandwidth_share", rate / run->copies.bytes_per_second);
}

/* ---- Products alone */

typedef struct Products {
    const Model *model;
    cudaStream_t stream;
    float *x, *y; /* device, as large as any */
} Products;

/* As forward() has it: x is normalised by the products that read it, but for attention's output and down. */
static CudaNorm norm_of(const Model *model, Product product, size_t layer) {
    const Weights *w = &model->weights;
    const Tensor *gain = product == PRODUCT_QKV       ? &w->layers[layer].attn_norm
                         : product == PRODUCT_GATE_UP ? &w->layers[layer].ffn_norm
                         : product == PRODUCT_LOGITS  ? &w->output_norm
                                                      : NULL;
    if (gain == NULL || !cuda_matvec_norms(gain->shape[0], 1))
        return (CudaNorm){0};
    return (CudaNorm){gain->uploaded, model->checkpoint.config.norm_eps};
}

/* All matrices of one product in one layer. */
static void launch_product(const Products *p, Product product, size_t layer) {
    CudaProduct products[MOST_MATRICES];
    float *y = p->y;
    size_t n = 0;
    for (size_t i = 0; i < TENSOR_ROLE_COUNT; i++) {
        const TensorRole *role = &TENSOR_ROLES[i];
        if (role->product != product || role->use != TENSOR_MATRIX)
            continue;
        const CudaMatrix *w = role_tensor(role, &p->model->weights, layer)->uploaded;
        products[n++] = (CudaProduct){*w, NULL, y};
        y += w->n_rows;
    }
    cuda_matvec(products, n, norm_of(p->model, product, layer), p->x, 1, p->stream);
}

static void launch_products(void *context) {
    const Products *p = context;
    for (size_t layer = 0; layer < p->model->checkpoint.config.n_layers; layer++)
        for (Product product = PRODUCT_QKV; product <= PRODUCT_FFN_DOWN; product++)
            launch_product(p, product, layer);
    launch_product(p, PRODUCT_LOGITS, 0);
}

static int time_products(Run *run, Error *error) {
    const ModelConfig *config = &run->model.checkpoint.config;
    Backend *b = run->model.backend;
    size_t x_bytes = config->n_ffn * sizeof(float), y_bytes = (2 * config->n_ffn + config->n_vocab) * sizeof(float);
    GpuTiming timing;
    Products p = {.model = &run->model};
    p.x = b->ops->allocate(b, x_bytes, "activations", error);
    p.y = b->ops->allocate(b, y_bytes, "activations", error);
    int status = p.x != NULL && p.y != NULL ? 0 : error->code;
    if (status == 0)
        status = cuda_check(cudaStreamCreateWithFlags(&p.stream, cudaStreamNonBlocking), "opening a stream", error);
    if (status == 0)
        status = cuda_check(cudaDeviceSynchronize(), "allocating", error);
    if (status == 0)
        status = gpu_time(p.stream, launch_products, &p, &timing, error);
    if (p.stream != NULL)
        cudaStreamDestroy(p.stream);
    b->ops->release(b, p.x, x_bytes);
    b->ops->release(b, p.y, y_bytes);
    if (status < 0)
        return status;
    cJSON *line = begin_line(run, "products");
    cJSON_AddNumberToObject(line, "us", timing.median_us);
    cJSON_AddNumberToObject(line, "us_min", timing.min_us);
    add_rates(run, line, (double)run->weights_bytes, timing.median_us);
    gpu_print(line);
    return 0;
}

/* ---- Steps */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int time_steps(Context *context, size_t n_steps, double *us, Error *error) {
    int32_t token = 1;
    for (size_t i = 0; i < WARM_UP + n_steps; i++) {
        double begin = clock_seconds();
        if (forward(context, &token, 1, LOGITS_LAST, error) < 0)
            return error->code;
        if (i >= WARM_UP)
            us[i - WARM_UP] = 1e6 * (clock_seconds() - begin);
    }
    qsort(us, n_steps, sizeof *us, ascending);
    return 0;
}

static size_t held_bytes(const KvCache *cache) {
    KvLedger ledger;
    size_t sum = 0;
    kv_ledger_at(&cache->layout, cache->n_tokens, &ledger);
    for (size_t i = 0; i < ledger.n_rows; i++)
        sum += ledger.rows[i].bytes_held;
    return sum;
}

/* A prompt, where one is wanted, goes through as a batch. */
static int read_prompt(const Run *run, Context *context, Error *error) {
    int32_t tokens[DEFAULT_BATCH];
    for (size_t done = 0, n; done < run->settings->n_prompt; done += n) {
        n = context_batch(context, run->settings->n_prompt - done);
        for (size_t i = 0; i < n; i++)
            tokens[i] = (int32_t)((7 * (done + i) + 11) % run->model.checkpoint.config.n_vocab);
        if (forward(context, tokens, n, LOGITS_LAST, error) < 0)
            return error->code;
    }
    return 0;
}

static int measure(Run *run, Context *context, const char *policy, size_t depth, Error *error) {
    static double us[MOST_STEPS];
    size_t n = run->settings->n_steps;
    if (read_prompt(run, context, error) < 0)
        return error->code;
    kvcache_advance(&context->cache, depth);
    if (time_steps(context, n, us, error) < 0)
        return error->code;
    double bytes = (double)(run->weights_bytes + held_bytes(&context->cache));
    cJSON *line = begin_line(run, "model");
    cJSON_AddStringToObject(line, "policy", policy);
    cJSON_AddNumberToObject(line, "depth", (double)depth);
    cJSON_AddNumberToObject(line, "us", us[n / 2]);
    cJSON_AddNumberToObject(line, "us_min", us[0]);
    cJSON_AddNumberToObject(line, "us_max", us[n - 1]);
    cJSON_AddNumberToObject(line, "tokens_per_second", 1e6 / us[n / 2]);
    add_rates(run, line, bytes, us[n / 2]);
    cJSON_AddNumberToObject(line, "repetitions", (double)n);
    gpu_print(line);
    return 0;
}

/* What does not fit into the device's memory is said, and left out. */
static int run_case(Run *run, const char *text, size_t depth, Error *error) {
    const Settings *s = run->settings;
    KvPolicy policy = kv_policy_full();
    Context context;
    if (kv_policy_parse(text, &policy, error) < 0)
        return error->code;
    size_t n_ctx = s->n_prompt + depth + WARM_UP + s->n_steps + 64;
    int status = context_open(&context, &run->model, &policy, n_ctx, s->n_prompt > 0 ? 0 : 1, error);
    if (status == ERROR_MEMORY) {
        cJSON *line = begin_line(run, "model");
        cJSON_AddStringToObject(line, "policy", text);
        cJSON_AddNumberToObject(line, "depth", (double)depth);
        cJSON_AddStringToObject(line, "skipped", error->message);
        gpu_print(line);
        *error = (Error){0};
        return 0;
    }
    if (status < 0)
        return status;
    status = measure(run, &context, text, depth, error);
    context_close(&context);
    return status;
}

static int run_cases(Run *run, Error *error) {
    size_t depths[MOST_DEPTHS];
    int n_depths = gpu_parse_numbers(run->settings->depths, depths, MOST_DEPTHS, error);
    for (int d = 0; d < n_depths; d++)
        for (size_t i = 0; i < run->settings->policies.count; i++)
            if (run_case(run, run->settings->policies.items[i], depths[d], error) < 0)
                return error->code;
    return error->code;
}

static int find_type(const char *name, TensorType *type, Error *error) {
    for (*type = 0; *type < TENSOR_TYPE_COUNT; (*type)++)
        if (strcmp(name, tensor_type_info(*type)->name) == 0)
            return 0;
    return error_set(error, ERROR_USAGE, "--type %s: unknown; expected F16, Q8_0 or Q4_0", name);
}

static int open_run(Run *run, const Settings *s, Error *error) {
    const ModelConfig *config = s->tiny ? &SYNTHETIC_TINY : &SYNTHETIC_LLAMA_3_8B;
    Backend *backend;
    run->settings = s;
    if (find_type(s->type, &run->type, error) < 0 || cuda_backend_open(&backend, cpu_best_simd_level(), 0, error) < 0)
        return error->code;
    if (backend->ops->measure_copies(backend, &run->copies, error) < 0) {
        backend->ops->close(backend);
        return error->code;
    }
    if (synthetic_model_open(&run->synthetic, &run->model, backend, config, run->type, error) < 0)
        return error->code;
    run->weights_bytes = weights_bytes_per_token(&run->model.weights, &run->model.checkpoint.config);
    return 0;
}

int main(int argc, char **argv) {
    static Settings s = {.depths = "0,8192,32768,131072", .type = "F16", .n_steps = 20};
    static const char *const POLICIES[] = {"f16:*", "sink=16,f16:32,int8:*", "sink=16,f16:32,int4:*"};
    const Option options[] = {
        {"type", OPTION_STRING, &s.type, "NAME", "of the weights: F16, Q8_0 or Q4_0; default F16", 0, 0},
        {"depths", OPTION_STRING, &s.depths, "LIST", "default 0,8192,32768,131072", 0, 0},
        {"kv_policy", OPTION_LIST, &s.policies, "POLICY", "one or more; default: full, int8, int4", 0, 0},
        {"steps", OPTION_SIZE, &s.n_steps, "N", "that are timed; default 20", 1, MOST_STEPS},
        {"prompt_tokens", OPTION_SIZE, &s.n_prompt, "N", "that go through before, in batches; default 0", 0, 1 << 16},
        {"tiny", OPTION_FLAG, &s.tiny, NULL, "a tiny model, for tools that watch every access", 0, 0},
        {"help", OPTION_FLAG, &s.help, NULL, "print this, and stop", 0, 0},
        {0},
    };
    static Run run;
    Error error = {0};
    if (options_parse(options, argc, argv, &error) < 0)
        return gpu_exit("gpu_model", &error);
    if (s.help) {
        options_help(options, stdout);
        return 0;
    }
    for (size_t i = 0; i < sizeof POLICIES / sizeof *POLICIES && s.policies.count <= i; i++)
        s.policies.items[s.policies.count++] = POLICIES[i];
    if (open_run(&run, &s, &error) == 0) {
        if (time_products(&run, &error) == 0)
            run_cases(&run, &error);
        synthetic_model_close(&run.synthetic, &run.model);
    }
    return gpu_exit("gpu_model", &error);
}
