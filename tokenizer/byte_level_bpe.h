/* Byte-level byte-pair encoding (GPT-2): a text's UTF-8 bytes are split into words by the pre-tokenizer, and within a
 * word the pair of neighbours with the best merge is joined until no merge applies.
 *
 *     ByteLevelBpe *bpe;
 *     if (byte_level_bpe_open(&bpe, &vocabulary, &error) < 0) …
 *     byte_level_bpe_encode(bpe, sv("Hello"), &tokens, &error);      // no BOS, no special tokens: see tokenizer.h
 *     byte_level_bpe_free(bpe);
 *
 * A byte that has no token (SmolLM2's vocabulary lacks 0x04, for one) gives no id, as in Hugging Face's tokenizers. A
 * vocabulary that lacks one of the printable ASCII characters is taken for damaged.
 */
#ifndef STOWKV_BYTE_LEVEL_BPE_H
#define STOWKV_BYTE_LEVEL_BPE_H

#include "tokenizer/token_list.h"
#include "tokenizer/vocabulary.h"

typedef struct ByteLevelBpe ByteLevelBpe;

/* `vocabulary` must outlive the result. ERROR_FORMAT where merges and tokens do not belong together, where two tokens
 * have one spelling, or where printable ASCII has no tokens; ERROR_UNSUPPORTED for an unknown pre-tokenizer. */
int byte_level_bpe_open(ByteLevelBpe **out, const Vocabulary *vocabulary, Error *error);
void byte_level_bpe_free(ByteLevelBpe *bpe); /* NULL is fine */

/* Whether a text begins with BOS where the checkpoint does not say: the pre-tokenizer's rule. */
bool byte_level_bpe_adds_bos(const ByteLevelBpe *bpe);

/* Appends the ids of `text`, which must be valid UTF-8. Takes time O(n log n) for a word of n bytes. */
int byte_level_bpe_encode(const ByteLevelBpe *bpe, StringView text, TokenList *out, Error *error);

#endif
