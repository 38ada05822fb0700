// SPDX-License-Identifier: Apache-2.0
/* The key table as a person reads it: `cqlferry help configuration`, and the rows of docs/configuration.md.
 */
#include "control/config_table.h"

static const char *shown_default(const struct config_key *key)
{
	return *key->standard ? key->standard : key->type == CONFIG_LIST ? "[]" : "\"\"";
}

void config_print_keys(FILE *out, bool markdown)
{
	char variable[96], allowed[256];

	for (size_t i = 0; i < config_key_count; i++) {
		const struct config_key *key = &config_keys[i];

		config_key_variable(key, variable, sizeof(variable));
		config_key_allowed(key, allowed, sizeof(allowed));
		if (markdown)
			fprintf(out, "| `%s` | `%s` | %s | %s | `%s` |\n", key->path, shown_default(key),
				allowed, key->help, variable);
		else
			fprintf(out, "%s = %s\n    %s.\n    Allowed: %s. Variable: %s\n", key->path,
				shown_default(key), key->help, allowed, variable);
	}
}

void config_print_document_variables(FILE *out, bool markdown)
{
	for (size_t i = 0; i < config_variable_count; i++) {
		const struct config_variable *v = &config_variables[i];

		if (markdown)
			fprintf(out, "| `%s` | `%s` | %s |\n", v->name, v->path, v->help);
		else
			fprintf(out, "%-27s %-22s %s.\n", v->name, v->path, v->help);
	}
}
