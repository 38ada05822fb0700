// SPDX-License-Identifier: Apache-2.0
/*
 * `cqlferry off` and `on`. With an agent: the requests {"command": "off", "force"} and {"command": "on"}; it
 * knows the phase and writes the gap ledger. Without one the pinned switch is turned directly: the kernel
 * side outlives the agent.
 */
#include "control/cli_command.h"

#include <errno.h>
#include <unistd.h>

#include "base/log.h"
#include "intercept/intercept.h"

#define ANSWER_MILLIS 10000

/* The pin path of the configuration; NULL = found by mountinfo. A broken configuration must not stop the kill
 * switch. */
static const char *pin_path(const struct cli *cli, struct config *config)
{
	struct error error = {""};

	if (config_load(config, cli_config_file(cli), environ, &error) < 0) {
		fprintf(stderr, "cqlferry: %s; going on with the default pin path\n", error.text);
		return NULL;
	}
	return *config->intercept.pin_path ? config->intercept.pin_path : NULL;
}

static int answer(const struct cli *cli, const char *interception, const char *text)
{
	if (cli->json)
		cli_show(cli, json_pack("{s:b, s:b, s:s}", "ok", 1, "agent", 0, "interception", interception));
	else
		puts(text);
	return CLI_OK;
}

static int switch_without_agent(const struct cli *cli, const char *command, bool on, bool take_away)
{
	struct config config = {0};
	struct error error = {""};
	const char *root = pin_path(cli, &config), *state = take_away ? "removed" : on ? "on" : "off";
	char text[80];
	int rc =
	    take_away ? intercept_remove_pinned(root, &error) : intercept_switch_pinned(root, on, &error);

	config_done(&config);
	if (rc == -ENOENT && take_away)
		return answer(cli, state, "nothing of cqlferry is pinned here");
	if (rc < 0)
		return cli_failed(command, "%s", error.text);
	log_audit("interception %s without an agent, by uid %u", state, (unsigned)getuid());
	snprintf(text, sizeof(text), "no agent is running; interception is %s%s", state, on ? " again" : "");
	return answer(cli, state, text);
}

/* As pin_path() for the socket: an agent that listens at the default one must hear of it. */
static void settle_socket(struct cli *cli)
{
	struct config config;
	struct error error = {""};
	char *nothing[] = {NULL};
	const char *path;

	if (cli_socket(cli, &path, &error) == 0)
		return;
	fprintf(stderr, "cqlferry: %s; going on with the default socket\n", error.text);
	if (config_load(&config, NULL, nothing, &error) < 0)
		return; /* out of memory */
	snprintf(cli->socket_path, sizeof(cli->socket_path), "%s", config.admin.socket);
	config_done(&config);
	cli->socket = cli->socket_path;
}

int cli_off(struct cli *cli, int argc, char **argv)
{
	bool force = false, take_away = false;
	const struct cli_option options[] = {
	    {.name = "force",
	     .type = CLI_FLAG,
	     .place.flag = &force,
	     .help = "from drain on, or where no agent can tell the phase"},
	    {.name = "remove",
	     .type = CLI_FLAG,
	     .place.flag = &take_away,
	     .help = "without an agent: unpin everything as well"},
	    CLI_OPTION_SOCKET(cli),
	    CLI_OPTION_CONFIG(cli),
	    CLI_OPTION_JSON(cli),
	    {.name = NULL}};
	int rest, code = 0, rc = cli_options(cli_find("off"), options, argc, argv, 0, &rest);
	json_t *final = NULL;

	if (rc >= 0)
		return rc;
	settle_socket(cli);
	rc = cli_ask(cli, "off", json_pack("{s:s, s:b}", "command", "off", "force", force), ANSWER_MILLIS,
		     &final, &code);
	if (rc == CLI_OK) {
		cli_show(cli, final);
		if (take_away)
			return cli_failed(
			    "off",
			    "interception is off; --remove needs a stopped agent: stop it, then repeat");
		return CLI_OK;
	}
	if (!cli_no_agent(code))
		return rc;
	if (!force)
		return cli_failed(
		    "off",
		    "no agent answers, so that the phase is not known. After a cutover this would lead "
		    "clients "
		    "back to\n  the cluster that their writes left. If that is meant: cqlferry off --force");
	return switch_without_agent(cli, "off", false, take_away);
}

int cli_on(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {
	    CLI_OPTION_SOCKET(cli),
	    CLI_OPTION_CONFIG(cli),
	    CLI_OPTION_JSON(cli),
	    {.name = NULL}};
	int rest, code = 0, rc = cli_options(cli_find("on"), options, argc, argv, 0, &rest);
	json_t *final = NULL;

	if (rc >= 0)
		return rc;
	settle_socket(cli);
	rc = cli_ask(cli, "on", json_pack("{s:s}", "command", "on"), ANSWER_MILLIS, &final, &code);
	if (rc == CLI_OK)
		cli_show(cli, final);
	else if (cli_no_agent(code))
		return switch_without_agent(cli, "on", true, false);
	return rc;
}
