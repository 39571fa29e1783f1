/* See gguf_vocabulary.h. Arrays of numbers are copied, for a file may have them in any type; strings are views of it.
 */
#include "checkpoints/gguf_vocabulary.h"

#include "checkpoints/metadata_rules.h"

static int read_string_array(Checkpoint *checkpoint, const GgufValue *value, const StringView **out, Error *error) {
    StringView *strings = checkpoint_allocate(checkpoint, value->count, sizeof *strings, "the vocabulary", error);
    if (strings == NULL)
        return error->code;
    gguf_strings(value, strings);
    *out = strings;
    return 0;
}

/* An array of numbers of any type, one a token; NULL in *out where the key is missing. */
static int find_number_array(const Gguf *gguf, const char *key, size_t n_tokens, const GgufValue **out, Error *error) {
    if (gguf_get_numbers(gguf, key, out, error) < 0)
        return error->code;
    if (*out != NULL && (*out)->count != n_tokens)
        return error_set(error, ERROR_FORMAT, "%s: %s has %zu entries for %zu tokens; convert the checkpoint again",
                         gguf->path, key, (*out)->count, n_tokens);
    return 0;
}

static int read_scores(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    const GgufValue *value;
    if (find_number_array(gguf, "tokenizer.ggml.scores", vocabulary->n_tokens, &value, error) < 0)
        return error->code;
    if (value == NULL)
        return 0;
    float *scores = checkpoint_allocate(checkpoint, value->count, sizeof *scores, "the vocabulary", error);
    if (scores == NULL)
        return error->code;
    for (size_t i = 0; i < value->count; i++) {
        double number = 0;
        gguf_number(value, i, &number);
        scores[i] = (float)number;
    }
    vocabulary->scores = scores;
    return 0;
}

/* Type 0, "undefined", is what tools write that do not know. */
static int read_types(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    const GgufValue *value;
    if (find_number_array(gguf, "tokenizer.ggml.token_type", vocabulary->n_tokens, &value, error) < 0)
        return error->code;
    if (value == NULL)
        return 0;
    int32_t *types = checkpoint_allocate(checkpoint, value->count, sizeof *types, "the vocabulary", error);
    if (types == NULL)
        return error->code;
    for (size_t i = 0; i < value->count; i++) {
        double number = 0;
        gguf_number(value, i, &number);
        types[i] = number == 0 ? TOKEN_NORMAL : number > -1e9 && number < 1e9 ? (int32_t)number : -1;
    }
    vocabulary->types = types;
    return 0;
}

/* A token id; -1 where the file does not give one. */
static int read_token_id(const Gguf *gguf, const char *key, size_t n_tokens, int64_t *out, Error *error) {
    const GgufValue *value = gguf_find(gguf, key);
    size_t id = 0;
    *out = -1;
    if (value == NULL || gguf_is_placeholder(value))
        return 0;
    if (gguf_get_size(gguf, key, false, n_tokens - 1, &id, error) < 0)
        return error->code;
    *out = (int64_t)id;
    return 0;
}

/* What else ends a text by the file's own word: single ids, and the arrays that Ollama's converter writes. */
static int read_end_ids(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    static const char *const KEYS[] = {
        "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.fim_pad_token_id", "tokenizer.ggml.fim_rep_token_id",
        "tokenizer.ggml.fim_sep_token_id", "tokenizer.ggml.eos_token_ids",    "tokenizer.ggml.eot_token_ids",
        "tokenizer.ggml.eom_token_ids",
    };
    enum { N_KEYS = sizeof KEYS / sizeof *KEYS };
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    const GgufValue *values[N_KEYS];
    size_t n = 0;
    for (size_t i = 0; i < N_KEYS; i++) {
        if (gguf_get_integers(gguf, KEYS[i], &values[i], error) < 0)
            return error->code;
        n += values[i] != NULL ? values[i]->count : 0;
    }
    if (n == 0)
        return 0;
    int64_t *ids = checkpoint_allocate(checkpoint, n, sizeof *ids, "the vocabulary", error);
    if (ids == NULL)
        return error->code;
    vocabulary->end_ids = ids;
    for (size_t i = 0; i < N_KEYS; i++)
        for (size_t j = 0; values[i] != NULL && j < values[i]->count; j++) {
            int64_t id = gguf_integer(values[i], j);
            if (id >= 0 && id != UINT32_MAX) /* -1, of either width, is written for "none" */
                ids[vocabulary->n_end_ids++] = id;
        }
    return 0;
}

/* Byte-level BPE has merges and a pre-tokenizer, SentencePiece has scores; what a file has beside them is not looked
 * at. */
static int read_kind(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    const GgufValue *merges;
    if (vocabulary->kind == VOCABULARY_SENTENCEPIECE)
        return read_scores(checkpoint, gguf, error);
    if (gguf_get_string(gguf, "tokenizer.ggml.pre", false, &vocabulary->pre_tokenizer, error) < 0 ||
        gguf_get_strings(gguf, "tokenizer.ggml.merges", &merges, error) < 0)
        return error->code;
    if (merges == NULL)
        return 0;
    vocabulary->n_merges = merges->count;
    return read_string_array(checkpoint, merges, &vocabulary->merges, error);
}

static int read_tokens(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    const GgufValue *tokens;
    if (gguf_get_strings(gguf, "tokenizer.ggml.tokens", &tokens, error) < 0)
        return error->code;
    if (tokens == NULL || tokens->count == 0)
        return error_set(error, ERROR_FORMAT,
                         "%s: missing metadata tokenizer.ggml.tokens; convert the checkpoint again", gguf->path);
    vocabulary->n_tokens = tokens->count;
    if (read_string_array(checkpoint, tokens, &vocabulary->tokens, error) < 0 ||
        read_types(checkpoint, gguf, error) < 0)
        return error->code;
    return read_kind(checkpoint, gguf, error);
}

/* Text, or nothing: some tools have written other things under this key. */
static int read_chat_template(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    static const char KEY[] = "tokenizer.chat_template";
    const GgufValue *value = gguf_find(gguf, KEY);
    if (value == NULL || value->type == GGUF_STRING)
        return gguf_get_string(gguf, KEY, false, &checkpoint->vocabulary.chat_template, error);
    return checkpoint_note(checkpoint, error, "%s: %s is no text and is left out; for --chat name a template's file",
                           gguf->path, KEY);
}

static int guess_pre_tokenizer(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    vocabulary->pre_tokenizer = sv(vocabulary_guess_pre_tokenizer(vocabulary));
    return checkpoint_note(
        checkpoint, error,
        "%s: no tokenizer.ggml.pre, which says how text is split into words: guessed '%.*s' from the "
        "vocabulary; if the model has another, convert the checkpoint again",
        gguf->path, SV_ARGS(vocabulary->pre_tokenizer));
}

/* What the file does not say, or says in a way that splits text differently, or that is left out: the user is told. */
static int add_notes(Checkpoint *checkpoint, const Gguf *gguf, Error *error) {
    const Vocabulary *vocabulary = &checkpoint->vocabulary;
    bool bpe = vocabulary->kind == VOCABULARY_BYTE_LEVEL_BPE;
    const struct {
        bool holds;
        const char *note;
    } notes[] = {
        {!bpe && vocabulary_scores_are_equal(vocabulary),
         "all tokenizer.ggml.scores are the same, so text is split differently than in training; name the model's "
         "tokenizer.model with --tokenizer_path"},
        {bpe && vocabulary->add_space_prefix == 1,
         "tokenizer.ggml.add_space_prefix is left out: byte-level BPE takes spaces as they are; nothing need be done"},
        {bpe && vocabulary->remove_extra_spaces == 1,
         "tokenizer.ggml.remove_extra_whitespaces is left out: byte-level BPE "
         "takes spaces as they are; nothing need be done"},
        {bpe && vocabulary->add_bos == 1 && vocabulary->bos_id < 0,
         "tokenizer.ggml.add_bos_token asks for a BOS in front of each text, and no tokenizer.ggml.bos_token_id says "
         "which "
         "token it is, so there is none; if the text is poor, convert the checkpoint again"},
        {vocabulary->add_eos == 1,
         "tokenizer.ggml.add_eos_token is left out: a prompt goes on, so no end of text is put "
         "behind it; nothing need be done"},
    };
    if (bpe && vocabulary->pre_tokenizer.length == 0 && guess_pre_tokenizer(checkpoint, gguf, error) < 0)
        return error->code;
    for (size_t i = 0; i < sizeof notes / sizeof *notes; i++)
        if (notes[i].holds && checkpoint_note(checkpoint, error, "%s: %s", gguf->path, notes[i].note) < 0)
            return error->code;
    return 0;
}

int gguf_read_vocabulary(const Gguf *gguf, Checkpoint *checkpoint, Error *error) {
    Vocabulary *vocabulary = &checkpoint->vocabulary;
    StringView model = {0};
    *vocabulary = vocabulary_empty(VOCABULARY_NONE);
    if (gguf_get_string(gguf, "tokenizer.ggml.model", false, &model, error) < 0)
        return error->code;
    if (model.length == 0 || sv_is(model, "no_vocab") || sv_is(model, "none"))
        return 0;
    if (sv_is(model, "llama"))
        vocabulary->kind = VOCABULARY_SENTENCEPIECE;
    else if (sv_is(model, "gpt2"))
        vocabulary->kind = VOCABULARY_BYTE_LEVEL_BPE;
    else
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s: tokenizer '%.*s' is not supported; supported: llama "
                         "(SentencePiece), gpt2 (byte-level BPE)",
                         gguf->path, SV_ARGS(model));
    if (read_tokens(checkpoint, gguf, error) < 0 ||
        read_token_id(gguf, "tokenizer.ggml.bos_token_id", vocabulary->n_tokens, &vocabulary->bos_id, error) < 0 ||
        read_token_id(gguf, "tokenizer.ggml.eos_token_id", vocabulary->n_tokens, &vocabulary->eos_id, error) < 0 ||
        read_token_id(gguf, "tokenizer.ggml.eot_token_id", vocabulary->n_tokens, &vocabulary->eot_id, error) < 0 ||
        read_token_id(gguf, "tokenizer.ggml.unknown_token_id", vocabulary->n_tokens, &vocabulary->unknown_id, error) <
            0 ||
        read_end_ids(checkpoint, gguf, error) < 0 ||
        gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &vocabulary->add_bos, error) < 0 ||
        gguf_get_bool(gguf, "tokenizer.ggml.add_eos_token", &vocabulary->add_eos, error) < 0 ||
        gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", &vocabulary->add_space_prefix, error) < 0 ||
        gguf_get_bool(gguf, "tokenizer.ggml.remove_extra_whitespaces", &vocabulary->remove_extra_spaces, error) < 0 ||
        metadata_check_tokenizer(gguf, checkpoint, error) < 0 || add_notes(checkpoint, gguf, error) < 0)
        return error->code;
    return read_chat_template(checkpoint, gguf, error);
}
