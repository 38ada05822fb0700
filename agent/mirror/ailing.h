/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables that the other cluster refuses (missing, no privilege, another schema), so that their writes keep nobody else's waiting.
 *
 *   well ──refused AILING_AFTER times──▶ ailing: further writes stay in the journal, and are tried once a second
 *     ▲                                     │ one has used up all its attempts
 *     └──── a write is applied ◀────────────┴─▶ hopeless: a write is a dead letter at its first refusal
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define AILING_AFTER 16u

struct ailing;

/* NULL = out of memory. */
struct ailing *ailing_new(void);
void ailing_free(struct ailing *a);

/* The cluster refused a write to the tables of `cell` (relay/gap.h); `last`: it was its last attempt. */
void ailing_refused(struct ailing *a, uint16_t cell, bool last, uint64_t now_ns);
void ailing_well(struct ailing *a, uint16_t cell);

/* Whether writes to it should wait; whether it is no use to try again. */
bool ailing_now(const struct ailing *a, uint16_t cell, uint64_t now_ns);
bool ailing_hopeless(const struct ailing *a, uint16_t cell);
