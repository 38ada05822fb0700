// SPDX-License-Identifier: Apache-2.0
#include "copy/progress.h"

#include <string.h>
#include <unistd.h>

#define BAR 24
#define LOG_EVERY 5.0 /* seconds between lines where they stay: 0.25 s would fill a log */

void progress_init(struct progress *p, FILE *out, double every, const char *ratefile, uint64_t now_ns)
{
	*p = (struct progress){
	    .out = out, .every = every, .ratefile = ratefile, .begin_ns = now_ns, .last_ns = now_ns};
	p->terminal = out && isatty(fileno(out));
	if (!p->terminal && every < LOG_EVERY && !*ratefile)
		p->every = LOG_EVERY;
	if (*ratefile)
		unlink(ratefile);
}

static void put_bar(const struct progress *p)
{
	double part = p->total ? (double)atomic_load(&p->done) / (double)p->total : 0;
	int full = (int)(part * BAR);

	if (!p->total)
		return;
	fputs(" [", p->out);
	for (int i = 0; i < BAR; i++)
		fputc(i < full ? '#' : '.', p->out);
	fprintf(p->out, "] %3d %%", (int)(part * 100));
}

void progress_report(struct progress *p, uint64_t now_ns, bool last)
{
	uint64_t rows = atomic_load(&p->rows);
	double passed = (double)(now_ns - p->last_ns) / 1e9, all = (double)(now_ns - p->begin_ns) / 1e9,
	       now_rate;
	char line[160];
	FILE *file;

	if (!last && (passed < p->every || rows == p->last_rows))
		return;
	/* As cqlsh smoothes it: half the rate of this span, half what was shown before. */
	if (passed > 1e-9) {
		now_rate = (double)(rows - p->last_rows) / passed;
		p->rate = p->rate == 0 ? now_rate : (p->rate + now_rate) / 2;
	}
	p->last_ns = now_ns;
	p->last_rows = rows;
	snprintf(line, sizeof(line), "Processed: %llu rows; Rate: %7.0f rows/s; Avg. rate: %7.0f rows/s",
		 (unsigned long long)rows, p->rate, all > 1e-9 ? (double)rows / all : 0.0);
	if (p->out) {
		fputs(line, p->out);
		if (p->terminal)
			put_bar(p);
		fputs(p->terminal && !last ? "\r" : "\n", p->out);
		fflush(p->out);
	}
	if (*p->ratefile && (file = fopen(p->ratefile, "ae"))) {
		fprintf(file, "%s\n", line);
		fclose(file);
	}
}

const char *progress_span(double seconds, char *text, size_t size)
{
	static const struct {
		unsigned seconds;
		const char *name;
	} units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}};
	unsigned long whole = (unsigned long)seconds, n;
	size_t at = 0;

	for (size_t i = 0; i < 3; i++) {
		n = whole / units[i].seconds;
		if (n && at < size)
			at += (size_t)snprintf(text + at, size - at, "%lu %s%s%s", n, units[i].name,
					       n > 1 ? "s" : "", i < 2 ? ", " : " and ");
		whole -= n * units[i].seconds;
		seconds -= (double)n * units[i].seconds;
	}
	if (at < size)
		snprintf(text + at, size - at, "%.3f seconds", seconds);
	return text;
}
