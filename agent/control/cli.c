// SPDX-License-Identifier: Apache-2.0
/* The table of subcommands, `help`, `version`, and what the subcommands share: socket, asking the agent,
 * errors. */
#include "control/cli_command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/admin_client.h"
#include "control/nearest.h"
#include "control/render.h"

const struct cli_command cli_commands[] = {
    {"agent", "", "run the node agent in the foreground",
     "Settings come from the configuration file and the environment: `cqlferry help configuration`.\n"
     "With nothing but SOURCE_*, ASTRA_* and PROXY_QUERY_PORT set it is an explicit proxy that mirrors at "
     "once.",
     cli_agent},
    {"status", "", "show phase, sessions, mirror and interception", NULL, cli_status},
    {"top", "", "show the same numbers and their rates, live", NULL, cli_top},
    {"sessions", "", "list the client connections", NULL, cli_sessions},
    {"gaps", "", "list what was written and not mirrored",
     "SINCE is a time (2026-01-02T03:04:05Z), or how long ago: 90s, 15m, 12h, 7d. A gap is listed if it was not over then.\n"
     "CAUSE is a cause (lwt, counter, list_operation, server_function, unclassified, policy, unknown_outcome, shed,\n"
     "dead_letter, undelivered, or what the kernel says of a bypass) or a kind (unmirrored, bypass, opaque, down, off,\n"
     "forced, lost). A gap whose table is not known (-) may concern any table and is always listed.",
     cli_gaps},
    {"journal", "ls|show|verify", "look into the journal's files: what waits for the other cluster",
     "Reads the files themselves, with or without a running agent, and changes nothing. Statements are shown without their values,\n"
     "unless --values asks for them. verify walks all files and fails (1) when one is torn or damaged.",
     cli_journal},
    {"dead", "ls|show|replay|drop", "writes that the other cluster refused for good",
     "ls and show read the files in state.directory. replay and drop need the running agent: replay sends them again, each with its\n"
     "own timestamp and time to live (not TRUNCATE and DDL, which would undo what came later); drop forgets them.",
     cli_dead},
    {"hold", "[KEYSPACE.TABLE|KEYSPACE.*]", "keep what a load could undo waiting, for one table; without a name: list",
     "Names are those of CQL: folded to lower case unless in double quotes. What waits: TRUNCATE, conditional writes, counters, list\n"
     "operations and batches; with journal.strictHolds every UPDATE and DELETE as well. A hold outlives a restart.",
     cli_hold},
    {"release", "KEYSPACE.TABLE|KEYSPACE.*", "undo hold: what waited is sent", NULL, cli_release},
    {"phase", "[observe|mirror|drain|cutover|rollback|finish]", "show the phase, or move to another one",
     "Moves: observe > mirror > drain > cutover > finish; back: mirror > observe, drain > mirror, cutover > "
     "rollback > mirror.\n"
     "A move that would lose writes is refused, with what stands in its way; --plan asks without moving.\n"
     "When this command is interrupted, the agent carries the move on; `cqlferry status` shows how it ended.",
     cli_phase},
    {"copy", "to|from KEYSPACE.TABLE[(COLUMNS)] FILE|-", "copy a table to or from CSV files, as COPY of cqlsh does",
     "The files are those of cqlsh, and options may be given as in cqlsh: --with \"HEADER=TRUE AND DELIMITER='|'\".\n"
     "Or as a statement: cqlferry copy -e \"COPY ks.t (a, b) TO 'f.csv' WITH HEADER=TRUE AND CONNECTIONMODE='proxy'\".\n"
     "Exit status 3: finished, but rows were rejected (see ERRFILE) or ranges given up.",
     cli_copy},
    {"off", "", "kill switch: take interception away at once",
     "New connections go where the applications wanted to go; open ones live on. From drain on they could\n"
     "write to the wrong cluster, hence only with --force. Works without an agent as well, then with --force.",
     cli_off},
    {"on", "", "undo off", NULL, cli_on},
    {"doctor", "", "check kernel, privileges, ports, configuration and clusters", NULL, cli_doctor},
    {"version", "", "print the version", NULL, cli_version},
    {"help", "[command|configuration]", "explain a command, or all configuration keys", NULL, cli_help},
};
const size_t cli_command_count = sizeof(cli_commands) / sizeof(cli_commands[0]);

static int complain(int status, const char *command, const char *format, va_list args)
{
	fprintf(stderr, "cqlferry%s%s: ", command ? " " : "", command ? command : "");
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	return status;
}

int cli_usage_error(const char *command, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(CLI_USAGE, command, format, args);
	va_end(args);
	return CLI_USAGE;
}

int cli_failed(const char *command, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(CLI_FAILED, command, format, args);
	va_end(args);
	return CLI_FAILED;
}

const struct cli_command *cli_find(const char *name)
{
	for (size_t i = 0; i < cli_command_count; i++)
		if (!strcmp(cli_commands[i].name, name))
			return &cli_commands[i];
	return NULL;
}

const char *cli_config_file(const struct cli *cli)
{
	const char *file = cli->config_file ? cli->config_file : getenv("CQLFERRY_CONFIG");

	if (file && *file)
		return file;
	return access(CONFIG_DEFAULT_FILE, F_OK) == 0 ? CONFIG_DEFAULT_FILE : NULL;
}

int cli_socket(struct cli *cli, const char **ret_path, struct error *error)
{
	struct config config;
	int rc;

	if (cli->socket) {
		*ret_path = cli->socket;
		return 0;
	}
	rc = config_load(&config, cli_config_file(cli), environ, error);
	if (rc < 0)
		return rc;
	snprintf(cli->socket_path, sizeof(cli->socket_path), "%s", config.admin.socket);
	config_done(&config);
	*ret_path = cli->socket_path;
	return 0;
}

int cli_directory(struct cli *cli, const char **ret_path, struct error *error)
{
	struct config config;
	int rc;

	if (cli->directory) {
		*ret_path = cli->directory;
		return 0;
	}
	rc = config_load(&config, cli_config_file(cli), environ, error);
	if (rc < 0)
		return rc;
	snprintf(cli->directory_path, sizeof(cli->directory_path), "%s", config.state.directory);
	config_done(&config);
	if (!cli->directory_path[0])
		return error_set(error, -ENOENT, "state.directory is empty: nothing is kept on disk");
	*ret_path = cli->directory_path;
	return 0;
}

bool cli_no_agent(int code)
{
	return code == -ENOENT || code == -ECONNREFUSED;
}

static void on_progress(const char *text, void *context)
{
	const struct cli *cli = context;

	if (cli->json) {
		json_t *line = json_pack("{s:s}", "progress", text);

		json_dumpf(line, stdout, JSON_COMPACT);
		fputc('\n', stdout);
		json_decref(line);
	} else {
		render_text(stdout, text);
		fputc('\n', stdout);
	}
	fflush(stdout);
}

int cli_ask(struct cli *cli, const char *command, json_t *request, int timeout_millis, json_t **ret_final,
	    int *ret_code)
{
	struct error error = {""};
	const char *path = NULL, *text, *hint;
	json_t *final = NULL;
	/* A configuration that does not load, also a missing one (−ENOENT), says nothing about the agent: see cli_no_agent(). */
	int rc = cli_socket(cli, &path, &error) < 0 ? -EINVAL : 0;

	if (rc == 0)
		rc = admin_call(path, request, timeout_millis, on_progress, cli, &final, &error);
	json_decref(request);
	if (ret_code)
		*ret_code = rc;
	if (rc < 0) {
		if (!ret_code || !cli_no_agent(rc))
			cli_failed(command, "%s", error.text);
		return CLI_FAILED;
	}
	if (json_is_true(json_object_get(final, "ok"))) {
		*ret_final = final;
		return CLI_OK;
	}
	if (cli->json) {
		json_dumpf(final, stdout, cli->lines ? JSON_COMPACT : JSON_INDENT(2));
		fputc('\n', stdout);
	}
	text = json_string_value(json_object_get(final, "error"));
	hint = json_string_value(json_object_get(final, "hint"));
	fprintf(stderr, "cqlferry %s: ", command);
	render_text(stderr, text ? text : "the agent refused without a reason");
	if (hint) {
		fprintf(stderr, "\n  ");
		render_text(stderr, hint);
	}
	fputc('\n', stderr);
	json_decref(final);
	return CLI_FAILED;
}

void cli_show(const struct cli *cli, json_t *final)
{
	if (cli->json) {
		json_dumpf(final, stdout, cli->lines ? JSON_COMPACT : JSON_INDENT(2));
		fputc('\n', stdout);
	} else {
		json_object_del(final, "ok");
		render_object(stdout, final, cli->color);
	}
	json_decref(final);
}

int cli_version(struct cli *cli, int argc, char **argv)
{
	const struct cli_option options[] = {{.name = NULL}};
	int rest, rc = cli_options(cli_find("version"), options, argc, argv, 0, &rest);

	(void)cli;
	if (rc >= 0)
		return rc;
	printf("cqlferry %s\n", CQLFERRY_VERSION);
	return CLI_OK;
}

static void print_overview(FILE *out)
{
	fprintf(out, "usage: cqlferry COMMAND [OPTION]...\n\n");
	for (size_t i = 0; i < cli_command_count; i++)
		fprintf(out, "  %-10s %s\n", cli_commands[i].name, cli_commands[i].summary);
	fprintf(out, "\n`cqlferry COMMAND --help` explains one of them. Exit status: 0 done, 1 refused or "
		     "failed, 2 usage.\n");
}

static int unknown_command(const char *word)
{
	struct nearest near = {.word = word};

	for (size_t i = 0; i < cli_command_count; i++)
		nearest_offer(&near, cli_commands[i].name);
	if (near.best)
		return cli_usage_error(NULL, "unknown command '%s'; did you mean '%s'?", word, near.best);
	return cli_usage_error(NULL, "unknown command '%s'; `cqlferry help` lists them", word);
}

int cli_help(struct cli *cli, int argc, char **argv)
{
	bool markdown = false;
	const struct cli_option options[] = {{.name = "markdown",
					      .type = CLI_FLAG,
					      .help = "configuration: as the tables of docs/configuration.md",
					      .place.flag = &markdown},
					     {.name = NULL}};
	int rest, rc = cli_options(cli_find("help"), options, argc, argv, 1, &rest);
	const struct cli_command *command;

	if (rc >= 0)
		return rc;
	if (rest == 0) {
		print_overview(stdout);
		return CLI_OK;
	}
	if (!strcmp(argv[1], "configuration")) {
		config_print_keys(stdout, markdown);
		printf(markdown ? "\n" : "\nVariables of the proxy document and the keys that they set:\n");
		config_print_document_variables(stdout, markdown);
		return CLI_OK;
	}
	command = cli_find(argv[1]);
	if (!command)
		return unknown_command(argv[1]);
	char *help[] = {argv[1], (char *)"--help", NULL};

	return command->run(cli, 2, help);
}

int cli_main_with(int argc, char **argv, const struct cli_hooks *hooks)
{
	struct cli cli = {.hooks = hooks, .color = isatty(STDOUT_FILENO) && !getenv("NO_COLOR")};
	const struct cli_command *command;
	const char *word = argc > 1 ? argv[1] : NULL;
	int rc;

	if (!word) {
		print_overview(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(word, "--help") || !strcmp(word, "-h"))
		word = "help";
	else if (!strcmp(word, "--version") || !strcmp(word, "-V"))
		word = "version";
	command = cli_find(word);
	if (!command)
		return unknown_command(word);
	rc = command->run(&cli, argc - 1, argv + 1);
	/* An answer that did not reach its reader is no success: `cqlferry status > /dev/full`. */
	if (fflush(stdout) != 0 || ferror(stdout))
		return cli_failed(command->name, "cannot write the answer: %s", strerror(errno));
	return rc;
}

int cli_main(int argc, char **argv, cli_agent_run agent_run)
{
	const struct cli_hooks hooks = {.agent_run = agent_run};

	return cli_main_with(argc, argv, &hooks);
}
