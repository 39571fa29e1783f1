/* See setup.h. */
#include "eval/perplexity/setup.h"

#include "eval/perplexity/text_rows.h"

#include <stdlib.h>

static int encode(PplText *text, StringView bytes, PplDefinition definition, const Tokenizer *tokenizer, Error *error) {
    char *joined = NULL;
    size_t length;
    if (ppl_definition(definition)->joins_rows) {
        if (text_join_rows(bytes, &joined, &length, error) < 0)
            return error->code;
        bytes = (StringView){joined, length};
    }
    int status = tokenizer_encode(tokenizer, bytes, TOKENIZE_ADD_BOS, &text->tokens, error);
    free(joined);
    return status;
}

static int read_file(PplText *text, TextFile *file, const char *path, PplDefinition definition,
                     const Tokenizer *tokenizer, Error *error) {
    if (text_file_read(file, path, TEXT_FILE_MAX, error) < 0 || text_check(file->text, file->name, error) < 0)
        return error->code;
    text->name = file->name;
    text->n_crlf = text_file_clean(file);
    if (file->text.length == 0)
        return error_set(error, ERROR_FORMAT, "%s: is empty; give a text of some thousand words", file->name);
    return encode(text, file->text, definition, tokenizer, error);
}

int ppl_text_read(PplText *text, const char *path, PplDefinition definition, const Tokenizer *tokenizer, Error *error) {
    TextFile file = {0};
    *text = (PplText){0};
    int status = read_file(text, &file, path, definition, tokenizer, error);
    text_file_free(&file);
    return status;
}

void ppl_text_free(PplText *text) {
    token_list_free(&text->tokens);
}

int ppl_set_up(PplSetup *setup, const char *text_name, const TokenList *tokens, const Tokenizer *tokenizer,
               Evaluation *e, Error *error) {
    bool adds_bos = tokenizer_adds_bos(tokenizer);
    bool replaces = adds_bos && ppl_definition(setup->settings.definition)->replaces_bos;
    setup->text_path = text_name;
    setup->n_text_tokens = tokens->count;
    setup->bos = replaces ? "replaced" : adds_bos ? "once" : "none";
    e->tokens = tokens->ids;
    e->bos = replaces ? tokenizer_bos(tokenizer) : -1;
    e->n_ctx = setup->settings.context;
    return ppl_windows(&setup->settings, tokens->count, &e->windows, error);
}
