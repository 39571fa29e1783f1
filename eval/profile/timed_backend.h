/* A backend in front of another one, that times each call and hands it on: the profiler's place is the seam, not the
 * operations. What a call must move and compute follows from its arguments. Where calls are through when they return,
 * the host's clock tells how long they took. A device tells itself, by marks between them, in a recorded step too: a
 * call's time is then that since the one before it was through, with what the device has waited for its launch. Marks
 * are read when a step's result is, or else before the next step, which so waits for this one.
 *
 *     Profile profile = {0};
 *     if (timed_backend_open(&timed, model.backend, &profile, &error) < 0) …
 *     model.backend = timed;                       // contexts that are opened from here on are timed
 *     …
 *     model.backend = timed_backend_close(timed);  // once those contexts are closed
 */
#ifndef STOWKV_TIMED_BACKEND_H
#define STOWKV_TIMED_BACKEND_H

#include "eval/profile/profile.h"
#include "model/backend.h"

/* Neither `inner` nor `profile` is owned by the result; its ops->close() closes `inner` too. */
int timed_backend_open(Backend **out, Backend *inner, Profile *profile, Error *error);

/* Frees it and returns the one behind it, still open. NULL is fine. */
Backend *timed_backend_close(Backend *timed);

#endif
