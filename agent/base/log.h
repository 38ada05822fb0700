/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log lines on standard error: `2026-01-02T03:04:05.678Z warn  relay  text`.
 *
 * Only the directory that takes a decision logs it, once. Libraries (base, cql, net) return errors instead.
 * Neither statement values nor credentials are ever passed to these functions.
 */
#pragma once
#include <stdarg.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Lines above this level are dropped. Set once at start-up, before threads exist. Default LOG_INFO. */
extern enum log_level log_threshold;

/* Writes one line. `area` is the directory that speaks ("relay", "mirror", …). Thread-safe: one write(2) a line. */
void log_line(enum log_level level, const char *area, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* error: an operator must act. warn: degraded, says what goes on. info: life cycle. debug: details. */
#define log_error(area, ...) log_line(LOG_ERROR, area, __VA_ARGS__)
#define log_warn(area, ...) log_line(LOG_WARN, area, __VA_ARGS__)
#define log_info(area, ...) log_line(LOG_INFO, area, __VA_ARGS__)
#define log_debug(area, ...)                                                                                  \
	do {                                                                                                  \
		if (log_threshold >= LOG_DEBUG)                                                               \
			log_line(LOG_DEBUG, area, __VA_ARGS__);                                               \
	} while (0)

/* An audit line: what a person or another program made the agent do. Always written, with the word `audit`. */
void log_audit(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "error" | "warn" | "info" | "debug" to a level; −1 for anything else. */
int log_level_from_name(const char *name);
