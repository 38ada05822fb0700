// SPDX-License-Identifier: Apache-2.0
/* `cqlferry doctor`: all checks, built-in and registered. A configuration that cannot be read is a finding;
 * the rest runs with defaults. */
#include "control/cli_command.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void check_unreadable(struct doctor *d, const struct config *c, void *context)
{
	(void)c;
	doctor_find(d, DOCTOR_FAIL, "correct it; what follows was checked with the defaults", "%s",
		    (const char *)context);
}

int cli_doctor(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {
	    {.name = "config",
	     .type = CLI_TEXT,
	     .value = "FILE",
	     .place.text = &cli->config_file,
	     .help = "the agent's configuration"},
	    {.name = "json", .type = CLI_FLAG, .place.flag = &cli->json, .help = "findings in JSON"},
	    {.name = NULL}};
	char *const nothing[] = {NULL};
	struct error error = {""};
	struct config config;
	struct doctor *d;
	int rest, rc = cli_options(cli_find("doctor"), options, argc, argv, 0, &rest);

	if (rc >= 0)
		return rc;
	d = doctor_new(stdout, cli->json, cli->color);
	if (!d)
		return cli_failed("doctor", "out of memory");
	if (config_load(&config, cli_config_file(cli), environ, &error) < 0) {
		struct error second;

		doctor_add(d, "configuration file and environment", check_unreadable, error.text);
		if (config_load(&config, NULL, nothing, &second) < 0) {
			doctor_free(d);
			return cli_failed("doctor", "%s", second.text);
		}
	}
	doctor_add_system(d);
	doctor_add_intercept(d);
	doctor_add_node(d);
	doctor_add_clusters(d);
	doctor_add_tls(d);
	if (cli->hooks->doctor_checks)
		cli->hooks->doctor_checks(d);
	rc = doctor_run(d, &config) == DOCTOR_FAIL ? CLI_FAILED : CLI_OK;
	config_done(&config);
	doctor_free(d);
	return rc;
}
