/* Byte-level BPE; see byte_level_bpe.h. A word is a linked list of symbols, and a binary heap holds the merges that
 * neighbours could make: best rank first, leftmost of equals. */
#include "tokenizer/byte_level_bpe.h"
#include "base/checked.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/merge_table.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/token_table.h"

#include <stdlib.h>

struct ByteLevelBpe {
    PreTokenizer *pre;
    TokenTable tokens;
    MergeTable merges;
    int32_t byte_ids[256]; /* the token of a byte alone, or -1 */
    size_t longest_token;  /* in bytes of the alphabet's UTF-8 */
};

typedef struct Symbol {
    int32_t id;
    int32_t previous, next; /* indices, -1 at the ends */
    int32_t n_bytes;        /* 0: merged into its left neighbour */
} Symbol;

typedef struct Candidate {
    uint64_t priority; /* rank << 32 | index of the left symbol: smallest first */
    int32_t joined;    /* id of the token that the two become */
    int32_t n_bytes;   /* of both together; a candidate is stale once its symbols have another length */
} Candidate;

/* Scratch memory for one word, grown to the longest word of a text. */
typedef struct WordMerger {
    const ByteLevelBpe *bpe;
    TokenList *out;
    Symbol *symbols;
    Candidate *heap;
    char *spelling; /* a word in the byte alphabet */
    size_t n_heap, capacity;
} WordMerger;

static int find_bytes(ByteLevelBpe *bpe, Error *error) {
    for (int byte = 0; byte < 256; byte++) {
        char character[2];
        StringView one = {(const char[]){(char)byte}, 1}, token = {character, byte_alphabet_write(one, character)};
        bpe->byte_ids[byte] = token_table_find(&bpe->tokens, token);
        if (bpe->byte_ids[byte] < 0 && byte >= 0x20 && byte < 0x7F)
            return error_set(error, ERROR_FORMAT,
                             "vocabulary: no token for the character '%c' (byte 0x%02X), so this is not a whole "
                             "byte-level BPE vocabulary; convert the checkpoint again",
                             byte, (unsigned)byte);
    }
    return 0;
}

/* Without merges nothing but single bytes would come out. An empty list of them is right where there are only bytes. */
static int check_merges(const Vocabulary *vocabulary, Error *error) {
    size_t n_joined = 0;
    for (size_t i = 0; i < vocabulary->n_tokens; i++) {
        StringView token = vocabulary->tokens[i];
        bool one_byte = token.length < 2 || (token.length == 2 && (unsigned char)token.bytes[0] >= 0x80);
        n_joined += !one_byte && (vocabulary->types == NULL || vocabulary->types[i] == TOKEN_NORMAL);
    }
    if (vocabulary->n_merges > 0 || (vocabulary->merges != NULL && n_joined == 0))
        return 0;
    return error_set(
        error, ERROR_FORMAT,
        "vocabulary: byte-level BPE without merges (tokenizer.ggml.merges), so text would be split into single "
        "bytes; convert the checkpoint again, from a folder whose tokenizer.json or merges.txt has them");
}

static int open_tables(ByteLevelBpe *bpe, const Vocabulary *vocabulary, Error *error) {
    int status = check_merges(vocabulary, error);
    if (status == 0)
        status = pre_tokenizer_open(&bpe->pre, vocabulary->pre_tokenizer, error);
    if (status == 0)
        status = token_table_build(&bpe->tokens, vocabulary->tokens, vocabulary->n_tokens, error);
    if (status == 0)
        status = find_bytes(bpe, error);
    if (status == 0)
        status = merge_table_build(&bpe->merges, vocabulary, &bpe->tokens, error);
    for (size_t i = 0; i < vocabulary->n_tokens; i++)
        bpe->longest_token = at_least(vocabulary->tokens[i].length, bpe->longest_token);
    return status;
}

int byte_level_bpe_open(ByteLevelBpe **out, const Vocabulary *vocabulary, Error *error) {
    *out = NULL;
    ByteLevelBpe *bpe = calloc(1, sizeof *bpe);
    if (bpe == NULL)
        return error_memory(error, "the tokenizer", sizeof *bpe);
    int status = open_tables(bpe, vocabulary, error);
    if (status < 0) {
        byte_level_bpe_free(bpe);
        return status;
    }
    *out = bpe;
    return 0;
}

void byte_level_bpe_free(ByteLevelBpe *bpe) {
    if (bpe == NULL)
        return;
    pre_tokenizer_free(bpe->pre);
    token_table_free(&bpe->tokens);
    merge_table_free(&bpe->merges);
    free(bpe);
}

bool byte_level_bpe_adds_bos(const ByteLevelBpe *bpe) {
    return pre_tokenizer_adds_bos(bpe->pre);
}

static void heap_push(WordMerger *merger, Candidate candidate) {
    Candidate *heap = merger->heap;
    size_t i = merger->n_heap++;
    for (; i > 0 && candidate.priority < heap[(i - 1) / 2].priority; i = (i - 1) / 2)
        heap[i] = heap[(i - 1) / 2];
    heap[i] = candidate;
}

static Candidate heap_pop(WordMerger *merger) {
    Candidate *heap = merger->heap, best = heap[0], last = heap[--merger->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < merger->n_heap && heap[child + 1].priority < heap[child].priority)
            child++;
        if (child >= merger->n_heap || last.priority <= heap[child].priority)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return best;
}

/* Puts the merge of symbol `left` with its right neighbour on the heap, where there is one. */
static void consider(WordMerger *merger, int32_t left) {
    const Symbol *symbols = merger->symbols;
    if (left < 0 || symbols[left].next < 0)
        return;
    const Symbol *right = &symbols[symbols[left].next];
    const Merge *merge = merge_table_find(&merger->bpe->merges, symbols[left].id, right->id);
    if (merge != NULL)
        heap_push(merger, (Candidate){(uint64_t)merge->rank << 32 | (uint32_t)left, merge->joined,
                                      symbols[left].n_bytes + right->n_bytes});
}

/* A list of one symbol a byte; returns how many there are. Bytes without a token are left out. */
static int32_t start_symbols(WordMerger *merger, StringView word) {
    int32_t n = 0;
    for (size_t i = 0; i < word.length; i++) {
        int32_t id = merger->bpe->byte_ids[(unsigned char)word.bytes[i]];
        if (id >= 0) {
            merger->symbols[n] = (Symbol){id, n - 1, n + 1, 1};
            n++;
        }
    }
    if (n > 0)
        merger->symbols[n - 1].next = -1;
    return n;
}

static void merge_all(WordMerger *merger) {
    Symbol *symbols = merger->symbols;
    while (merger->n_heap > 0) {
        Candidate best = heap_pop(merger);
        int32_t left = (int32_t)(best.priority & UINT32_MAX), right = symbols[left].next;
        /* Symbols only grow: as long as the two together have their old length, they are the old two. */
        if (symbols[left].n_bytes == 0 || right < 0 || symbols[left].n_bytes + symbols[right].n_bytes != best.n_bytes)
            continue;
        symbols[left].id = best.joined;
        symbols[left].n_bytes = best.n_bytes;
        symbols[left].next = symbols[right].next;
        symbols[right].n_bytes = 0;
        if (symbols[left].next >= 0)
            symbols[symbols[left].next].previous = left;
        consider(merger, symbols[left].previous);
        consider(merger, left);
    }
}

/* A word of n bytes has at most 2n candidates at once: n - 1 at first, and each of the at most n - 1 merges takes one
 * off and puts two on. */
static int reserve(WordMerger *merger, size_t n_bytes, Error *error) {
    if (n_bytes <= merger->capacity)
        return 0;
    if (n_bytes > INT32_MAX / 4)
        return error_set(error, ERROR_ARGUMENT, "a text has a word of %zu bytes; give it in smaller parts", n_bytes);
    size_t capacity = n_bytes < 64 ? 64 : n_bytes + n_bytes / 2;
    Symbol *symbols = realloc(merger->symbols, capacity * sizeof *symbols);
    if (symbols != NULL)
        merger->symbols = symbols;
    Candidate *heap = realloc(merger->heap, 2 * capacity * sizeof *heap);
    if (heap != NULL)
        merger->heap = heap;
    char *spelling = realloc(merger->spelling, 2 * capacity);
    if (spelling != NULL)
        merger->spelling = spelling;
    if (symbols == NULL || heap == NULL || spelling == NULL)
        return error_memory(error, "a word's merges", capacity * (sizeof *symbols + 2 * sizeof *heap + 2));
    merger->capacity = capacity;
    return 0;
}

/* The id of a word that is a token as a whole, or -1. */
static int32_t whole_word(WordMerger *merger, StringView word) {
    if (word.length > merger->bpe->longest_token)
        return -1;
    StringView spelling = {merger->spelling, byte_alphabet_write(word, merger->spelling)};
    return token_table_find(&merger->bpe->tokens, spelling);
}

static int encode_word(void *context, StringView word, Error *error) {
    WordMerger *merger = context;
    int status = reserve(merger, word.length, error);
    if (status < 0)
        return status;
    if (pre_tokenizer_ignores_merges(merger->bpe->pre)) {
        int32_t id = whole_word(merger, word);
        if (id >= 0)
            return token_list_append(merger->out, id, error);
    }
    int32_t n = start_symbols(merger, word);
    merger->n_heap = 0;
    for (int32_t i = 0; i + 1 < n; i++)
        consider(merger, i);
    merge_all(merger);
    for (int32_t i = n > 0 ? 0 : -1; i >= 0 && status == 0; i = merger->symbols[i].next)
        status = token_list_append(merger->out, merger->symbols[i].id, error);
    return status;
}

int byte_level_bpe_encode(const ByteLevelBpe *bpe, StringView text, TokenList *out, Error *error) {
    WordMerger merger = {.bpe = bpe, .out = out};
    int status = pre_tokenizer_split(bpe->pre, text, encode_word, &merger, error);
    free(merger.symbols);
    free(merger.heap);
    free(merger.spelling);
    return status;
}
