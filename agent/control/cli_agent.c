// SPDX-License-Identifier: Apache-2.0
/* `cqlferry agent`: configuration, then the agent itself, which main.c hands in. */
#include "control/cli_command.h"

#include <signal.h>
#include <unistd.h>

#include "base/log.h"

int cli_agent(struct cli *cli, int argc, char **argv)
{
	bool check = false, takeover = false;
	const struct cli_option options[] = {
	    {.name = "config",
	     .type = CLI_TEXT,
	     .value = "FILE",
	     .place.text = &cli->config_file,
	     .help = "configuration; else $CQLFERRY_CONFIG, else " CONFIG_DEFAULT_FILE " if there is one"},
	    {.name = "takeover",
	     .type = CLI_FLAG,
	     .place.flag = &takeover,
	     .help = "take over from the agent that runs here, if one does (takeover.enabled)"},
	    {.name = "check", .type = CLI_FLAG, .place.flag = &check, .help = "only check the configuration"},
	    {.name = NULL}};
	struct error error = {""};
	struct config config;
	int rest, rc = cli_options(cli_find("agent"), options, argc, argv, 0, &rest);

	if (rc >= 0)
		return rc;
	if (config_load(&config, cli_config_file(cli), environ, &error) < 0)
		return cli_failed("agent", "%s", error.text);
	config.takeover.enabled |= takeover;
	if (config_check(&config, &error) < 0) {
		config_done(&config);
		return cli_failed("agent", "%s", error.text);
	}
	if (check) {
		printf("the configuration is good: %s%s, phase %s, explicit port %u, interception %s\n",
		       *config.file ? config.file : "environment",
		       config.document_mode ? " (the document's variables)" : "",
		       config_phase_name(config.phase.initial), config.listen.port,
		       config.intercept.enabled ? "on" : "off");
		config_done(&config);
		return CLI_OK;
	}
	/* libuv writes without MSG_NOSIGNAL: a client that hangs up must not end the agent. */
	signal(SIGPIPE, SIG_IGN);
	log_threshold = (enum log_level)config.log.level;
	rc = cli->hooks->agent_run(&config, &error);
	config_done(&config);
	return rc < 0 ? cli_failed("agent", "%s", error.text) : CLI_OK;
}
