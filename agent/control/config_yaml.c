// SPDX-License-Identifier: Apache-2.0
/*
 * The YAML file, read with libyaml's document API: each node keeps its line, which schema libraries above it
 * lose. Mappings nest as the dots of the keys do; a leaf is a scalar or a list of scalars. Anchors and
 * aliases resolve inside libyaml; the walk goes no deeper than the longest key, so that a self-referring
 * alias ends in an error.
 */
#include "control/config_table.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

#include "control/nearest.h"

#define DEPTH_MAX 4 /* intercept.onAgentDown.mirror has 3 parts */

struct walk {
	struct config *c;
	const char *name;
	yaml_document_t *document;
	struct error *error;
	unsigned line[CONFIG_KEYS_MAX]; /* where a key was set; 0 = not yet */
};

static unsigned line_of(const yaml_node_t *node)
{
	return (unsigned)node->start_mark.line + 1;
}

static bool is_section(const char *path)
{
	size_t size = strlen(path);

	for (size_t i = 0; i < config_key_count; i++)
		if (!strncmp(config_keys[i].path, path, size) && config_keys[i].path[size] == '.')
			return true;
	return false;
}

/* "unknown key 'listen.prot'; did you mean 'listen.port'?" or the keys that the section has. */
static int refuse_unknown(struct walk *w, const yaml_node_t *node, const char *parent, const char *path)
{
	struct nearest near = {.word = path};
	char keys[384] = "";
	size_t parent_size = strlen(parent), at = 0;

	for (size_t i = 0; i < config_key_count; i++)
		nearest_offer(&near, config_keys[i].path);
	if (near.best)
		return error_set(w->error, -EINVAL, "%s:%u: unknown key '%s'; did you mean '%s'?", w->name,
				 line_of(node), path, near.best);
	for (size_t i = 0; i < config_key_count && at + 1 < sizeof(keys); i++) {
		const char *key = config_keys[i].path, *rest = key;

		if (parent_size) {
			if (strncmp(key, parent, parent_size) != 0 || key[parent_size] != '.')
				continue;
			rest = key + parent_size + 1;
		}
		size_t n = strcspn(rest, ".");

		if (i && !strncmp(config_keys[i - 1].path, key, (size_t)(rest - key) + n) &&
		    strchr(".", config_keys[i - 1].path[(size_t)(rest - key) + n]))
			continue; /* the same section as the line before */
		at += (size_t)snprintf(keys + at, sizeof(keys) - at, "%s%.*s", at ? ", " : "", (int)n, rest);
	}
	return error_set(w->error, -EINVAL, "%s:%u: unknown key '%s'; allowed%s%s: %s", w->name,
			 line_of(node), path, parent_size ? " in " : "", parent, keys);
}

/* The text of a scalar; a NUL inside would cut the value short unnoticed. */
static int scalar_text(struct walk *w, const yaml_node_t *node, const char *path, const char **ret_text)
{
	const char *text = (const char *)node->data.scalar.value;

	if (strlen(text) != node->data.scalar.length)
		return error_set(w->error, -EINVAL, "%s:%u: %s: the value contains a NUL character", w->name,
				 line_of(node), path);
	/* `key:` and `key: ~` say "nothing": the same as an empty text, as people expect of a blanked-out
	 * line. */
	if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	    (!strcmp(text, "~") || !strcmp(text, "null")))
		text = "";
	*ret_text = text;
	return 0;
}

static int set_leaf(struct walk *w, const yaml_node_t *node, int key, const char *path)
{
	const struct config_source source = {CONFIG_FROM_FILE, line_of(node), NULL};
	char where[512];
	const char *text;
	int rc;

	snprintf(where, sizeof(where), "%s:%u: %s", w->name, line_of(node), path);
	if (node->type == YAML_SCALAR_NODE) {
		rc = scalar_text(w, node, path, &text);
		return rc < 0 ? rc : config_set(w->c, key, text, source, where, w->error);
	}
	if (node->type != YAML_SEQUENCE_NODE || config_keys[key].type != CONFIG_LIST)
		return error_set(w->error, -EINVAL, "%s: is a %s; allowed: %s", where,
				 node->type == YAML_SEQUENCE_NODE ? "list" : "section",
				 config_keys[key].type == CONFIG_LIST ? "a list" : "a single value");

	const char *items[CONFIG_LIST_MAX];
	size_t count = 0;

	for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
		const yaml_node_t *item = yaml_document_get_node(w->document, *i);

		if (count == CONFIG_LIST_MAX)
			return error_set(w->error, -EINVAL, "%s: more than %d entries; allowed: at most %d",
					 where, CONFIG_LIST_MAX, CONFIG_LIST_MAX);
		if (item->type != YAML_SCALAR_NODE)
			return error_set(
			    w->error, -EINVAL, "%s:%u: %s: an entry is a %s; allowed: single values", w->name,
			    line_of(item), path, item->type == YAML_SEQUENCE_NODE ? "list" : "section");
		rc = scalar_text(w, item, path, &text);
		if (rc < 0)
			return rc;
		const char *wrong = config_keys[key].valid(text);

		if (wrong) { /* the entry's own line says more than the list's first */
			snprintf(where, sizeof(where), "%s:%u: %s", w->name, line_of(item), path);
			return config_set_list(w->c, key, &text, 1, source, where, w->error);
		}
		items[count++] = text;
	}
	return config_set_list(w->c, key, items, count, source, where, w->error);
}

static int walk_mapping(struct walk *w, const yaml_node_t *node, const char *parent, unsigned depth)
{
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
		const yaml_node_t *name = yaml_document_get_node(w->document, p->key);
		const yaml_node_t *value = yaml_document_get_node(w->document, p->value);
		char path[128];
		int key, rc;

		if (name->type != YAML_SCALAR_NODE || name->data.scalar.length > 48)
			return error_set(w->error, -EINVAL, "%s:%u: a key of %s is no plain word", w->name,
					 line_of(name), *parent ? parent : "the file");
		snprintf(path, sizeof(path), "%.60s%s%s", parent, *parent ? "." : "",
			 (const char *)name->data.scalar.value);
		for (char *ch = path; *ch; ch++)
			if ((unsigned char)*ch < ' ' || *ch == 0x7f)
				*ch = '?';
		key = config_key_find(path, strlen(path));
		if (key >= 0) {
			if (w->line[key])
				return error_set(w->error, -EINVAL,
						 "%s:%u: %s is set twice, first in line %u", w->name,
						 line_of(name), path, w->line[key]);
			w->line[key] = line_of(name);
			rc = set_leaf(w, value, key, path);
		} else if (!is_section(path) || depth == DEPTH_MAX) {
			rc = refuse_unknown(w, name, parent, path);
		} else if (value->type == YAML_MAPPING_NODE) {
			rc = walk_mapping(w, value, path, depth + 1);
		} else if (value->type == YAML_SCALAR_NODE && value->data.scalar.length == 0) {
			rc = 0; /* a section whose lines are all commented out */
		} else {
			rc = error_set(w->error, -EINVAL, "%s:%u: %s is a section; allowed: keys below it",
				       w->name, line_of(value), path);
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int parser_error(const yaml_parser_t *parser, const char *name, struct error *error)
{
	unsigned line = (unsigned)parser->problem_mark.line + 1;

	if (parser->error == YAML_MEMORY_ERROR)
		return error_set(error, -ENOMEM, "%s: out of memory", name);
	if (parser->error == YAML_READER_ERROR)
		return error_set(error, -EINVAL, "%s: not readable as YAML: %s at byte %zu", name,
				 parser->problem, parser->problem_offset);
	return error_set(error, -EINVAL, "%s:%u: not readable as YAML: %s%s%s", name, line,
			 parser->problem ? parser->problem : "unknown problem", parser->context ? " " : "",
			 parser->context ? parser->context : "");
}

int config_apply_yaml(struct config *c, const char *name, const char *text, size_t size, struct error *error)
{
	struct walk w = {.c = c, .name = name, .error = error};
	yaml_parser_t parser;
	yaml_document_t document, second;
	const yaml_node_t *root;
	int rc = 0;

	if (!yaml_parser_initialize(&parser))
		return error_set(error, -ENOMEM, "%s: out of memory", name);
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
	if (!yaml_parser_load(&parser, &document)) {
		rc = parser_error(&parser, name, error);
		yaml_parser_delete(&parser);
		return rc;
	}
	w.document = &document;
	root = yaml_document_get_root_node(&document);
	if (root && root->type == YAML_MAPPING_NODE)
		rc = walk_mapping(&w, root, "", 1);
	else if (root && !(root->type == YAML_SCALAR_NODE && root->data.scalar.length == 0))
		rc = error_set(error, -EINVAL, "%s:%u: the file is a %s; allowed: keys with values", name,
			       line_of(root), root->type == YAML_SEQUENCE_NODE ? "list" : "single value");
	if (rc == 0 && root) {
		if (!yaml_parser_load(&parser, &second)) {
			rc = parser_error(&parser, name, error);
		} else {
			root = yaml_document_get_root_node(&second);
			if (root)
				rc =
				    error_set(error, -EINVAL, "%s:%u: a second document begins; allowed: one",
					      name, line_of(root));
			yaml_document_delete(&second);
		}
	}
	yaml_document_delete(&document);
	yaml_parser_delete(&parser);
	return rc;
}
