/* SPDX-License-Identifier: Apache-2.0 */
/* A statement's text for people's eyes: what it does, without the values that stand in it. Pure. */
#pragma once
#include <stddef.h>

#include "base/span.h"

/*
 * Strings, numbers, blobs, uuids and booleans become "?", comments go, control characters too. What cannot be read to its end stops at
 * "…": a value might stand there. Writes at most `size` bytes with the NUL (size > 0) and returns the length.
 */
size_t statement_redact(struct span text, char *to, size_t size);
