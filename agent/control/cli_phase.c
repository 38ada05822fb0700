// SPDX-License-Identifier: Apache-2.0
/* `cqlferry phase`: the request {"command": "phase", "to", "plan", "force", "timeoutMillis"}; without a word,
 * the phase as status has it. */
#include "control/cli_command.h"

#include <string.h>

#include "control/nearest.h"

#define SLACK_MILLIS 15000 /* the agent keeps the time-out itself; this is for one that hangs */

static int show_phase(struct cli *cli)
{
	json_t *final = NULL, *phase, *shown;
	int rc = cli_ask(cli, "phase", json_pack("{s:s}", "command", "status"), SLACK_MILLIS, &final, NULL);

	if (rc != CLI_OK)
		return rc;
	phase = json_object_get(final, "phase");
	if (!phase) {
		json_decref(final);
		return cli_failed("phase", "the agent's status names no phase");
	}
	shown = json_pack("{s:b, s:O}", "ok", 1, "phase", phase);
	json_decref(final);
	cli_show(cli, shown);
	return CLI_OK;
}

int cli_phase(struct cli *cli, int argc, char **argv)
{
	bool plan = false, force = false;
	uint32_t seconds = 300;
	const struct cli_option options[] = {
	    {.name = "plan",
	     .type = CLI_FLAG,
	     .place.flag = &plan,
	     .help = "only say what would be done and what stands in its way"},
	    {.name = "force",
	     .type = CLI_FLAG,
	     .place.flag = &force,
	     .help = "go on where writes may be lost; it is put on record"},
	    {.name = "timeout",
	     .type = CLI_NUMBER,
	     .value = "SECONDS",
	     .place.number = &seconds,
	     .min = 1,
	     .max = 86400,
	     .help = "give up after so long and stay in the old phase; 300 if not given"},
	    CLI_OPTION_SOCKET(cli),
	    CLI_OPTION_CONFIG(cli),
	    CLI_OPTION_JSON(cli),
	    {.name = NULL}};
	int rest, rc = cli_options(cli_find("phase"), options, argc, argv, 1, &rest);
	json_t *final = NULL, *request;

	if (rc >= 0)
		return rc;
	cli->lines = true;
	if (rest == 0) {
		if (plan || force)
			return cli_usage_error("phase", "--plan and --force need a phase to go to");
		return show_phase(cli);
	}
	if (config_phase_from_name(argv[1]) < 0) {
		struct nearest near = {.word = argv[1]};

		for (int i = 0; i < CONFIG_PHASE_COUNT; i++)
			nearest_offer(&near, config_phase_name(i));
		if (near.best)
			return cli_usage_error("phase", "unknown phase '%s'; did you mean '%s'?", argv[1],
					       near.best);
		return cli_usage_error(
		    "phase", "unknown phase '%s'; allowed: observe, mirror, drain, cutover, rollback, finish",
		    argv[1]);
	}
	if (plan && force)
		return cli_usage_error("phase",
				       "--plan changes nothing, so that --force has no meaning with it");
	request = json_pack("{s:s, s:s, s:b, s:b, s:I}", "command", "phase", "to", argv[1], "plan", plan,
			    "force", force, "timeoutMillis", (json_int_t)seconds * 1000);
	rc = cli_ask(cli, "phase", request, (int)(seconds * 1000 + SLACK_MILLIS), &final, NULL);
	if (rc == CLI_OK)
		cli_show(cli, final);
	return rc;
}
