/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of cli*.c: what a subcommand is, its options, and what they share. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "control/cli.h"
#include "cql/statement.h"

enum cli_option_type { CLI_FLAG, CLI_TEXT, CLI_NUMBER };

struct cli_option {
	const char *name; /* without dashes; NULL ends the list */
	enum cli_option_type type;
	const char *value; /* TEXT, NUMBER: how the value is called in help texts */
	const char *help;
	union {
		bool *flag;
		const char **text;
		uint32_t *number;
	} place;
	uint32_t min, max; /* NUMBER */
};

/* Options that several commands have, and the hooks. */
struct cli {
	const struct cli_hooks *hooks;
	const char *config_file, *socket, *directory;
	bool json;
	bool lines; /* --json: the answer on one line, as the progress lines before it are */
	bool color; /* standard output is a terminal and NO_COLOR is not set */
	char socket_path[128], directory_path[4096];
};

struct cli_command {
	const char *name;
	const char *arguments; /* for the usage line, "" = none */
	const char *summary;   /* one line */
	const char *details;   /* text below the options; may be NULL */
	/* argv[0] is the command. Exit status. With argc 0: print the options to standard output only (for
	 * help). */
	int (*run)(struct cli *cli, int argc, char **argv);
};

/* Rows that many commands have, for their tables. */
#define CLI_OPTION_SOCKET(cli_)                                                                   \
	{                                                                                         \
		.name = "socket", .type = CLI_TEXT, .value = "PATH", .place.text = &(cli_)->socket, \
		.help = "the agent's admin.socket"                                                \
	}
#define CLI_OPTION_CONFIG(cli_)                                                                          \
	{                                                                                                \
		.name = "config", .type = CLI_TEXT, .value = "FILE", .place.text = &(cli_)->config_file, \
		.help = "configuration that names it"                                                    \
	}
#define CLI_OPTION_DIRECTORY(cli_)                                                                        \
	{                                                                                                 \
		.name = "directory", .type = CLI_TEXT, .value = "DIR", .place.text = &(cli_)->directory,   \
		.help = "read the files of that state.directory instead of asking the agent"              \
	}
#define CLI_OPTION_JSON(cli_)                                                                              \
	{                                                                                                  \
		.name = "json", .type = CLI_FLAG, .place.flag = &(cli_)->json, .help = "answer in JSON" \
	}

extern const struct cli_command cli_commands[];
extern const size_t cli_command_count;

/*
 * Parses `options` out of argv; what is left stands in argv[1 … *ret_count]. −1 = go on; otherwise the exit
 * status to return (help was printed, or the command line was wrong and it was said how).
 */
int cli_options(const struct cli_command *command, const struct cli_option *options, int argc, char **argv,
		int max_rest, int *ret_count);
/* For help: the whole text of one command. */
void cli_print_help(FILE *out, const struct cli_command *command, const struct cli_option *options);

/* The command of that name, or NULL. */
const struct cli_command *cli_find(const char *name);

/* "cqlferry status: text" on standard error; returns CLI_USAGE or CLI_FAILED. */
int cli_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
int cli_failed(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --config, else $CQLFERRY_CONFIG, else the default file if there is one, else NULL. */
const char *cli_config_file(const struct cli *cli);

/* Where the agent listens: --socket, else what the configuration says. 0 or −errno with a text. */
int cli_socket(struct cli *cli, const char **ret_path, struct error *error);

/*
 * For commands that read what the agent keeps on disk: where that is. --directory, else state.directory of the configuration. 0, or −errno
 * with a text; −ENOENT where the configuration keeps nothing.
 */
int cli_directory(struct cli *cli, const char **ret_path, struct error *error);

/* Whether `code`, of cli_ask, says that there is no agent to ask: what it left on disk is then the whole truth. */
bool cli_no_agent(int code);

/*
 * Sends `request` (takes it), shows progress lines, and hands the final object over if it is ok. CLI_OK, or
 * CLI_FAILED with the agent's error and hint printed. *ret_code (may be NULL): −errno of the call, −EINVAL
 * when the configuration does not say where the agent listens, 0 when the agent answered.
 */
int cli_ask(struct cli *cli, const char *command, json_t *request, int timeout_millis, json_t **ret_final,
	    int *ret_code);

/* Prints an answer as text or, with --json, as JSON. Takes `final`. */
void cli_show(const struct cli *cli, json_t *final);

/* "2026-01-02T03:04:05Z", "2026-01-02", or "15m": so long ago. False: it is neither. */
bool cli_since(const char *text, int64_t *ret_us);

/* "keyspace.table" as CQL writes it: folded to lower case unless in double quotes; "keyspace.*" has an empty table. False: it is none. */
bool cli_table(const char *text, struct table_name *ret);

int cli_agent(struct cli *cli, int argc, char **argv);
int cli_status(struct cli *cli, int argc, char **argv);
int cli_sessions(struct cli *cli, int argc, char **argv);
int cli_top(struct cli *cli, int argc, char **argv);
int cli_gaps(struct cli *cli, int argc, char **argv);
int cli_journal(struct cli *cli, int argc, char **argv);
int cli_dead(struct cli *cli, int argc, char **argv);
int cli_hold(struct cli *cli, int argc, char **argv);
int cli_release(struct cli *cli, int argc, char **argv);
int cli_copy(struct cli *cli, int argc, char **argv);
int cli_phase(struct cli *cli, int argc, char **argv);
int cli_off(struct cli *cli, int argc, char **argv);
int cli_on(struct cli *cli, int argc, char **argv);
int cli_doctor(struct cli *cli, int argc, char **argv);
int cli_version(struct cli *cli, int argc, char **argv);
int cli_help(struct cli *cli, int argc, char **argv);
