/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory of the test's own: empty at first, gone afterwards with whatever is in it. A test that says what must be left in it takes that away
 * itself, with unlink and rmdir.
 */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIRECTORY_MAX 32

/* *ret_path gets an absolute path. 0, or −1. */
static inline int directory_make(char ret_path[static DIRECTORY_MAX])
{
	snprintf(ret_path, DIRECTORY_MAX, "/tmp/cqlferry-test-XXXXXX");
	return mkdtemp(ret_path) ? 0 : -1;
}

static inline int directory_remove(const char *path)
{
	char command[DIRECTORY_MAX + 16];

	snprintf(command, sizeof(command), "rm -rf '%s'", path);
	return system(command);
}

/* ---- one for a whole test or group, as cmocka's setup and teardown */

static char directory[DIRECTORY_MAX];
static char directory_names[64][128];

static inline int directory_setup(void **unused)
{
	(void)unused;
	memset(directory_names, 0, sizeof(directory_names));
	return directory_make(directory);
}

static inline int directory_teardown(void **unused)
{
	(void)unused;
	return directory_remove(directory);
}

/* A file in it. The same text for the same name, until the next setup: settings borrow it. */
static inline const char *in_directory(const char *name)
{
	char wanted[128];
	unsigned i = 0;

	snprintf(wanted, sizeof(wanted), "%s/%s", directory, name);
	while (directory_names[i][0] && strcmp(directory_names[i], wanted) != 0)
		if (++i == 64)
			abort();
	memcpy(directory_names[i], wanted, sizeof(wanted));
	return directory_names[i];
}
