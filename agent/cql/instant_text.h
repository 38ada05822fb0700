/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of instant.h share. Private to agent/cql. */
#pragma once
#include "cql/instant.h"
#include "cql/wire.h"

/* Names of the markers that the agent adds: this and a number. */
#define INSTANT_MARKER "cqlferry_"
#define INSTANT_NAME_SIZE (sizeof(INSTANT_MARKER) + 10)
void instant_name(unsigned number, char name[INSTANT_NAME_SIZE]);

/* The text with literals of `source`, or with markers where that is NULL. */
void instant_put_text(struct wire_out *o, struct span text, struct instant_source *source);
