/* Which layers of a Hugging Face checkpoint look back on some tokens alone, and which have no RoPE: as config.json
 * lists them, or as its class has it. */
#ifndef STOWKV_HF_LAYERS_H
#define STOWKV_HF_LAYERS_H

#include "checkpoints/config_keys.h"

/* Which layers a class gives a sliding window to, where the file does not list them. */
typedef enum HfWindowLayers {
    HF_WINDOW_PERIODIC, /* by the file's period, or the family's */
    HF_WINDOW_UPPER,    /* from layer max_window_layers on */
    HF_WINDOW_NO_ROPE,  /* those without RoPE */
} HfWindowLayers;

/* What a class takes where keys are left out. */
typedef struct HfWindow {
    size_t tokens; /* sliding_window; 0: null */
    bool off;      /* use_sliding_window is false */
    HfWindowLayers layers;
    size_t max_window_layers;
} HfWindow;

/* Fills `local`, `lookback` and `no_rope` of the configuration, whose sizes have been read. ERROR_FORMAT: a value of
 * the wrong type, or a list that is not of all layers. */
int hf_layers_read(const ConfigReading *reading, const cJSON *root, const HfWindow *otherwise, Error *error);

#endif
