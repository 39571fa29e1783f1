/* See program.h. */
#include "session/program.h"

#include "attention/attention.h"
#include "base/simd/detect.h"
#include "model/packed_matrix.h"
#include "session/file_claims.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_USAGE       2
#define EXIT_INTERRUPTED 130

static bool informs(const ProgramFlags *flags) {
    return flags->list_codecs || flags->list_kernels || flags->help || flags->version;
}

static void print_types(bool coded) {
    for (TensorType type = 0; type < TENSOR_TYPE_COUNT; type++)
        if (packed_is_coded(type) == coded)
            printf(" %s", tensor_type_info(type)->name);
    printf("\n");
}

static void print_codec_names(SimdLevel level, AttentionPath path) {
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++)
        if (attention_path(attention_kernels(level), id, 64) == path)
            printf(" %s", kv_codec_name(kv_codec(id)));
    printf("\n");
}

static int print_kernels(const char *simd, Error *error) {
    SimdLevel level;
    if (cpu_parse_simd_level(simd, &level, error) < 0)
        return error->code;
    printf("instruction set   %s (%s)\n", simd_level_name(level), simd_level_features(level));
    printf("matmul            weights in codes, activations of 16 bits, exact sums in a block:\n"
           "                 ");
    print_types(true);
    printf("                  weights and activations in F32:");
    print_types(false);
    printf("attention         codes as stored with 16-bit queries and weights, exact sums in a block:");
    print_codec_names(level, ATTENTION_INTEGER);
    printf("                  in F32, for a generated token as stored, for a prompt tile by tile:");
    print_codec_names(level, ATTENTION_FLOAT);
    printf("                  in F32, decoded 16 tokens or a tile at a time: rows of no multiple of 32 (fp8: 64)\n");
    printf("rope, rmsnorm, softmax, swiglu  F32\n");
    return 0;
}

/* Bits with all scales, at groups of 64 and a head dimension of 64. */
static int print_codecs(void) {
    const KvGroup group = {64, 64, 64, false};
    printf("%-8s %-16s %s\n", "codec", "bits an element", "good for");
    for (KvCodecId id = 0; id < KV_CODEC_COUNT; id++) {
        const KvCodec *codec = kv_codec(id);
        printf("%-8s %-16.3f %s\n", kv_codec_name(codec), kv_codec_bits(codec, codec, &group), kv_codec_purpose(codec));
    }
    return 0;
}

static int print_help(const char *usage, const Option *options) {
    printf("%s", usage);
    options_help(options, stdout);
    printf("\nExit status: 0 done, 1 failed, 2 bad usage, 130 after Ctrl-C.\n");
    return 0;
}

static int inform(const ProgramMain *steps, Error *error) {
    const ProgramFlags *flags = steps->flags;
    int status = 0;
    if (flags->help)
        status = print_help(steps->usage, steps->options);
    else if (flags->version)
        printf("stowkv " STOWKV_VERSION "\n");
    else
        status = flags->list_codecs ? print_codecs() : print_kernels(steps->session->simd, error);
    return status == 0 ? program_flush_stdout(error) : status;
}

int program_flush_stdout(Error *error) {
    if (fflush(stdout) != 0 || ferror(stdout))
        return error_set(error, ERROR_IO, "stdout: %s; write to a place with free space", strerror(errno));
    return 0;
}

/* A program that is started with stdin, stdout or stderr closed would open its files in their places, and print into
 * them. What stands in for them fails as they would: it is opened the wrong way round. */
static void fill_standard_descriptors(void) {
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++)
        if (fcntl(descriptor, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

static int exit_status(int status) {
    if (program_interrupted)
        return EXIT_INTERRUPTED;
    if (status < 0)
        return status == ERROR_USAGE ? EXIT_USAGE : EXIT_FAILURE;
    return EXIT_SUCCESS;
}

static int obey(const ProgramMain *steps, void *state, Error *error) {
    if (informs(steps->flags))
        return inform(steps, error);
    if (steps->check(state, error) < 0 || file_claims_check(steps->options, steps->session, error) < 0)
        return error->code;
    signals_catch();
    return steps->run(state, error);
}

int program_main(int argc, char **argv, const ProgramMain *steps, void *state) {
    Error error = {0};
    fill_standard_descriptors();
    int status = options_parse(steps->options, argc, argv, &error);
    if (status == 0)
        status = obey(steps, state, &error);
    steps->close(state);
    if (status < 0 && status != ERROR_INTERRUPTED)
        fprintf(stderr, "%s: error: %s\n", steps->name, error.message);
    return exit_status(status);
}
