/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `cqlferry doctor`: a list of checks, each of which reports findings with a remedy. The built-in ones look
 * at the machine, the configuration and the way to the clusters; what needs a CQL session (schema, clocks,
 * partitioner) adds itself from cli_hooks.doctor_checks by doctor_add(). Checks run one after the other on
 * the main thread and may block for some seconds.
 */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "control/config.h"

#define DOCTOR_CHECKS_MAX 32

enum doctor_grade {
	DOCTOR_OK,
	DOCTOR_NOTE, /* worth knowing; nothing to do */
	DOCTOR_WARN, /* works, but less well or less safely */
	DOCTOR_FAIL  /* does not work before this is changed; exit status 1 */
};

struct doctor;

/* Reports by doctor_find(). `config` is well-formed, but config_check() may have refused it; lists may be
 * empty. */
typedef void (*doctor_check)(struct doctor *doctor, const struct config *config, void *context);

struct doctor *doctor_new(FILE *out, bool json, bool color);
void doctor_free(struct doctor *doctor);

/* `name` is borrowed and becomes the heading. 0 or −ENOSPC. */
int doctor_add(struct doctor *doctor, const char *name, doctor_check check, void *context);

/* One finding of the check that runs. `remedy`: what to do, NULL for OK and NOTE. */
void doctor_find(struct doctor *doctor, enum doctor_grade grade, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Runs all checks, prints as they report (or one JSON array at the end). Returns the worst grade. */
enum doctor_grade doctor_run(struct doctor *doctor, const struct config *config);

/* The built-in checks. */
void doctor_add_system(struct doctor *doctor);	  /* doctor_system.c: kernel, privileges, mounts, limits */
void doctor_add_intercept(struct doctor *doctor); /* doctor_intercept.c: what agent/intercept says */
void doctor_add_node(struct doctor *doctor);	  /* doctor_node.c: ports, files, admin socket */
void doctor_add_clusters(struct doctor *doctor);  /* doctor_clusters.c: TCP, TLS and CQL handshake */
void doctor_add_tls(struct doctor *doctor);	  /* doctor_tls.c: our certificates and keys */

/* A certificate that has expired or soon will: FAIL or WARN with the remedy; nothing otherwise. */
void doctor_tls_expiry(struct doctor *doctor, const char *where, const char *subject, time_t not_after, const char *remedy);
