/* See chart.h. The middle of a line's marks is the median of the repetitions, the bar through it goes from the
 * slowest to the fastest. */
#include "eval/bench/chart.h"

#include "kvcache/policy_text.h"
#include "session/run_report.h"
#include "tokenizer/utf8.h"

#include <math.h>
#include <stdlib.h>

#define WIDTH       860.0
#define LEFT        64.0
#define RIGHT       836.0
#define TOP         72.0
#define BOTTOM      412.0
#define LEGEND_TOP  476.0
#define LEGEND_STEP 20.0
#define TICKS       6
#define MAX_TEXT    104 /* bytes of a legend's or title's text */

/* Okabe and Ito's colours, told apart by colour-blind readers too; a further round is dashed. */
static const char *const COLOURS[] = {"#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};
static const char *const DASHES[] = {"none", "6 3", "2 3"};

#define N_COLOURS (sizeof COLOURS / sizeof *COLOURS)
#define N_DASHES  (sizeof DASHES / sizeof *DASHES)

/* From figures to places on the page. */
typedef struct Axes {
    double x_max, x_step, y_max, y_step;
} Axes;

static double x_of(const Axes *axes, double depth) {
    return LEFT + (RIGHT - LEFT) * depth / axes->x_max;
}

static double y_of(const Axes *axes, double rate) {
    return BOTTOM - (BOTTOM - TOP) * rate / axes->y_max;
}

/* 1, 2 or 5 times a power of ten, so that about TICKS of them reach `max`. */
static double round_step(double max) {
    double power = pow(10, floor(log10(max / TICKS))), digits = max / TICKS / power;
    return power * (digits <= 1 ? 1 : digits <= 2 ? 2 : digits <= 5 ? 5 : 10);
}

static Axes make_axes(const Bench *bench) {
    double deepest = 0, fastest = 0;
    for (size_t i = 0; i < bench->n_modes; i++)
        for (size_t d = 0; d < bench->depths.count; d++) {
            BenchRow row;
            if (!bench_row(bench, &bench->modes[i], d, &row))
                continue;
            deepest = fmax(deepest, (double)row.depth);
            fastest = fmax(fastest, row.decode.max);
        }
    Axes axes = {.x_max = fmax(deepest, TICKS), .y_step = round_step(fastest * 1.02)};
    axes.x_step = fmax(1, round_step(axes.x_max));
    axes.y_max = axes.y_step * ceil(fastest * 1.02 / axes.y_step);
    return axes;
}

/* Text of a policy or a path, cut where it is long, as XML. */
static void write_text(const char *text, FILE *stream) {
    char repaired[3 * MAX_TEXT];
    size_t length = strlen(text), shown = length > MAX_TEXT ? MAX_TEXT : length;
    while (shown < length && shown > 0 && ((unsigned char)text[shown] & 0xc0) == 0x80)
        shown--; /* not within a character */
    size_t n = utf8_repair((StringView){text, shown}, repaired);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)repaired[i];
        if (c == '&' || c == '<' || c == '>')
            fprintf(stream, "&#%d;", c);
        else
            fputc(c < ' ' ? '?' : c, stream);
    }
    if (shown < length)
        fprintf(stream, "\xE2\x80\xA6"); /* an ellipsis */
}

static void draw_frame(const Bench *bench, FILE *stream) {
    char backend[COMPUTED_BY_TEXT];
    const char *slash = strrchr(bench->model_path, '/');
    double height = LEGEND_TOP + LEGEND_STEP * (double)bench->n_modes + 4;
    fprintf(stream,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" "
            "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
            "<text x=\"%.0f\" y=\"28\" font-size=\"17\">Speed of generation by depth of context</text>\n"
            "<text x=\"%.0f\" y=\"50\" fill=\"#555\">",
            WIDTH, height, WIDTH, height, LEFT, LEFT);
    write_text(slash != NULL ? slash + 1 : bench->model_path, stream);
    fputs("; ", stream);
    write_text(computed_by(bench->model->backend, backend), stream);
    fprintf(stream, "; median of %zu, bars from slowest to fastest</text>\n", bench->n_repetitions);
}

static void draw_axes(const Axes *axes, FILE *stream) {
    for (double rate = 0; rate < axes->y_max * 1.001; rate += axes->y_step) {
        double y = y_of(axes, rate);
        fprintf(stream, "<path d=\"M%.1f %.1fH%.1f\" stroke=\"%s\"/>\n", LEFT, y, RIGHT, rate > 0 ? "#ddd" : "#222");
        fprintf(stream, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.6g</text>\n", LEFT - 8, y + 4.5, rate);
    }
    for (double depth = 0; depth < axes->x_max * 1.001; depth += axes->x_step) {
        double x = x_of(axes, depth);
        fprintf(stream, "<path d=\"M%.1f %.1fv6\" stroke=\"#222\"/>\n", x, BOTTOM);
        fprintf(stream, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.0f</text>\n", x, BOTTOM + 21, depth);
    }
    fprintf(stream, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">tokens in the cache</text>\n",
            (LEFT + RIGHT) / 2, BOTTOM + 42);
    fprintf(stream,
            "<text transform=\"translate(18 %.1f) rotate(-90)\" text-anchor=\"middle\">tokens a second</text>\n",
            (TOP + BOTTOM) / 2);
}

static void draw_mode(const Bench *bench, size_t i, const Axes *axes, FILE *stream) {
    const BenchMode *mode = &bench->modes[i];
    BenchRow row;
    fprintf(
        stream,
        "<g stroke=\"%s\" fill=\"%s\">\n<polyline fill=\"none\" stroke-width=\"2\" stroke-dasharray=\"%s\" points=\"",
        COLOURS[i % N_COLOURS], COLOURS[i % N_COLOURS], DASHES[i / N_COLOURS % N_DASHES]);
    for (size_t d = 0; d < bench->depths.count; d++)
        if (bench_row(bench, mode, d, &row))
            fprintf(stream, "%.1f,%.1f ", x_of(axes, (double)row.depth), y_of(axes, row.decode.median));
    fprintf(stream, "\"/>\n");
    for (size_t d = 0; d < bench->depths.count; d++)
        if (bench_row(bench, mode, d, &row)) {
            double x = x_of(axes, (double)row.depth);
            double slowest = y_of(axes, row.decode.min), fastest = y_of(axes, row.decode.max);
            fprintf(stream, "<path d=\"M%.1f %.1fh8m-4 0V%.1fm-4 0h8\" fill=\"none\"/>", x - 4, slowest, fastest);
            fprintf(stream, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" stroke=\"#fff\"/>\n", x,
                    y_of(axes, row.decode.median));
        }
    fprintf(stream, "</g>\n");
}

static void draw_legend(const Bench *bench, size_t i, FILE *stream) {
    double y = LEGEND_TOP + LEGEND_STEP * (double)i;
    char policy[KV_POLICY_TEXT];
    kv_policy_print(&bench->modes[i].policy, policy, sizeof policy);
    fprintf(stream, "<path d=\"M%.1f %.1fh28\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\"/>", LEFT, y,
            COLOURS[i % N_COLOURS], DASHES[i / N_COLOURS % N_DASHES]);
    fprintf(stream, "<text x=\"%.1f\" y=\"%.1f\">%s: ", LEFT + 38, y + 4.5, kv_policy_mode(&bench->modes[i].policy));
    write_text(policy, stream);
    fprintf(stream, "</text>\n");
}

void bench_svg(const Bench *bench, FILE *stream) {
    Axes axes = make_axes(bench);
    draw_frame(bench, stream);
    draw_axes(&axes, stream);
    for (size_t i = 0; i < bench->n_modes; i++)
        draw_mode(bench, i, &axes, stream);
    for (size_t i = 0; i < bench->n_modes; i++)
        draw_legend(bench, i, stream);
    fprintf(stream, "</svg>\n");
}
