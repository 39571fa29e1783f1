/* See report_html.h. */
#include "eval/profile/report_html.h"

#include "eval/json_items.h"
#include "eval/profile/html_table.h"

#include <stdbool.h>
#include <string.h>

static const char HEAD[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta name=\"color-scheme\" content=\"light dark\">\n<title>stowkv profile</title>\n<style>\n"
    ":root { --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --page: #ffffff; --mark: #fff4d6; }\n"
    "@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --line: #3a424c;\n"
    "  --page: #14181d; --mark: #4a3a10; } }\n"
    "body { margin: 0 auto; max-width: 60rem; padding: 1rem; background: var(--page); color: var(--ink);\n"
    "  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }\n"
    "h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; }\n"
    "p, figcaption, dd { color: var(--soft); } dt { font-weight: 600; } dd { margin: 0 0 .5rem; }\n"
    ".missing { background: var(--mark); color: var(--ink); padding: .6rem .8rem; border-radius: .4rem; }\n"
    ".wide { overflow-x: auto; }\n"
    "table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal; }\n"
    "th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }\n"
    "th:first-child, td:first-child { text-align: left; }\n"
    "figure { margin: 1rem 0; } figure img { width: 100%; max-width: 42rem; height: auto; }\n"
    "pre { white-space: pre-wrap; border-left: 3px solid var(--line); padding-left: .8rem; }\n"
    "</style>\n</head>\n<body>\n";

/* ---- JSON */

/* 0 where there is none: for sums and shares. */
static double value_of(const cJSON *object, const char *name) {
    double value = json_number_of(object, name);
    return isnan(value) ? 0 : value;
}

static const cJSON *array_of(const cJSON *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static const cJSON *phase_of(const cJSON *mode, const char *name) {
    const cJSON *phase;
    cJSON_ArrayForEach(phase, array_of(array_of(mode, "profile"), "phases")) if (strcmp(json_text_of(phase, "phase"),
                                                                                        name) == 0) return phase;
    return NULL;
}

/* ---- Sections */

/* eval/plot.py puts a picture where the comment is. */
static void figure(const char *name, FILE *stream) {
    fprintf(stream, "<!--figure %s-->\n", name);
}

static void print_mode_heading(const cJSON *mode, FILE *stream) {
    fputs("<h3>", stream);
    html_print_escaped(json_text_of(mode, "mode"), stream);
    fputs("</h3>\n", stream);
}

static void print_head(const cJSON *summary, FILE *stream) {
    const cJSON *first = array_of(summary, "modes")->child;
    double flops = json_number_of(summary, "flops_per_second_peak");
    fputs(HEAD, stream);
    fputs("<h1>Profile ", stream);
    html_print_escaped(json_text_of(summary, "name"), stream);
    fputs("</h1>\n", stream);
    if (json_text_of(summary, "missing")[0] != '\0') {
        fputs("<p class=\"missing\">This profile is not complete: ", stream);
        html_print_escaped(json_text_of(summary, "missing"), stream);
        fputs(".</p>\n", stream);
    }
    if (first == NULL)
        return;
    fputs("<p>", stream);
    html_print_escaped(json_text_of(first, "model"), stream);
    fprintf(stream, ", %.1f MB of weights. Computed by ", value_of(first, "weights_bytes") / 1e6);
    html_print_escaped(json_text_of(first, json_text_of(first, "device_name")[0] != '\0' ? "device_name" : "device"),
                       stream);
    fprintf(stream, ", %s, %.0f threads; memory gives %.1f GB/s", json_text_of(first, "simd"),
            value_of(first, "threads"), value_of(summary, "bytes_per_second_peak") / 1e9);
    if (!isnan(flops))
        fprintf(stream, " and F32 arithmetic %.1f GFLOP/s", flops / 1e9);
    fputs(", measured just before.</p>\n", stream);
}

/* What a mode's report has in other forms, by the names of the table's columns. */
static cJSON *glance_row(const cJSON *mode) {
    cJSON *row = cJSON_Duplicate(mode, false);
    const cJSON *operation, *item;
    double rate = value_of(mode, "decode_tokens_per_second");
    cJSON_ArrayForEach(item, mode) if (cJSON_IsNumber(item) || cJSON_IsString(item))
        cJSON_AddItemToObject(row, item->string, cJSON_Duplicate(item, false));
    cJSON_AddNumberToObject(row, "of_full", value_of(mode, "kv_bytes") / value_of(mode, "kv_bytes_full"));
    if (rate > 0)
        cJSON_AddNumberToObject(row, "ms", 1e3 / rate);
    cJSON_ArrayForEach(operation,
                       array_of(phase_of(mode, "decode"),
                                "operations")) if (strcmp(json_text_of(operation, "operation"), "attention") == 0)
        cJSON_AddNumberToObject(row, "attention", value_of(operation, "share"));
    return row;
}

static void print_glance(const cJSON *summary, FILE *stream) {
    static const HtmlColumn COLUMNS[] = {{.head = "mode", .path = "mode"},
                                         {"cache taken, MB", "kv_bytes", 1e-6, 2, NULL, NULL},
                                         {"of full", "of_full", 1, 3, NULL, NULL},
                                         {"activations, MB", "activations_bytes", 1e-6, 2, NULL, NULL},
                                         {"prompt, tokens/s", "prefill_tokens_per_second", 1, 1, NULL, NULL},
                                         {"tokens/s", "decode_tokens_per_second", 1, 1, NULL, NULL},
                                         {"ms a token", "ms", 1, 2, NULL, NULL},
                                         {"of it attention", "attention", 100, 1, "%", NULL},
                                         {.head = "policy", .path = "policy"}};
    const cJSON *mode;
    cJSON *rows = cJSON_CreateArray();
    cJSON_ArrayForEach(mode, array_of(summary, "modes")) cJSON_AddItemToArray(rows, glance_row(mode));
    fputs("<h2>At a glance</h2>\n", stream);
    html_table(rows, COLUMNS, HTML_COLUMNS(COLUMNS), stream);
    cJSON_Delete(rows);
    fputs("<p>&ldquo;Cache taken&rdquo; is what is allocated for the whole context; a compressed cache drops what the "
          "others keep. Activations are those of the largest batch, with what attention works in.</p>\n",
          stream);
}

static void print_memory(const cJSON *summary, FILE *stream) {
    static const HtmlColumn COLUMNS[] = {
        {.head = "tier", .path = "name"},           {"bits an element", "bits_per_element", 1, 2, NULL, NULL},
        {"tokens", "tokens", 1, 0, NULL, NULL},     {"MB held", "bytes_held", 1e-6, 3, NULL, NULL},
        {"MB taken", "bytes", 1e-6, 3, NULL, NULL}, {"MB read", "bytes_read", 1e-6, 1, NULL, NULL}};
    const cJSON *mode;
    fputs("<h2>Memory</h2>\n", stream);
    figure("memory", stream);
    figure("growth", stream);
    cJSON_ArrayForEach(mode, array_of(summary, "modes")) {
        print_mode_heading(mode, stream);
        html_table(array_of(mode, "tiers"), COLUMNS, HTML_COLUMNS(COLUMNS), stream);
    }
}

static void print_depths(const cJSON *summary, FILE *stream) {
    static const HtmlColumn COLUMNS[] = {{.head = "mode", .path = "mode"},
                                         {"depth", "depth", 1, 0, NULL, NULL},
                                         {"tokens/s", "decode_tokens_per_second", 1, 1, NULL, NULL},
                                         {"of bandwidth", "bandwidth_share", 100, 0, "%", NULL},
                                         {"prompt, tokens/s", "prefill_tokens_per_second", 1, 1, NULL, NULL}};
    const cJSON *depths = array_of(summary, "depths"), *break_even;
    if (depths == NULL)
        return;
    fputs("<h2>Speed by depth</h2>\n", stream);
    figure("depth", stream);
    cJSON_ArrayForEach(break_even, array_of(depths, "break_even")) {
        fputs("<p>", stream);
        html_print_escaped(break_even->string, stream);
        if (cJSON_IsNumber(break_even))
            fprintf(stream, " generates faster than the full cache from depth %.0f on.</p>\n", break_even->valuedouble);
        else
            fputs(" was not faster than the full cache at any of these depths.</p>\n", stream);
    }
    html_table(array_of(depths, "results"), COLUMNS, HTML_COLUMNS(COLUMNS), stream);
}

/* What is compared with what, in numbers of samples. */
static void print_quality_text(const cJSON *quality, FILE *stream) {
    const cJSON *first = array_of(quality, "modes")->child, *rouge = html_item(first->next, "rouge");
    fputs("<p>Perplexity of ", stream);
    html_print_escaped(json_text_of(quality, "text"), stream);
    fprintf(stream,
            ", as %s defines it: %.0f windows of %.0f tokens, %.0f of them scored. KL divergence and the share of "
            "equal most likely tokens: against the full cache, at the same tokens.",
            json_text_of(first, "definition"), value_of(first, "chunks"), value_of(first, "context"),
            value_of(first, "tokens_scored"));
    if (rouge != NULL)
        fprintf(stream,
                " ROUGE-L (F): %.0f pieces of the text, %.0f tokens each, are continued greedily by %.0f tokens; of "
                "two texts that are the same it is 1. Of %.0f pieces little can be told: rouge takes more.",
                value_of(rouge, "n"), value_of(rouge, "n_prompt"), value_of(rouge, "max_new_tokens"),
                value_of(rouge, "n"));
    fputs(" Behind &plusmn; is the standard error.</p>\n", stream);
    if (cJSON_IsTrue(array_of(quality, "own")))
        fputs("<p>The model has drawn that text itself, so its perplexity tells nothing of the model; give a text with "
              "--profile_text.</p>\n",
              stream);
}

static void print_quality(const cJSON *summary, FILE *stream) {
    static const HtmlColumn COLUMNS[] = {{.head = "mode", .path = "mode"},
                                         {"perplexity", "ppl", 1, 4, NULL, "ppl_stderr"},
                                         {"ln(its/full)", "ln_ratio", 1, 5, NULL, "ln_ratio_stderr"},
                                         {"KL divergence, nats", "kld.mean", 1, 6, NULL, "kld.stderr"},
                                         {"same most likely token", "kld.same_top1", 100, 2, "%", NULL},
                                         {"ROUGE-L", "rouge.f", 1, 3, NULL, "rouge.f_stderr"},
                                         {"same texts", "rouge.n_same", 1, 0, NULL, NULL},
                                         {.head = "policy", .path = "policy"}};
    const cJSON *quality = array_of(summary, "quality");
    if (quality == NULL)
        return;
    fputs("<h2>Quality</h2>\n", stream);
    figure("quality", stream);
    html_table(array_of(quality, "modes"), COLUMNS, HTML_COLUMNS(COLUMNS), stream);
    print_quality_text(quality, stream);
}

/* A table a mode: its distances. */
static void print_recall(const cJSON *summary, FILE *stream) {
    static const HtmlColumn COLUMNS[] = {{"tokens ago", "distance", 1, 0, NULL, NULL},
                                         {"log-likelihood", "log_likelihood", 1, 4, NULL, "stderr"},
                                         {"less full's", "less_full", 1, 4, NULL, "less_full_stderr"},
                                         {"right", "right", 100, 1, "%", "right_stderr"}};
    const cJSON *recall = array_of(summary, "recall"), *mode;
    if (recall == NULL)
        return;
    fputs("<h2>Recall</h2>\n", stream);
    if (json_text_of(recall, "left_out")[0] != '\0') {
        fputs("<p>Left out: ", stream);
        html_print_escaped(json_text_of(recall, "left_out"), stream);
        fputs(".</p>\n", stream);
        return;
    }
    figure("recall", stream);
    fprintf(stream,
            "<p>A segment of %.0f random tokens comes again after random others: how likely is each of its last %.0f "
            "to the model, and how often the most likely one? Of %.0f samples for a distance; recall takes more. "
            "Behind &plusmn; is the standard error.</p>\n",
            value_of(recall, "segment"), value_of(recall, "scored"), value_of(recall, "samples"));
    cJSON_ArrayForEach(mode, array_of(recall, "modes")) {
        print_mode_heading(mode, stream);
        html_table(array_of(mode, "points"), COLUMNS, HTML_COLUMNS(COLUMNS), stream);
    }
}

static void print_phase(const cJSON *mode, const cJSON *phase, FILE *stream) {
    static const HtmlColumn COLUMNS[] = {{.head = "operation", .path = "operation"},
                                         {"calls", "calls", 1, 0, NULL, NULL},
                                         {"ms", "seconds", 1e3, 2, NULL, NULL},
                                         {"of time", "share", 100, 1, "%", NULL},
                                         {"GB/s", "bytes_per_second", 1e-9, 1, NULL, NULL},
                                         {"of peak", "bandwidth_share", 100, 0, "%", NULL},
                                         {"GFLOP/s", "flops_per_second", 1e-9, 1, NULL, NULL},
                                         {"of F32 peak", "flops_share", 100, 0, "%", NULL}};
    const cJSON *operation;
    double seconds = value_of(phase, "seconds"), rest = value_of(phase, "unaccounted_seconds");
    fputs("<h3>", stream);
    html_print_escaped(json_text_of(mode, "mode"), stream);
    fprintf(stream, ", %s: %.0f tokens in %.3f s</h3>\n", json_text_of(phase, "phase"), value_of(phase, "tokens"),
            seconds);
    html_begin_table(COLUMNS, HTML_COLUMNS(COLUMNS), stream);
    cJSON_ArrayForEach(operation, array_of(phase, "operations"))
        html_row(operation, COLUMNS, HTML_COLUMNS(COLUMNS), stream);
    fprintf(stream, "<tr><td>not accounted for</td><td>&ndash;</td><td>%.2f</td><td>%.1f%%</td></tr>\n", 1e3 * rest,
            seconds > 0 ? 100 * rest / seconds : 0);
    html_end_table(stream);
}

static void print_operations(const cJSON *summary, FILE *stream) {
    const cJSON *mode, *phase;
    fputs("<h2>Time by operation</h2>\n", stream);
    figure("operations", stream);
    fputs("<p>Bytes are those that an operation cannot do without: weights, activations, and what attention reads of "
          "the cache. In a prompt several tokens share them, so no rate is given. What lies in the processor's caches "
          "may be read faster than memory gives it, and integer products may be faster than F32's peak.</p>\n",
          stream);
    cJSON_ArrayForEach(mode, array_of(summary, "modes"))
        cJSON_ArrayForEach(phase, array_of(array_of(mode, "profile"), "phases")) print_phase(mode, phase, stream);
}

static void print_texts(const cJSON *summary, FILE *stream) {
    const cJSON *mode;
    fputs("<h2>What was said</h2>\n", stream);
    cJSON_ArrayForEach(mode, array_of(summary, "modes")) {
        print_mode_heading(mode, stream);
        fputs("<pre>", stream);
        html_print_escaped(json_text_of(mode, "text"), stream);
        fputs("</pre>\n", stream);
    }
}

void report_html(const cJSON *summary, FILE *stream) {
    print_head(summary, stream);
    print_glance(summary, stream);
    print_memory(summary, stream);
    print_depths(summary, stream);
    print_quality(summary, stream);
    print_recall(summary, stream);
    print_operations(summary, stream);
    print_texts(summary, stream);
    fputs("</body>\n</html>\n", stream);
}
