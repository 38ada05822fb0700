/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state file `phase.json`: the phase that the node is in, kept over restarts.
 *
 *   {"version": 1, "phase": "cutover", "changed": "2026-01-02T03:04:05Z", "by": "uid 0 pid 4711", "timestampHighWater": 17…}
 *
 * Written to a temporary file, synced and renamed, so that it is always whole; a file that cannot be understood is an error, never a
 * fresh start: a node that forgets its cutover would write to the wrong cluster.
 */
#pragma once
#include <stdint.h>

#include "base/error.h"
#include "cutover/phase.h"

/* 1 with *ret, 0 = there is no file, −errno with the reason. `directory` "" = 0. */
int state_load(const char *directory, enum phase *ret, int64_t *ret_high_water, struct error *error);
/* 0 or −errno with the reason. `directory` "" = 0. */
int state_save(const char *directory, enum phase phase, const char *by, int64_t high_water, struct error *error);
