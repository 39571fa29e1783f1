/* See windows.h; docs/quality.md has the definitions in words. */
#include "eval/perplexity/windows.h"

#include "base/options.h"

#include <stdlib.h>
#include <string.h>

static const PplDefinitionInfo DEFINITIONS[PPL_DEFINITION_COUNT] = {
    [PPL_LLAMACPP] = {"llamacpp", false, true, 512, 0},
    [PPL_HF] = {"hf", true, false, 1024, 512}, /* the page's own example */
    [PPL_GPTQ] = {"gptq", true, false, 2048, 0},
};

const PplDefinitionInfo *ppl_definition(PplDefinition definition) {
    return &DEFINITIONS[definition];
}

int ppl_definition_parse(const char *name, PplDefinition *out, Error *error) {
    const char *names[PPL_DEFINITION_COUNT + 1] = {0};
    for (int i = 0; i < PPL_DEFINITION_COUNT; i++) {
        names[i] = DEFINITIONS[i].name;
        if (strcmp(name, names[i]) == 0) {
            *out = (PplDefinition)i;
            return 0;
        }
    }
    return error_set(error, ERROR_USAGE, "--ppl_mode %s: unknown; did you mean %s? It takes llamacpp, hf or gptq", name,
                     nearest_name(name, names));
}

/* llama.cpp: of each whole chunk the logits from its middle on; every token counts the same. */
static PplWindow chunk_of_llamacpp(const PplSettings *s, size_t index) {
    size_t begin = index * s->context, first_target = begin + s->context / 2 + 1;
    return (PplWindow){begin, begin + s->context, first_target, (double)(begin + s->context - first_target)};
}

/* GPTQ: the mean over a chunk's context - 1 predictions, times the context. */
static PplWindow chunk_of_gptq(const PplSettings *s, size_t index) {
    size_t begin = index * s->context;
    return (PplWindow){begin, begin + s->context, begin + 1, (double)s->context};
}

/* Hugging Face: labels are the tokens behind the former window's end. The page weights a window's mean by its labels
 * less one: the first token of the first window has nothing before it, and the page subtracts one from the later
 * windows too. */
static PplWindow window_of_hf(const PplSettings *s, size_t index, size_t n_tokens) {
    size_t begin = index * s->stride, end = begin + s->context < n_tokens ? begin + s->context : n_tokens;
    size_t labels_begin = index == 0 ? 0 : begin - s->stride + s->context;
    size_t first_target = labels_begin > begin ? labels_begin : begin + 1;
    return (PplWindow){begin, end, first_target, (double)(end - labels_begin - 1)};
}

static size_t count_windows(const PplSettings *s, size_t n_tokens) {
    if (s->definition != PPL_HF)
        return n_tokens / s->context;
    if (n_tokens <= s->context)
        return 1;
    return 1 + (n_tokens - s->context + s->stride - 1) / s->stride;
}

static int check(const PplSettings *s, size_t n_tokens, Error *error) {
    const char *name = DEFINITIONS[s->definition].name;
    if (s->stride == 0 || s->stride > s->context)
        return error_set(error, ERROR_USAGE, "--stride %zu: windows of %zu tokens move by 1 to %zu", s->stride,
                         s->context, s->context);
    if (s->definition != PPL_HF && s->stride != s->context)
        return error_set(error, ERROR_USAGE,
                         "--stride %zu: the chunks of --ppl_mode %s do not overlap; leave it out, or use --ppl_mode hf",
                         s->stride, name);
    size_t needed = s->definition == PPL_LLAMACPP ? 2 * s->context : s->definition == PPL_GPTQ ? s->context : 2;
    if (n_tokens < needed)
        return error_set(error, ERROR_ARGUMENT,
                         "the text has %zu tokens, and --ppl_mode %s with a context of %zu needs %zu; give a longer "
                         "text or a smaller --context",
                         n_tokens, name, s->context, needed);
    return 0;
}

int ppl_windows(const PplSettings *settings, size_t n_tokens, PplWindows *out, Error *error) {
    *out = (PplWindows){0};
    if (check(settings, n_tokens, error) < 0)
        return error->code;
    size_t count = count_windows(settings, n_tokens);
    if (settings->max_windows > 0 && settings->max_windows < count)
        count = settings->max_windows;
    out->items = calloc(count, sizeof *out->items);
    if (out->items == NULL)
        return error_memory(error, "windows", count * sizeof *out->items);
    for (size_t i = 0; i < count; i++) {
        PplWindow window = settings->definition == PPL_LLAMACPP ? chunk_of_llamacpp(settings, i)
                           : settings->definition == PPL_GPTQ   ? chunk_of_gptq(settings, i)
                                                                : window_of_hf(settings, i, n_tokens);
        out->items[out->count++] = window;
        out->n_scored += ppl_window_scored(&window);
        out->n_tokens += window.end - window.begin;
    }
    return 0;
}

void ppl_windows_free(PplWindows *windows) {
    free(windows->items);
    *windows = (PplWindows){0};
}

double ppl_mean_nll(const PplWindows *windows, size_t count, const double *nll) {
    double sum = 0, weights = 0;
    for (size_t i = 0; i < count; i++) {
        const PplWindow *window = &windows->items[i];
        size_t n = ppl_window_scored(window);
        double window_sum = 0;
        if (n == 0)
            continue; /* a last window of one token, with nothing before it */
        for (size_t t = 0; t < n; t++)
            window_sum += nll[t];
        nll += n;
        sum += window->weight * window_sum / (double)n;
        weights += window->weight;
    }
    return sum / weights;
}
