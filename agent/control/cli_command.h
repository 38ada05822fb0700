/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of cli*.c: what a subcommand is, its options, and what they share. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "control/cli.h"

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
	const char *config_file, *socket;
	bool json;
	bool lines; /* --json: the answer on one line, as the progress lines before it are */
	bool color; /* standard output is a terminal and NO_COLOR is not set */
	char socket_path[128];
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
 * Sends `request` (takes it), shows progress lines, and hands the final object over if it is ok. CLI_OK, or
 * CLI_FAILED with the agent's error and hint printed. *ret_code (may be NULL): −errno of the call, 0 when the
 * agent answered.
 */
int cli_ask(struct cli *cli, const char *command, json_t *request, int timeout_millis, json_t **ret_final,
	    int *ret_code);

/* Prints an answer as text or, with --json, as JSON. Takes `final`. */
void cli_show(const struct cli *cli, json_t *final);

int cli_agent(struct cli *cli, int argc, char **argv);
int cli_status(struct cli *cli, int argc, char **argv);
int cli_sessions(struct cli *cli, int argc, char **argv);
int cli_top(struct cli *cli, int argc, char **argv);
int cli_gaps(struct cli *cli, int argc, char **argv);
int cli_copy(struct cli *cli, int argc, char **argv);
int cli_phase(struct cli *cli, int argc, char **argv);
int cli_off(struct cli *cli, int argc, char **argv);
int cli_on(struct cli *cli, int argc, char **argv);
int cli_doctor(struct cli *cli, int argc, char **argv);
int cli_version(struct cli *cli, int argc, char **argv);
int cli_help(struct cli *cli, int argc, char **argv);
