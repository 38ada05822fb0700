/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is to be copied: as a statement of cqlsh, or in the pieces of a command line.
 *
 *   COPY [ks.]table [(column, …)] TO 'file' | STDOUT | FROM 'file, pattern' | STDIN [WITH option = value [AND
 * …]] [;]
 */
#pragma once
#include "copy/options.h"

#define NAME_MAX_BYTES 256
#define COLUMNS_MAX 1024

struct copy_command {
	bool to;
	char keyspace[NAME_MAX_BYTES], table[NAME_MAX_BYTES]; /* keyspace "" = not named */
	char **columns;					      /* owned; as they are called, without quotes */
	unsigned column_count;				      /* 0 = all */
	char *file;					      /* owned; NULL: standard input or output */
	struct option_list options;			      /* of WITH */
};

void command_done(struct copy_command *s);

/* All take a zero-initialised statement. 0, −EINVAL with what was expected and where, −ENOMEM. */
int command_parse(const char *text, struct copy_command *ret, struct error *error);
/* "ks.table(a, b)" */
int command_parse_table(const char *text, struct copy_command *s, struct error *error);
/* "HEADER = TRUE AND DELIMITER = '|'" */
int command_parse_with(const char *text, struct option_list *options, struct error *error);
