/* For preset portable, which runs on C libraries from glibc 2.35 on: what SentencePiece's archive needs by way of
 * libstdc++, made for glibc 2.36, and does not call here (std::random_device, for sampled segmentations). */
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

uint32_t arc4random(void); /* older headers do not declare it */

uint32_t arc4random(void) {
    uint32_t number;
    if (getentropy(&number, sizeof number) != 0)
        abort();
    return number;
}
