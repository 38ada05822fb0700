// SPDX-License-Identifier: Apache-2.0
/* `cqlferry hold` and `cqlferry release`: one table, or all of a keyspace, by its name in CQL. */
#include "control/cli_command.h"

#include <ctype.h>
#include <string.h>

#define ANSWER_MILLIS 30000 /* the agent writes a small file */

/* One name at *at; steps behind it. */
static bool take_name(const char **at, char to[CQL_NAME_MAX + 1])
{
	const char *p = *at;
	bool quoted = *p == '"';
	size_t n = 0;

	for (p += quoted;; p++) {
		if (quoted && *p == '"' && *++p != '"')
			break; /* the end; a doubled one is a character */
		if (!quoted && !isalnum((unsigned char)*p) && *p != '_')
			break;
		if (!*p || n == CQL_NAME_MAX)
			return false;
		to[n++] = quoted ? *p : (char)tolower((unsigned char)*p);
	}
	to[n] = 0;
	*at = p;
	return n > 0;
}

bool cli_table(const char *text, struct table_name *ret)
{
	*ret = (struct table_name){0};
	if (!take_name(&text, ret->keyspace) || *text++ != '.')
		return false;
	if (strcmp(text, "*") == 0)
		return true;
	return take_name(&text, ret->table) && *text == 0;
}

static int change(struct cli *cli, const char *command, int argc, char **argv)
{
	const struct cli_option options[] = {
		{.name = "socket", .type = CLI_TEXT, .value = "PATH", .place.text = &cli->socket, .help = "the agent's admin.socket"},
		{.name = "config", .type = CLI_TEXT, .value = "FILE", .place.text = &cli->config_file, .help = "configuration that names it"},
		{.name = "json", .type = CLI_FLAG, .place.flag = &cli->json, .help = "answer in JSON"},
		{.name = NULL}};
	struct table_name name;
	json_t *request, *final = NULL;
	int rest, rc = cli_options(cli_find(command), options, argc, argv, 1, &rest);

	if (rc >= 0)
		return rc;
	if (rest == 1 && !cli_table(argv[1], &name))
		return cli_usage_error(command, "'%s' is no KEYSPACE.TABLE and no KEYSPACE.*", argv[1]);
	if (rest == 0 && strcmp(command, "release") == 0)
		return cli_usage_error(command, "which table? KEYSPACE.TABLE or KEYSPACE.*");
	request = json_pack("{s:s}", "command", command);
	if (rest == 1) {
		json_object_set_new(request, "keyspace", json_string(name.keyspace));
		json_object_set_new(request, "table", json_string(name.table));
	}
	rc = cli_ask(cli, command, request, ANSWER_MILLIS, &final, NULL);
	if (rc == CLI_OK)
		cli_show(cli, final);
	return rc;
}

int cli_hold(struct cli *cli, int argc, char **argv)
{
	return change(cli, "hold", argc, argv);
}

int cli_release(struct cli *cli, int argc, char **argv)
{
	return change(cli, "release", argc, argv);
}
