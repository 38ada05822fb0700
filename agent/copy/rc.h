/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cqlshrc and the like: sections of `key = value` or `key: value`, comments from # or ; at the beginning of a
 * line, values that go on in indented lines. Keys are compared without case, sections with it. Python's
 * interpolation (%(name)s) is not done.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct rc {
	struct rc_entry {
		char *section, *key, *value;
	} * entries;
	size_t count;
};

#define RC_FILE_MAX (1u << 20)

/* 0, −ENOENT (no such file), another −errno with the reason: unreadable, too large, a line that is none of
 * the above. */
int rc_read(struct rc *ret, const char *path, struct error *error);
/* `name` stands for the file in errors. */
int rc_parse(struct rc *ret, const char *name, const char *text, size_t size, struct error *error);
void rc_done(struct rc *rc);

/* A path as people write it: ~/ is the home directory. False: too long. */
bool rc_expand(const char *path, char *to, size_t size);

/* The last value given; NULL when there is none. Borrowed. */
const char *rc_get(const struct rc *rc, const char *section, const char *key);
