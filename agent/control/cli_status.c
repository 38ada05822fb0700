// SPDX-License-Identifier: Apache-2.0
/* `cqlferry status` and `cqlferry sessions`: ask and show. What there is to see is decided by the agent's
 * handlers. */
#include "control/cli_command.h"

#define ANSWER_MILLIS 10000 /* both are answered from memory */
#define TABLES_SHOWN 10     /* the largest backlogs; --json has more */

int cli_status(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {
	    CLI_OPTION_SOCKET(cli),
	    CLI_OPTION_CONFIG(cli),
	    CLI_OPTION_JSON(cli),
	    {.name = NULL}};
	int rest, rc = cli_options(cli_find("status"), options, argc, argv, 0, &rest);
	json_t *final = NULL, *tables;

	if (rc >= 0)
		return rc;
	rc = cli_ask(cli, "status", json_pack("{s:s}", "command", "status"), ANSWER_MILLIS, &final, NULL);
	if (rc != CLI_OK)
		return rc;
	tables = json_object_get(json_object_get(final, "mirror"), "tables");
	while (!cli->json && json_array_size(tables) > TABLES_SHOWN)
		json_array_remove(tables, TABLES_SHOWN);
	cli_show(cli, final);
	return rc;
}

int cli_sessions(struct cli *cli, int argc, char **argv)
{
	uint32_t limit = 100;
	const struct cli_option options[] = {
	    {.name = "limit",
	     .type = CLI_NUMBER,
	     .value = "N",
	     .place.number = &limit,
	     .min = 1,
	     .max = 100000,
	     .help = "at most N of them; 100 if not given"},
	    CLI_OPTION_SOCKET(cli),
	    CLI_OPTION_CONFIG(cli),
	    CLI_OPTION_JSON(cli),
	    {.name = NULL}};
	int rest, rc = cli_options(cli_find("sessions"), options, argc, argv, 0, &rest);
	json_t *final = NULL;

	if (rc >= 0)
		return rc;
	rc = cli_ask(cli, "sessions",
		     json_pack("{s:s, s:I}", "command", "sessions", "limit", (json_int_t)limit),
		     ANSWER_MILLIS, &final, NULL);
	if (rc == CLI_OK)
		cli_show(cli, final);
	return rc;
}
