/* The program: per-channel INT8 of large matrices by every variant of the CPU and of a GPU, timed and compared. The
 * table goes to stdout, progress to stderr. Only main() picks the exit status. */
#include "base/checked.h"
#include "base/machine/cpu.h"
#include "base/output_file.h"
#include "base/simd/detect.h"
#include "base/text_file.h"
#include "eval/kv_quant/codecs.h"
#include "eval/kv_quant/report.h"
#include "eval/plot_program.h"
#include "session/program.h"
#include "session/run_report.h"

#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "Usage: kv_quant_bench [flags]\n"
    "       kv_quant_bench --codec LIST [--capture PATH --text_file FILE] [flags]\n"
    "Quantizes K, tokens x channels, to INT8 with a scale for each channel, and back: milliseconds, GB/s, errors.\n"
    "Without flags: the ten published shapes by all variants of this machine; minutes, and 7 GiB for the largest.\n"
    "With --codec: the cache's codecs compared, on made-up numbers and on keys and values of a model.\n";

typedef struct Settings {
    SessionOptions session; /* threads, device; the model to capture from */
    StringList shapes;
    const char *variants, *codec, *text_file, *json, *csv, *plot;
    size_t repetitions;
    uint64_t seed;
    double time_limit;
} Settings;

/* What main() has open, so that every way out closes the same things. */
typedef struct Program {
    Settings settings;
    QuantBench bench;
    CodecStudy study;
    Session capture; /* the model whose keys and values are encoded */
    TextFile text;
    char *names; /* the list of variants, cut up */
    OutputFile json, csv;
} Program;

static void close_program(void *state) {
    Program *p = state;
    quant_bench_close(&p->bench);
    codec_study_free(&p->study);
    session_close(&p->capture);
    text_file_free(&p->text);
    free(p->names);
    output_file_discard(&p->json);
    output_file_discard(&p->csv);
}

/* "a,b" as two items. */
static int split_names(Program *p, Error *error) {
    StringList *names = &p->bench.names;
    const char *text = p->settings.variants;
    if (text == NULL)
        return 0;
    p->names = strdup(text);
    if (p->names == NULL)
        return error_memory(error, "names of variants", strlen(text) + 1);
    char *rest = p->names;
    for (char *name = strtok_r(rest, ",", &rest); name != NULL; name = strtok_r(NULL, ",", &rest)) {
        if (names->count == STRING_LIST_MAX)
            return error_set(error, ERROR_USAGE, "--variants: more than %d of them", STRING_LIST_MAX);
        names->items[names->count++] = name;
    }
    return names->count > 0 ? 0 : error_set(error, ERROR_USAGE, "--variants: no name; give some with commas between");
}

/* Flags of the one thing with those of the other, or without what they need. */
static int check_together(const Settings *s, Error *error) {
    bool captures = s->session.checkpoint_path != NULL;
    if (s->codec == NULL && (captures || s->text_file != NULL))
        return error_set(error, ERROR_USAGE, "%s goes with --codec; give --codec all, too",
                         captures ? "--capture" : "--text_file");
    if (s->codec != NULL && (s->shapes.count > 0 || s->variants != NULL))
        return error_set(error, ERROR_USAGE, "--codec has no shapes and variants; leave out %s",
                         s->variants != NULL ? "--variants" : "--shape");
    if (!captures && s->session.tokenizer_path != NULL)
        return error_set(error, ERROR_USAGE, "--tokenizer_path is for the model of --capture; give that, too");
    if (s->codec != NULL && !captures && strcmp(s->session.device, "cuda") == 0)
        return error_set(error, ERROR_USAGE, "--device cuda: codecs are timed on the CPU; leave it out, or --codec");
    if (captures != (s->text_file != NULL))
        return error_set(error, ERROR_USAGE, "--capture and --text_file go together; give %s, too",
                         captures ? "--text_file, which the model reads" : "--capture, the model that reads it");
    if (s->plot != NULL && (s->json == NULL || strcmp(s->json, "-") == 0))
        return error_set(error, ERROR_USAGE, "--plot draws what --json FILE writes; give --json with a file, too");
    return 0;
}

/* All that the command line alone can be wrong about. */
static int check_program(void *state, Error *error) {
    Program *p = state;
    const Settings *s = &p->settings;
    QuantBench *bench = &p->bench;
    bench->seed = s->seed;
    bench->repetitions = s->repetitions;
    bench->time_limit = s->time_limit;
    bench->interrupted = &program_interrupted;
    bench->shapes = quant_shapes_published();
    if (s->shapes.count > 0 && quant_shapes_parse(&s->shapes, &bench->shapes, error) < 0)
        return error->code;
    if (s->codec != NULL && codec_study_choose(&p->study, s->codec, error) < 0)
        return error->code;
    return split_names(p, error) < 0 ? error->code : check_together(s, error);
}

static int open_outputs(Program *p, Error *error) {
    const Settings *s = &p->settings;
    if ((s->json != NULL && output_file_open(&p->json, s->json, error) < 0) ||
        (s->csv != NULL && output_file_open(&p->csv, s->csv, error) < 0))
        return error->code;
    return 0;
}

/* Files first: nobody can close them as a reader closes stdout. Whatever fails, the others are tried. */
static int report(Program *p, Error *error) {
    const Settings *s = &p->settings;
    bool stdout_is_taken = p->json.stream == stdout || p->csv.stream == stdout, is_study = s->codec != NULL;
    Error failure = {0};
    if (s->json != NULL)
        json_commit(is_study ? codec_study_json(&p->study) : quant_bench_json(&p->bench), &p->json, error);
    if (s->csv != NULL) {
        if (is_study)
            codec_study_csv(&p->study, p->csv.stream);
        else
            quant_bench_csv(&p->bench, p->csv.stream);
        output_file_commit(&p->csv, &failure);
        error_keep_first(error, &failure);
    }
    if (!stdout_is_taken) {
        if (is_study)
            codec_study_print(&p->study, stdout);
        else
            quant_bench_print(&p->bench, stdout);
        program_flush_stdout(&failure);
        error_keep_first(error, &failure);
    }
    if (s->plot != NULL && error->code == 0)
        plot_run((const char *[]){s->plot, s->json, NULL}, stderr);
    quant_bench_verdict(&p->bench, &failure);
    return error_keep_first(error, &failure);
}

/* What was through, where it was interrupted. */
static int report_run(Program *p, int status, size_t n_rows, const char *what, Error *error) {
    if (status < 0 && (status != ERROR_INTERRUPTED || n_rows == 0))
        return status;
    if (status < 0)
        fprintf(stderr, "interrupted: the figures are those of the %s that were through\n", what);
    Error failure = {0};
    if (report(p, &failure) < 0)
        *error = failure;
    return failure.code < 0 ? failure.code : status;
}

/* ---- The codecs */

/* A context for what is captured, and no more. */
static int open_capture(Program *p, Error *error) {
    SessionOptions *options = &p->settings.session;
    KvPolicy full = kv_policy_full();
    if (text_file_read(&p->text, p->settings.text_file, TEXT_FILE_MAX, error) < 0 ||
        session_open(&p->capture, options, error) < 0)
        return error->code;
    text_file_clean(&p->text);
    options->n_ctx = at_most(p->capture.model.checkpoint.config.n_ctx_train, CAPTURE_TOKENS);
    return session_set_policy(&p->capture, options, &full, error);
}

static int study_codecs(Program *p, Error *error) {
    CodecStudy *study = &p->study;
    study->repetitions = p->settings.repetitions;
    study->seed = p->settings.seed;
    study->level = cpu_best_simd_level();
    study->interrupted = &program_interrupted;
    if (open_outputs(p, error) < 0 || samples_make(&study->samples, study->seed, error) < 0)
        return error->code;
    if (p->settings.session.checkpoint_path != NULL &&
        (open_capture(p, error) < 0 ||
         samples_capture(&study->samples, &p->capture, p->text.text, &program_interrupted, error) < 0))
        return error->code;
    int status = codec_study_run(study, error);
    return report_run(p, status, study->n_rows, "codecs", error);
}

/* ---- The variants */

static int run_program(void *state, Error *error) {
    Program *p = state;
    const Settings *s = &p->settings;
    if (s->codec != NULL)
        return study_codecs(p, error);
    int n_threads = s->session.threads > 0 ? (int)s->session.threads : cpu_physical_cores();
    if (open_outputs(p, error) < 0 || quant_bench_open(&p->bench, n_threads, s->session.device, error) < 0)
        return error->code;
    int status = quant_bench_run(&p->bench, error);
    return report_run(p, status, p->bench.n_rows, "variants", error);
}

int main(int argc, char **argv) {
    static Program program = {.settings = {.session = SESSION_DEFAULTS, .repetitions = 3, .seed = 1, .time_limit = 90}};
    static Settings *const s = &program.settings;
    static ProgramFlags flags;
    /* clang-format off */
    const Option options[] = {
        {"Measuring", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"shape", OPTION_LIST, &s->shapes, "TxD", "tokens x channels, repeatable; default: the ten published shapes", 0, 0},
        {"variants", OPTION_STRING, &s->variants, "A,B", "those to run; default: all that this machine runs", 0, 0},
        {"repetitions", OPTION_SIZE, &s->repetitions, "N", "timed runs behind one to warm up; the median counts; default 3",
         1, QUANT_MAX_REPETITIONS},
        {"seed", OPTION_SEED, &s->seed, "N", "of the random numbers; default 1", 0, 0},
        {"time_limit", OPTION_NUMBER, &s->time_limit, "SECONDS",
         "a variant whose run would take longer is left out, and the table says so; default 90", 0, 1e6},
        {"device", OPTION_STRING, &s->session.device, "NAME",
         "cpu, cuda, or auto: a GPU's variants too where there is one; default auto", 0, 0},
        {"threads", OPTION_SIZE, &s->session.threads, "N", "CPU threads; default: physical cores", 1, 1024},
        {"Codecs of the cache", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"codec", OPTION_STRING, &s->codec, "LIST", "compare these, as q4_0,q4_1,int4,nf4, or all: bytes, errors, GB/s", 0, 0},
        {"capture", OPTION_INPUT, &s->session.checkpoint_path, "PATH", "a checkpoint whose keys and values are encoded, too", 0, 0},
        {"tokenizer_path", OPTION_INPUT, &s->session.tokenizer_path, "PATH", "its tokenizer, where that is not in it", 0, 0},
        {"text_file", OPTION_INPUT, &s->text_file, "FILE", "what it reads: the first 512 tokens; - is stdin", 0, 0},
        {"Output", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"json", OPTION_OUTPUT, &s->json, "FILE", "write the result as JSON; - is stdout, instead of the table", 0, 0},
        {"csv", OPTION_OUTPUT, &s->csv, "FILE", "the same figures as a table of comma-separated values", 0, 0},
        {"plot", OPTION_STRING, &s->plot, "PICTURE", "draw the file of --json: PICTURE-light.svg and -dark.svg; needs matplotlib", 0, 0},
        PROGRAM_OPTIONS(flags),
        {0},
    };
    /* clang-format on */
    const ProgramMain steps = {"kv_quant_bench", USAGE,         options,     &flags,
                               &s->session,      check_program, run_program, close_program};
    return program_main(argc, argv, &steps, &program);
}
