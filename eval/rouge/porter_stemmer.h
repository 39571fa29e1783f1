/* The Porter stemmer (M. Porter, "An algorithm for suffix stripping", Program 14.3, 1980) with the extensions that
 * NLTK's PorterStemmer has by default, which is what rouge-score stems with.
 *
 *     char word[] = "running";
 *     size_t length = porter_stem(word, strlen(word));   // "run": 3
 */
#ifndef STOWKV_PORTER_STEMMER_H
#define STOWKV_PORTER_STEMMER_H

#include <stddef.h>

/* Replaces a word of [a-z0-9] by its stem, which is never longer, and returns the stem's length. */
size_t porter_stem(char *word, size_t length);

#endif
