/* The three definitions of perplexity, as data: which tokens go through an empty cache together, which of them are
 * scored, and what each window's mean counts in the result. Definitions are never mixed; a result names its own.
 *
 *     PplSettings settings = {.definition = PPL_LLAMACPP, .context = 512};
 *     PplWindows windows;
 *     if (ppl_windows(&settings, n_tokens, &windows, &error) < 0) …
 *     double ppl = exp(ppl_mean_nll(&windows, windows.count, nll));     // nll: one number for each scored token
 *     ppl_windows_free(&windows); */
#ifndef STOWKV_WINDOWS_H
#define STOWKV_WINDOWS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum PplDefinition {
    PPL_LLAMACPP, /* llama.cpp's perplexity: the second half of each chunk, the first token replaced by BOS */
    PPL_HF,       /* Hugging Face's page "Perplexity of fixed-length models": a sliding window over joined rows */
    PPL_GPTQ,     /* GPTQ and its successors: all of each chunk of the joined rows */
    PPL_DEFINITION_COUNT
} PplDefinition;

typedef struct PplDefinitionInfo {
    const char *name; /* on the command line */
    bool joins_rows;  /* the text is a data set's rows joined by "\n\n", not the file's bytes */
    bool replaces_bos;
    size_t default_context, default_stride; /* in tokens; a stride of 0 is the context */
} PplDefinitionInfo;

const PplDefinitionInfo *ppl_definition(PplDefinition definition);
int ppl_definition_parse(const char *name, PplDefinition *out, Error *error);

typedef struct PplSettings {
    PplDefinition definition;
    size_t context, stride; /* in tokens */
    size_t max_windows;     /* 0: all that the text gives */
} PplSettings;

typedef struct PplWindow {
    size_t begin, end;   /* tokens of the text that go through an empty cache */
    size_t first_target; /* tokens [first_target, end) are scored, each predicted from those before it in the window */
    double weight;       /* of the mean of its negative log-likelihoods */
} PplWindow;

typedef struct PplWindows {
    PplWindow *items; /* (count), owned */
    size_t count;
    size_t n_scored; /* tokens, over all windows */
    size_t n_tokens; /* that go through the model, over all windows */
} PplWindows;

/* Fails where the text is too short for the definition, or the stride does not fit it. */
int ppl_windows(const PplSettings *settings, size_t n_tokens, PplWindows *out, Error *error);
void ppl_windows_free(PplWindows *windows);

static inline size_t ppl_window_scored(const PplWindow *window) {
    return window->end - window->first_target;
}

/* ln(PPL) over the first `count` windows. */
double ppl_mean_nll(const PplWindows *windows, size_t count,
                    const double *nll); // (scored tokens of these windows) in nats, in order

#endif
