/* The generation loop; see generation.h. */
#include "session/generation.h"

#include "base/machine/clock.h"
#include "session/stop_strings.h"
#include "tokenizer/text_stream.h"

#include <stdio.h>
#include <stdlib.h>

static bool interrupted(const Generation *run) {
    return run->interrupted != NULL && *run->interrupted;
}

static void add_speed(GenerationSpeed *speed, double start, size_t n_tokens, size_t depth) {
    if (speed->n_tokens == 0)
        speed->depth_begin = depth - n_tokens;
    speed->n_tokens += n_tokens;
    speed->depth_end = depth;
    speed->seconds += clock_seconds() - start;
}

static LogitsWanted logits_for_token(const Generation *run) {
    return sampler_is_argmax(&run->sampler->options) ? LOGITS_BEST : LOGITS_LAST;
}

static int32_t next_token(const Generation *run) {
    const Context *context = &run->session->context;
    return context->best >= 0 ? context->best : sampler_next(run->sampler, context->logits);
}

static int take_prompt(Generation *run, const int32_t *tokens, size_t n, Error *error) {
    for (size_t i = 0; i < n; i++)
        if (token_list_append(&run->prompt, tokens[i], error) < 0 || sampler_accept(run->sampler, tokens[i], error) < 0)
            return error->code;
    return 0;
}

static int read_batch(Generation *run, const int32_t *tokens, size_t n, bool last, Error *error) {
    Context *context = &run->session->context;
    double start = clock_seconds();
    if (forward(context, tokens, n, last ? logits_for_token(run) : LOGITS_NONE, error) < 0)
        return error->code;
    add_speed(&run->prefill, start, n, context->cache.n_tokens);
    if (take_prompt(run, tokens, n, error) < 0)
        return error->code;
    if (run->reuse == NULL)
        return 0;
    run->reuse->n_computed += n;
    if (prefix_reuse_computed(run->reuse, context, tokens, n, clock_seconds() - start, error) < 0)
        return error->code;
    if (last)
        prefix_reuse_save(run->reuse, context, true);
    return 0;
}

int generation_read(Generation *run, const int32_t *tokens, size_t n_tokens, Error *error) {
    Context *context = &run->session->context;
    char cure[CONTEXT_CURE_TEXT];
    if (!kvcache_has_room(&context->cache, n_tokens))
        return error_set(error, ERROR_ARGUMENT,
                         "the prompt has %zu tokens, the context room for %zu of %zu; shorten it or %s", n_tokens,
                         context->n_ctx - context->cache.n_tokens, context->n_ctx, generation_context_cure(run, cure));
    size_t done = 0;
    if (run->reuse != NULL && context->cache.n_tokens == 0) {
        done = prefix_reuse_restore(run->reuse, context, tokens, n_tokens);
        if (take_prompt(run, tokens, done, error) < 0)
            return error->code;
    }
    while (done < n_tokens) {
        if (interrupted(run))
            return error_set(error, ERROR_INTERRUPTED, "interrupted");
        size_t n = context_batch(context, n_tokens - done);
        if (read_batch(run, tokens + done, n, done + n == n_tokens, error) < 0)
            return error->code;
        done += n;
        if (run->on_progress != NULL)
            run->on_progress(run->user, done, n_tokens);
    }
    return 0;
}

int generation_say(Generation *run, StringView text, Error *error) {
    if (text.length == 0)
        return 0;
    char *all = realloc(run->text, run->text_length + text.length + 1);
    if (all == NULL)
        return error_memory(error, "generated text", run->text_length + text.length + 1);
    run->text = all;
    memcpy(all + run->text_length, text.bytes, text.length);
    run->text_length += text.length;
    all[run->text_length] = '\0';
    return run->on_text == NULL ? 0 : run->on_text(run->user, text, error);
}

/* What one generation_continue() carries from token to token. */
typedef struct Streams {
    TextStream text;
    StopStrings stops;
} Streams;

/* Appends the token and gives out the text that it completes. */
static int accept_token(Generation *run, Streams *streams, int32_t token, Error *error) {
    if (token_list_append(&run->generated, token, error) < 0)
        return error->code;
    error->code = 0;
    StringView text = text_stream_next(&streams->text, token, error), released;
    if (error->code < 0)
        return error->code;
    bool stopped;
    if (stop_strings_feed(&streams->stops, text, &released, &stopped, error) < 0 ||
        generation_say(run, released, error) < 0)
        return error->code;
    if (stopped)
        run->end = END_STOP_STRING;
    return 0;
}

static int run_loop(Generation *run, const GenerationOptions *options, Streams *streams, Error *error) {
    Context *context = &run->session->context;
    for (size_t n = 0; run->end == END_NONE; n++) {
        if (n == options->max_new_tokens) {
            run->end = END_MAX_TOKENS;
            break;
        }
        if (interrupted(run)) {
            run->end = END_INTERRUPTED;
            break;
        }
        double start = clock_seconds();
        int32_t token = next_token(run);
        if (!options->ignore_eos && tokenizer_is_end(run->session->tokenizer, token)) {
            run->end = END_OF_TEXT;
            run->end_token = token;
            break;
        }
        if (accept_token(run, streams, token, error) < 0)
            return error->code;
        if (run->end != END_NONE || n + 1 == options->max_new_tokens)
            continue; /* the last token is not read yet: perhaps nothing follows it */
        if (!kvcache_has_room(&context->cache, 1)) {
            run->end = END_CONTEXT_FULL;
            break;
        }
        if (sampler_accept(run->sampler, token, error) < 0 ||
            forward(context, &token, 1, logits_for_token(run), error) < 0)
            return error->code;
        add_speed(&run->decode, start, 1, context->cache.n_tokens);
        if (run->reuse != NULL &&
            prefix_reuse_computed(run->reuse, context, &token, 1, clock_seconds() - start, error) < 0)
            return error->code;
    }
    return 0;
}

int generation_continue(Generation *run, const GenerationOptions *options, Error *error) {
    Streams streams = {.text = text_stream_start(run->session->tokenizer, run->prompt.ids, run->prompt.count),
                       .stops = {.stops = options->stops}};
    run->end = END_NONE;
    run->end_token = -1;
    size_t n_read = run->session->context.cache.n_tokens;
    int status = run_loop(run, options, &streams, error);
    if (status == 0 && run->end != END_STOP_STRING) {
        StringView released;
        bool stopped;
        status = stop_strings_feed(&streams.stops, text_stream_finish(&streams.text), &released, &stopped, error);
        if (status == 0)
            status = generation_say(run, released, error);
        if (status == 0 && !stopped)
            status = generation_say(run, stop_strings_finish(&streams.stops), error);
    }
    if (status == 0 && run->reuse != NULL && run->session->context.cache.n_tokens > n_read)
        prefix_reuse_save(run->reuse, &run->session->context, false); /* the prompt's end is stored, with its logits */
    text_stream_free(&streams.text);
    stop_strings_free(&streams.stops);
    return status;
}

const char *generation_context_cure(const Generation *run, char text[CONTEXT_CURE_TEXT]) {
    const Context *context = &run->session->context;
    size_t most = run->session->model.checkpoint.config.n_ctx_train;
    int n = 0;
    if (context->n_ctx < most)
        n = snprintf(text, CONTEXT_CURE_TEXT, "use a larger --n_ctx (up to %zu), or ", most);
    snprintf(text + n, CONTEXT_CURE_TEXT - (size_t)n, "%s--compress_kv, which drops old tokens and goes on",
             n > 0 ? "" : "use ");
    return text;
}

const char *generation_end_name(GenerationEnd end) {
    static const char *const NAMES[] = {
        [END_NONE] = "nothing generated",
        [END_OF_TEXT] = "end of text",
        [END_MAX_TOKENS] = "--max_new_tokens reached",
        [END_STOP_STRING] = "stop string",
        [END_CONTEXT_FULL] = "the context is full",
        [END_INTERRUPTED] = "interrupted",
    };
    return NAMES[end];
}

void generation_free(Generation *run) {
    token_list_free(&run->prompt);
    token_list_free(&run->generated);
    free(run->text);
    run->text = NULL;
    run->text_length = 0;
}
