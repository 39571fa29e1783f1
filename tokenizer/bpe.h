/* Byte-pair encoding: a text is split into words by the pre-tokenizer, and within a word the pair of neighbours with
 * the best merge is joined until no merge applies. What a word is made of at first says the vocabulary's kind: its
 * bytes (GPT-2), or its characters, as SentencePiece spells them, with their bytes where a character has no token.
 *
 *     Bpe *bpe;
 *     if (bpe_open(&bpe, &vocabulary, &error) < 0) …
 *     bpe_encode(bpe, sv("Hello"), true, &tokens, &error);      // no BOS, no special tokens: see tokenizer.h
 *     bpe_free(bpe);
 *
 * A byte that has no token (SmolLM2's vocabulary lacks 0x04, for one) gives no id, as in Hugging Face's tokenizers. A
 * byte-level vocabulary that lacks one of the printable ASCII characters is taken for damaged.
 */
#ifndef STOWKV_BPE_H
#define STOWKV_BPE_H

#include "tokenizer/token_list.h"
#include "tokenizer/vocabulary.h"

typedef struct Bpe Bpe;

/* `vocabulary`, of kind BYTE_LEVEL_BPE or PIECE_BPE, must outlive the result. ERROR_FORMAT where merges and tokens do
 * not belong together, where two tokens have one spelling, or where bytes have no tokens that must; ERROR_UNSUPPORTED
 * for an unknown pre-tokenizer. */
int bpe_open(Bpe **out, const Vocabulary *vocabulary, Error *error);
void bpe_free(Bpe *bpe); /* NULL is fine */

/* Whether a text begins with BOS where the checkpoint does not say: the pre-tokenizer's rule. */
bool bpe_adds_bos(const Bpe *bpe);

/* Appends the ids of `text`, which must be valid UTF-8; `first`: nothing stands in front of it. Takes time O(n log n)
 * for a word of n bytes. */
int bpe_encode(const Bpe *bpe, StringView text, bool first, TokenList *out, Error *error);

#endif
