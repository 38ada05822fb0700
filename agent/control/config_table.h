/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of config*.c: the key table and how a value gets into its place. */
#pragma once
#include "control/config.h"

enum config_type {
	CONFIG_BOOL,   /* bool */
	CONFIG_U32,    /* uint32_t */
	CONFIG_BYTES,  /* uint64_t; a number with an optional unit KiB, MiB, GiB */
	CONFIG_STRING, /* char * */
	CONFIG_ENUM,   /* int */
	CONFIG_LIST    /* struct config_list */
};

struct config_name {
	const char *name; /* NULL ends the list */
	int value;
};

/* NULL when `value` is good, else what is wrong with it as the middle of a sentence: "is not an address". */
typedef const char *(*config_validator)(const char *value);

struct config_key {
	const char *path; /* "origin.contactPoints" */
	enum config_type type;
	size_t offset;			 /* in struct config */
	const char *standard;		 /* default as it would be written in YAML; lists: "" = empty */
	uint64_t min, max;		 /* U32, BYTES */
	const struct config_name *names; /* ENUM */
	config_validator valid;		 /* STRING, and each item of a LIST; NULL = any text */
	bool secret;
	const char *allowed; /* what is allowed, for texts; NULL = derived from min/max or names */
	const char *help;    /* one line, without a full stop at the end */
};

extern const struct config_key config_keys[];
extern const size_t config_key_count;

/* A variable of the document: which key it sets, and how its text is turned into the key's. */
struct config_variable {
	const char *name;
	const char *path;
	enum { VARIABLE_VALUE, VARIABLE_TRUE_SETS, VARIABLE_BOOL } how;
	const char *sets; /* VARIABLE_TRUE_SETS: what "true" writes into the key; "false" writes nothing */
	const char *help;
};
extern const struct config_variable config_variables[];
extern const size_t config_variable_count;

/* −1 when there is no such key. */
int config_key_find(const char *path, size_t size);

/* CQLFERRY_ORIGIN_CONTACT_POINTS for origin.contactPoints. */
void config_key_variable(const struct config_key *key, char *name, size_t size);

/* "0 to 65535", "auto, on or off", … */
void config_key_allowed(const struct config_key *key, char *text, size_t size);

/*
 * Parses `value` into the key's place (a LIST takes items separated by commas) and notes the source.
 * `where` begins the error text: "cqlferry.yaml:7: listen.port" or "CQLFERRY_LISTEN_PORT".
 */
int config_set(struct config *c, int key, const char *value, struct config_source source, const char *where,
	       struct error *error);

/* A LIST from items: `count` strings (borrows). */
int config_set_list(struct config *c, int key, const char *const *items, size_t count,
		    struct config_source source, const char *where, struct error *error);

/* config_yaml.c */
int config_apply_yaml(struct config *c, const char *name, const char *text, size_t size, struct error *error);
/* config_env.c: the document's variables, then CQLFERRY_*. `has_file` decides whether document mode may
 * apply. */
int config_apply_env(struct config *c, char *const *env, struct error *error);
bool config_env_is_document_mode(char *const *env);

/* Strict: "1 to 3 digits" style parsing without sign, space or overflow. false when it is no such number. */
bool config_number(const char *text, uint64_t *ret_value);

/* Splits "host", "host:port", "[v6]:port", "v6"; false when it is none of them. port 0 = none named. */
bool config_split_endpoint(const char *text, struct config_endpoint *ret_endpoint);
