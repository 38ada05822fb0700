/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A JSON answer as a person reads it. Members with plain values come first, aligned; then each object as a
 * section, each list of objects as a table. Names become words ("backlogBytes" → "backlog"), and the unit in
 * a name decides how its number is written: …Bytes 12.3 MiB, …Micros / …Millis / …Seconds 1.2 ms. The order
 * is the agent's.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* `color`: bold headings, red for members named error, problems, warnings, blockers when they are not empty.
 */
void render_object(FILE *out, const json_t *object, bool color);

/* A text, however long, with what could steer a terminal replaced: client and server names end up in answers. */
void render_text(FILE *out, const char *text);

/* "backlogBytes" → "backlog", "inFlight" → "in flight"; the unit's suffix goes. */
void render_label(const char *name, char *label, size_t size);

/* One plain value, in the unit that its name says. */
void render_value(const char *name, const json_t *value, char *text, size_t size);
