/* SPDX-License-Identifier: Apache-2.0 */
/* See log.h. A line is composed on the stack and leaves in one write, so that lines of threads never mix. */
#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum log_level log_threshold = LOG_INFO;

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static void write_line(const char *level, const char *area, const char *format, va_list args)
{
	char line[2048];
	struct timespec now;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	size_t n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %-5s %-9s ", now.tv_nsec / 1000000, level, area);
	int text = vsnprintf(line + n, sizeof(line) - n - 1, format, args);
	if (text > 0)
		n += (size_t)text < sizeof(line) - n - 1 ? (size_t)text : sizeof(line) - n - 2;
	line[n++] = '\n';
	/* Nobody is left to be told when the log itself cannot be written. */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}

void log_line(enum log_level level, const char *area, const char *format, ...)
{
	va_list args;

	if (level > log_threshold)
		return;
	va_start(args, format);
	write_line(level_names[level], area, format, args);
	va_end(args);
}

void log_audit(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	write_line("audit", "phase", format, args);
	va_end(args);
}

int log_level_from_name(const char *name)
{
	for (int i = 0; i <= LOG_DEBUG; i++)
		if (!strcmp(name, level_names[i]))
			return i;
	return -1;
}
