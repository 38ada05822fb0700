// SPDX-License-Identifier: Apache-2.0
/* Input: a COPY statement; the same bytes as a table, as WITH options and as cqlshrc. */
#include <stdlib.h>
#include <string.h>

#include "copy/command.h"
#include "copy/rc.h"
#include "fuzz/holds.h"

static void check_options(const struct option_list *list)
{
	struct copy_options o;
	struct error error = {""};

	options_init(&o);
	for (size_t i = 0; i < list->count; i++)
		if (options_set(&o, list->list[i].name, list->list[i].value, &error) < 0)
			HOLDS(*error.text);
	if (options_finish(&o, &error) == 0)
		HOLDS(o.dialect.delimiter != o.dialect.quote && o.maxbatchsize >= o.minbatchsize &&
		      o.numprocesses > 0);
	options_done(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct copy_command c = {0}, table = {0};
	struct option_list with = {0};
	struct error error = {""};
	char *text = malloc(size + 1);
	struct rc rc;

	HOLDS(text);
	memcpy(text, data, size);
	text[size] = 0;
	if (command_parse(text, &c, &error) == 0)
		HOLDS(*c.table);
	else
		HOLDS(*error.text);
	check_options(&c.options);
	command_done(&c);
	command_parse_table(text, &table, &error);
	command_done(&table);
	command_parse_with(text, &with, &error);
	check_options(&with);
	option_list_done(&with);
	if (rc_parse(&rc, "rc", text, strlen(text), &error) == 0) {
		for (size_t i = 0; i < rc.count; i++)
			HOLDS(rc_get(&rc, rc.entries[i].section, rc.entries[i].key));
		rc_done(&rc);
	}
	free(text);
	return 0;
}
