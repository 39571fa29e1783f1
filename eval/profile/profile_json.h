/* A profile as JSON: the object "profile" of a run. */
#ifndef STOWKV_PROFILE_JSON_H
#define STOWKV_PROFILE_JSON_H

#include "eval/profile/profile.h"

#include <cjson/cJSON.h>

/* What the machine can do, measured in the same run; 0: not measured. */
typedef struct ProfileRoofs {
    double bytes_per_second, flops_per_second;
} ProfileRoofs;

/* Of a finished profile; NULL out of memory. An operation's bytes a second are given for single tokens alone: in a
 * batch several tokens share what one of them has brought into the processor's caches. */
cJSON *profile_json(const Profile *profile, const ProfileRoofs *roofs);

#endif
