/* A backend in front of another one, that times each call and hands it on: the profiler's place is the seam, not the
 * operations. What a call must move and compute follows from its arguments. A device is waited for after each call, so
 * that a step takes longer than without this.
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
