/* See report_html.h. */
#include "eval/profile/report_html.h"

#include "eval/json_items.h"

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
    "figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }\n"
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

/* ---- HTML */

static void print_escaped(const char *text, FILE *stream) {
    for (; *text != '\0'; text++)
        switch (*text) {
        case '&':
            fputs("&amp;", stream);
            break;
        case '<':
            fputs("&lt;", stream);
            break;
        case '>':
            fputs("&gt;", stream);
            break;
        case '"':
            fputs("&quot;", stream);
            break;
        default:
            fputc(*text, stream);
        }
}

static void cell_text(const char *text, FILE *stream) {
    fputs("<td>", stream);
    print_escaped(text, stream);
    fputs("</td>", stream);
}

/* A number of the object times `scale`, or a dash where it has none. */
static void cell(const cJSON *object, const char *name, double scale, int decimals, const char *unit, FILE *stream) {
    double value = json_number_of(object, name);
    fputs("<td>", stream);
    if (!isnan(value))
        fprintf(stream, "%.*f%s", decimals, value * scale, unit);
    else
        fputs("&ndash;", stream);
    fputs("</td>", stream);
}

static void begin_table(const char *const *heads, FILE *stream) {
    fputs("<div class=\"wide\"><table>\n<tr>", stream);
    for (; *heads != NULL; heads++)
        fprintf(stream, "<th>%s</th>", *heads);
    fputs("</tr>\n", stream);
}

static void end_table(FILE *stream) {
    fputs("</table></div>\n", stream);
}

/* eval/plot.py puts a picture where the comment is. */
static void figure(const char *name, FILE *stream) {
    fprintf(stream, "<!--figure %s-->\n", name);
}

/* ---- Sections */

static void print_head(const cJSON *summary, FILE *stream) {
    const cJSON *first = array_of(summary, "modes")->child;
    double flops = json_number_of(summary, "flops_per_second_peak");
    fputs(HEAD, stream);
    fputs("<h1>Profile ", stream);
    print_escaped(json_text_of(summary, "name"), stream);
    fputs("</h1>\n", stream);
    if (json_text_of(summary, "missing")[0] != '\0') {
        fputs("<p class=\"missing\">This profile is not complete: ", stream);
        print_escaped(json_text_of(summary, "missing"), stream);
        fputs(".</p>\n", stream);
    }
    if (first == NULL)
        return;
    fputs("<p>", stream);
    print_escaped(json_text_of(first, "model"), stream);
    fprintf(stream, ", %.1f MB of weights. Computed by ", value_of(first, "weights_bytes") / 1e6);
    print_escaped(json_text_of(first, json_text_of(first, "device_name")[0] != '\0' ? "device_name" : "device"),
                  stream);
    fprintf(stream, ", %s, %.0f threads; memory gives %.1f GB/s", json_text_of(first, "simd"),
            value_of(first, "threads"), value_of(summary, "bytes_per_second_peak") / 1e9);
    if (!isnan(flops))
        fprintf(stream, " and F32 arithmetic %.1f GFLOP/s", flops / 1e9);
    fputs(", measured just before.</p>\n", stream);
}

static void print_glance(const cJSON *summary, FILE *stream) {
    static const char *const HEADS[] = {"mode",     "cache taken, MB", "of full",         "prompt, tokens/s",
                                        "tokens/s", "ms a token",      "of it attention", "policy",
                                        NULL};
    const cJSON *mode;
    fputs("<h2>At a glance</h2>\n", stream);
    begin_table(HEADS, stream);
    cJSON_ArrayForEach(mode, array_of(summary, "modes")) {
        const cJSON *decode = phase_of(mode, "decode"), *operation, *attention = NULL;
        double rate = value_of(mode, "decode_tokens_per_second");
        cJSON_ArrayForEach(operation, array_of(decode, "operations")) if (strcmp(json_text_of(operation, "operation"),
                                                                                 "attention") == 0) attention =
            operation;
        fputs("<tr>", stream);
        cell_text(json_text_of(mode, "mode"), stream);
        cell(mode, "kv_bytes", 1e-6, 2, "", stream);
        fprintf(stream, "<td>%.3f</td>", value_of(mode, "kv_bytes") / value_of(mode, "kv_bytes_full"));
        cell(mode, "prefill_tokens_per_second", 1, 1, "", stream);
        cell(mode, "decode_tokens_per_second", 1, 1, "", stream);
        fprintf(stream, "<td>%.2f</td>", rate > 0 ? 1e3 / rate : 0);
        cell(attention, "share", 100, 1, "%", stream);
        cell_text(json_text_of(mode, "policy"), stream);
        fputs("</tr>\n", stream);
    }
    end_table(stream);
    fputs("<p>&ldquo;Cache taken&rdquo; is what is allocated for the whole context; a compressed cache drops what the "
          "others keep.</p>\n",
          stream);
}

static void print_memory(const cJSON *summary, FILE *stream) {
    static const char *const HEADS[] = {"tier", "bits an element", "tokens", "MB held", "MB taken", "MB read", NULL};
    const cJSON *mode, *tier;
    fputs("<h2>Memory</h2>\n", stream);
    figure("memory", stream);
    figure("growth", stream);
    cJSON_ArrayForEach(mode, array_of(summary, "modes")) {
        fputs("<h3>", stream);
        print_escaped(json_text_of(mode, "mode"), stream);
        fputs("</h3>\n", stream);
        begin_table(HEADS, stream);
        cJSON_ArrayForEach(tier, array_of(mode, "tiers")) {
            fputs("<tr>", stream);
            cell_text(json_text_of(tier, "name"), stream);
            cell(tier, "bits_per_element", 1, 2, "", stream);
            cell(tier, "tokens", 1, 0, "", stream);
            cell(tier, "bytes_held", 1e-6, 3, "", stream);
            cell(tier, "bytes", 1e-6, 3, "", stream);
            cell(tier, "bytes_read", 1e-6, 1, "", stream);
            fputs("</tr>\n", stream);
        }
        end_table(stream);
    }
}

static void print_depths(const cJSON *summary, FILE *stream) {
    static const char *const HEADS[] = {"mode", "depth", "tokens/s", "of bandwidth", "prompt, tokens/s", NULL};
    const cJSON *depths = array_of(summary, "depths"), *row, *break_even;
    if (depths == NULL)
        return;
    fputs("<h2>Speed by depth</h2>\n", stream);
    figure("depth", stream);
    cJSON_ArrayForEach(break_even, array_of(depths, "break_even")) {
        fputs("<p>", stream);
        print_escaped(break_even->string, stream);
        if (cJSON_IsNumber(break_even))
            fprintf(stream, " generates faster than the full cache from depth %.0f on.</p>\n", break_even->valuedouble);
        else
            fputs(" was not faster than the full cache at any of these depths.</p>\n", stream);
    }
    begin_table(HEADS, stream);
    cJSON_ArrayForEach(row, array_of(depths, "results")) {
        fputs("<tr>", stream);
        cell_text(json_text_of(row, "mode"), stream);
        cell(row, "depth", 1, 0, "", stream);
        cell(row, "decode_tokens_per_second", 1, 1, "", stream);
        cell(row, "bandwidth_share", 100, 0, "%", stream);
        cell(row, "prefill_tokens_per_second", 1, 1, "", stream);
        fputs("</tr>\n", stream);
    }
    end_table(stream);
}

static void print_phase(const cJSON *mode, const cJSON *phase, FILE *stream) {
    static const char *const HEADS[] = {"operation", "calls",   "ms",          "of time", "GB/s",
                                        "of peak",   "GFLOP/s", "of F32 peak", NULL};
    const cJSON *operation;
    double seconds = value_of(phase, "seconds"), rest = value_of(phase, "unaccounted_seconds");
    fputs("<h3>", stream);
    print_escaped(json_text_of(mode, "mode"), stream);
    fprintf(stream, ", %s: %.0f tokens in %.3f s</h3>\n", json_text_of(phase, "phase"), value_of(phase, "tokens"),
            seconds);
    begin_table(HEADS, stream);
    cJSON_ArrayForEach(operation, array_of(phase, "operations")) {
        fputs("<tr>", stream);
        cell_text(json_text_of(operation, "operation"), stream);
        cell(operation, "calls", 1, 0, "", stream);
        cell(operation, "seconds", 1e3, 2, "", stream);
        cell(operation, "share", 100, 1, "%", stream);
        cell(operation, "bytes_per_second", 1e-9, 1, "", stream);
        cell(operation, "bandwidth_share", 100, 0, "%", stream);
        cell(operation, "flops_per_second", 1e-9, 1, "", stream);
        cell(operation, "flops_share", 100, 0, "%", stream);
        fputs("</tr>\n", stream);
    }
    fprintf(stream, "<tr><td>not accounted for</td><td>&ndash;</td><td>%.2f</td><td>%.1f%%</td></tr>\n", 1e3 * rest,
            seconds > 0 ? 100 * rest / seconds : 0);
    end_table(stream);
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
        fputs("<h3>", stream);
        print_escaped(json_text_of(mode, "mode"), stream);
        fputs("</h3>\n<pre>", stream);
        print_escaped(json_text_of(mode, "text"), stream);
        fputs("</pre>\n", stream);
    }
}

void report_html(const cJSON *summary, FILE *stream) {
    print_head(summary, stream);
    print_glance(summary, stream);
    print_memory(summary, stream);
    print_depths(summary, stream);
    figure("quality", stream);
    print_operations(summary, stream);
    print_texts(summary, stream);
    fputs("</body>\n</html>\n", stream);
}
