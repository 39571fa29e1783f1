/* See prompt.h. */
#include "session/prompt.h"

int prompt_chat_template(const Vocabulary *vocabulary, const char *name, const ChatTemplate **out, Error *error) {
    *out = name != NULL ? chat_template_named(sv(name)) : chat_template_recognise(vocabulary->chat_template);
    if (*out != NULL)
        return 0;
    if (name != NULL)
        return error_set(error, ERROR_USAGE, "--chat_template %s: unknown; choose one of %s", name,
                         chat_template_names());
    return error_set(
        error, ERROR_UNSUPPORTED, "the checkpoint has %s chat template; name one with --chat_template (%s)",
        vocabulary->chat_template.length > 0 ? "no chat template that is known here: its own is another" : "no",
        chat_template_names());
}

/* A text that makes no token starts from BOS, also where a model's rule puts none in front of others. */
static int encode_text(const Tokenizer *tokenizer, StringView text, TokenList *tokens, Error *error) {
    size_t before = tokens->count;
    if (tokenizer_encode(tokenizer, text, TOKENIZE_ADD_BOS, tokens, error) < 0)
        return error->code;
    if (tokens->count > before)
        return 0;
    if (tokenizer_bos(tokenizer) < 0)
        return error_set(error, ERROR_ARGUMENT,
                         "the prompt is empty, and the vocabulary has no BOS to start from; give some text");
    return token_list_append(tokens, tokenizer_bos(tokenizer), error);
}

int prompt_encode(const Session *session, const ChatTemplate *chat, const char *system, StringView text,
                  TokenList *tokens, Error *error) {
    if (chat == NULL)
        return encode_text(session->tokenizer, text, tokens, error);
    StringView jinja = session->model.checkpoint.vocabulary.chat_template;
    StringView first = system != NULL ? sv(system) : chat_template_default_system(jinja);
    ChatMessage messages[] = {{CHAT_SYSTEM, first}, {CHAT_USER, text}};
    bool skip_system = first.length == 0;
    return chat_encode(chat, session->tokenizer, messages + skip_system, 2 - skip_system, tokens, error);
}
