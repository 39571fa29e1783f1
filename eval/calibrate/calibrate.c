/* The program: the harm of each codec in each layer of a model, measured on a text, as a file for --kv_budget. The file
 * goes beside the checkpoint or where told, a table to stdout. Only main() picks the exit status. */
#include "base/checked.h"
#include "base/file_identity.h"
#include "base/output_file.h"
#include "eval/calibrate/measure.h"
#include "eval/perplexity/setup.h"
#include "session/program.h"
#include "session/run_report.h"
#include "session/session.h"

#include <stdlib.h>

static const char USAGE[] = "Usage: calibrate --checkpoint_path PATH --text_file FILE [flags]\n"
                            "Measures how much harm each codec of the cache does in each layer, for --kv_budget. The "
                            "text should be like those\n"
                            "that the model will read; some thousand words are enough.\n";

#define USUAL_CONTEXT 2048

typedef struct Settings {
    SessionOptions session;
    const char *text_file, *json;
    size_t context, chunks; /* context 0: USUAL_CONTEXT, if the model has it */
} Settings;

typedef struct Program {
    Settings settings;
    Session session;
    PplText text;
    Calibration calibration;
    OutputFile json;
    char beside[4096]; /* the path of the file beside the checkpoint */
} Program;

/* The name of a path's last part. */
static const char *name_of(const char *path) {
    return path + path_folder_length(path);
}

static int open_program(Program *p, CalibrationTask *task, Error *error) {
    Settings *s = &p->settings;
    const char *path = s->json;
    if (path == NULL && !calibration_path(s->session.checkpoint_path, p->beside, sizeof p->beside))
        return error_set(error, ERROR_ARGUMENT, "%s: the path is too long; name the result with --json",
                         s->session.checkpoint_path);
    if (output_file_open(&p->json, path != NULL ? path : p->beside, error) < 0 ||
        session_open(&p->session, &s->session, error) < 0 ||
        ppl_text_read(&p->text, s->text_file, PPL_LLAMACPP, p->session.tokenizer, error) < 0 ||
        policy_from_options(&s->session.kv, &task->preset, error) < 0)
        return error->code;
    size_t n_train = p->session.model.checkpoint.config.n_ctx_train;
    size_t context = s->context > 0 ? s->context : at_most(USUAL_CONTEXT, n_train);
    if (context > n_train)
        return error_set(error, ERROR_ARGUMENT, "--context %zu: the model was trained for %zu tokens; use at most that",
                         context, n_train);
    task->model = &p->session.model;
    task->tokens = p->text.tokens.ids;
    task->n_tokens = p->text.tokens.count;
    task->bos = tokenizer_adds_bos(p->session.tokenizer) ? tokenizer_bos(p->session.tokenizer) : -1;
    task->windows = (PplSettings){PPL_LLAMACPP, context, context, s->chunks};
    task->interrupted = &program_interrupted;
    return 0;
}

/* The sum of harms over layers; nothing where they were not measured. */
static void print_harm(const Calibration *c, const double *nats, FILE *stream) {
    double sum = 0;
    for (size_t i = 0; nats != NULL && i < c->harms.n_layers; i++)
        sum += nats[i];
    if (nats != NULL)
        fprintf(stream, " %11.3g", sum);
    else
        fprintf(stream, " %11s", "");
}

/* Bits at groups and blocks as chosen. */
static void print_table(const Program *p, FILE *stream) {
    const Calibration *c = &p->calibration;
    const KvGroup group = {c->group, p->session.model.checkpoint.config.head_dim, c->group, false};
    fprintf(stream, "%-8s %6s %11s %11s %11s %11s   nats, all layers\n", "codec", "bits", "keys", "rotated", "values",
            "rotated");
    for (KvCodecId codec = 0; codec < KV_CODEC_COUNT; codec++) {
        if (c->harms.of[KV_KEYS][0][codec] == NULL)
            continue;
        fprintf(stream, "%-8s %6.3f", kv_codec_name(kv_codec(codec)),
                kv_codec_bits(kv_codec(codec), kv_codec(codec), &group));
        for (KvSide side = 0; side < KV_SIDES; side++)
            for (int rotated = 0; rotated < 2; rotated++)
                print_harm(c, c->harms.of[side][rotated][codec], stream);
        fprintf(stream, "\n");
    }
}

static int run_program(void *state, Error *error) {
    Program *p = state;
    CalibrationTask task = {0};
    if (open_program(p, &task, error) < 0 || calibration_measure(&task, &p->calibration, error) < 0)
        return error->code;
    Calibration *c = &p->calibration;
    c->fingerprint = calibration_fingerprint(&p->session.model.checkpoint);
    snprintf(c->model, sizeof c->model, "%s", name_of(p->settings.session.checkpoint_path));
    snprintf(c->text, sizeof c->text, "%s", name_of(p->text.name));
    bool stdout_is_taken = p->json.stream == stdout;
    if (json_commit(calibration_json(c), &p->json, error) < 0)
        return error->code;
    if (stdout_is_taken)
        return 0;
    print_table(p, stdout);
    fprintf(stderr, "written to %s\n", p->settings.json != NULL ? p->settings.json : p->beside);
    return program_flush_stdout(error);
}

static int check_program(void *state, Error *error) {
    Settings *s = &((Program *)state)->settings;
    if (s->session.checkpoint_path == NULL)
        return error_set(error, ERROR_USAGE, "--checkpoint_path is required; checkpoints/fetch.sh fetches a model");
    if (s->text_file == NULL)
        return error_set(error, ERROR_USAGE, "--text_file is required; give a text of some thousand words");
    if (policy_options_choose(&s->session.kv) || s->session.kv.codec != NULL)
        return error_set(error, ERROR_USAGE, "calibrate measures each codec in each layer; give no policy with it");
    if (strcmp(s->session.kv.rotate, "auto") != 0)
        return error_set(error, ERROR_USAGE, "calibrate measures rotated and unrotated codecs; leave --kv_rotate out");
    if (s->session.n_ctx > 0)
        return error_set(error, ERROR_USAGE, "--n_ctx: a window fills the cache; give --context");
    s->session.kv.quantize = true; /* all that it measures is */
    KvPolicy policy;
    return policy_from_options(&s->session.kv, &policy, error);
}

static void close_program(void *state) {
    Program *p = state;
    calibration_free(&p->calibration);
    ppl_text_free(&p->text);
    session_close(&p->session);
    output_file_discard(&p->json);
}

int main(int argc, char **argv) {
    static Program program = {.settings = {.session = SESSION_DEFAULTS, .chunks = 2}};
    static Settings *const s = &program.settings;
    static ProgramFlags flags;
    const Option options[] = {
        SESSION_OPTIONS(s->session),
        {"Calibration", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"text_file", OPTION_INPUT, &s->text_file, "FILE", "the text, in UTF-8; - is stdin; required", 0, 0},
        {"context", OPTION_SIZE, &s->context, "N", "tokens of a window; default 2048, or the model's context", 4,
         1 << 28},
        {"chunks", OPTION_SIZE, &s->chunks, "N", "windows of the text that are read; default 2", 1, 1 << 28},
        {"Output", OPTION_HEADING, NULL, NULL, NULL, 0, 0},
        {"json", OPTION_OUTPUT, &s->json, "FILE", "write it there, - is stdout; default: beside the checkpoint", 0, 0},
        PROGRAM_OPTIONS(flags),
        {0},
    };
    const ProgramMain steps = {"calibrate", USAGE,         options,     &flags,
                               &s->session, check_program, run_program, close_program};
    return program_main(argc, argv, &steps, &program);
}
