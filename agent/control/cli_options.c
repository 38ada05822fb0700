// SPDX-License-Identifier: Apache-2.0
/* Options of a subcommand: --name, --name VALUE, --name=VALUE, -- ends them, -h is --help. The table is the
 * help text as well. */
#include "control/cli_command.h"

#include <string.h>

#include "control/config_table.h"
#include "control/nearest.h"

void cli_print_help(FILE *out, const struct cli_command *command, const struct cli_option *options)
{
	char left[64];

	fprintf(out, "usage: cqlferry %s%s%s%s\n\n%s\n\n", command->name,
		options[0].name ? " [OPTION]..." : "", *command->arguments ? " " : "", command->arguments,
		command->summary);
	for (const struct cli_option *o = options; o->name; o++) {
		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->value ? " " : "",
			 o->value ? o->value : "");
		fprintf(out, "  %-22s %s\n", left, o->help);
	}
	fprintf(out, "  %-22s %s\n", "--help", "this text");
	if (command->details)
		fprintf(out, "\n%s\n", command->details);
	fprintf(out, "\nExit status: 0 done, 1 refused or failed, 2 usage.\n");
}

static int unknown_option(const struct cli_command *command, const struct cli_option *options,
			  const char *word)
{
	struct nearest near = {.word = word + strspn(word, "-")};

	for (const struct cli_option *o = options; o->name; o++)
		nearest_offer(&near, o->name);
	nearest_offer(&near, "help");
	if (near.best)
		return cli_usage_error(command->name, "unknown option '%s'; did you mean '--%s'?", word,
				       near.best);
	return cli_usage_error(command->name, "unknown option '%s'; see `cqlferry %s --help`", word,
			       command->name);
}

static int set_number(const struct cli_command *command, const struct cli_option *o, const char *text)
{
	uint64_t value;

	if (!config_number(text, &value) || value < o->min || value > o->max)
		return cli_usage_error(command->name, "--%s: '%s' is not a number from %u to %u", o->name,
				       text, o->min, o->max);
	*o->place.number = (uint32_t)value;
	return -1;
}

/* One option; advances *at over a value that stands in the next word. */
static int take_option(const struct cli_command *command, const struct cli_option *options, int argc,
		       char **argv, int *at)
{
	const char *word = argv[*at], *name = word + 2, *value = strchr(name, '=');
	size_t size = value ? (size_t)(value - name) : strlen(name);
	const struct cli_option *o = options;

	while (o->name && !(strlen(o->name) == size && !memcmp(o->name, name, size)))
		o++;
	if (!o->name)
		return unknown_option(command, options, word);
	if (o->type == CLI_FLAG) {
		if (value)
			return cli_usage_error(command->name, "--%s takes no value", o->name);
		*o->place.flag = true;
		return -1;
	}
	if (value) {
		value++;
	} else {
		if (*at + 1 >= argc)
			return cli_usage_error(command->name, "--%s needs a value: --%s %s", o->name, o->name,
					       o->value);
		value = argv[++*at];
	}
	if (o->type == CLI_NUMBER)
		return set_number(command, o, value);
	*o->place.text = value;
	return -1;
}

int cli_options(const struct cli_command *command, const struct cli_option *options, int argc, char **argv,
		int max_rest, int *ret_count)
{
	bool ended = false;
	int rest = 0;

	for (int i = 1; i < argc; i++) {
		const char *word = argv[i];

		if (!ended && !strcmp(word, "--")) {
			ended = true;
		} else if (!ended && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
			cli_print_help(stdout, command, options);
			return CLI_OK;
		} else if (!ended && word[0] == '-' && word[1] == '-') {
			int rc = take_option(command, options, argc, argv, &i);

			if (rc >= 0)
				return rc;
		} else if (!ended && word[0] == '-' && word[1]) {
			return unknown_option(command, options, word);
		} else if (rest == max_rest) {
			return cli_usage_error(command->name,
					       "'%s' is one word too many; see `cqlferry %s --help`", word,
					       command->name);
		} else {
			argv[++rest] = argv[i];
		}
	}
	*ret_count = rest;
	return -1;
}
