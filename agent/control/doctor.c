// SPDX-License-Identifier: Apache-2.0
/* The list of checks and how findings are shown. */
#include "control/doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "control/render.h"

struct doctor {
	FILE *out;
	bool json, color;
	size_t count;
	struct {
		const char *name;
		doctor_check run;
		void *context;
	} check[DOCTOR_CHECKS_MAX];
	const char *current;
	enum doctor_grade worst;
	unsigned found[DOCTOR_FAIL + 1];
	json_t *findings;
};

static const char *const grade_name[] = {"ok", "note", "warn", "fail"};

struct doctor *doctor_new(FILE *out, bool json, bool color)
{
	struct doctor *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->out = out;
	d->json = json;
	d->color = color;
	d->findings = json_array();
	return d;
}

void doctor_free(struct doctor *d)
{
	if (!d)
		return;
	json_decref(d->findings);
	free(d);
}

int doctor_add(struct doctor *d, const char *name, doctor_check check, void *context)
{
	if (d->count == DOCTOR_CHECKS_MAX)
		return -ENOSPC;
	d->check[d->count].name = name;
	d->check[d->count].run = check;
	d->check[d->count++].context = context;
	return 0;
}

void doctor_find(struct doctor *d, enum doctor_grade grade, const char *remedy, const char *format, ...)
{
	static const char *const color[] = {"\033[32m", "", "\033[33m", "\033[31m"};
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	d->found[grade]++;
	if (grade > d->worst)
		d->worst = grade;
	if (d->json) {
		json_t *f = json_pack("{s:s, s:s, s:s}", "check", d->current, "grade", grade_name[grade],
				      "finding", text);

		if (f && remedy)
			json_object_set_new(f, "remedy", json_string(remedy));
		json_array_append_new(d->findings, f);
		return;
	}
	fprintf(d->out, "  %s%-4s%s  ", d->color ? color[grade] : "", grade_name[grade],
		d->color && *color[grade] ? "\033[0m" : "");
	render_text(d->out, text);
	fputc('\n', d->out);
	if (remedy) {
		fprintf(d->out, "        -> ");
		render_text(d->out, remedy);
		fputc('\n', d->out);
	}
	fflush(d->out);
}

enum doctor_grade doctor_run(struct doctor *d, const struct config *config)
{
	for (size_t i = 0; i < d->count; i++) {
		d->current = d->check[i].name;
		if (!d->json)
			fprintf(d->out, "%s\n", d->current);
		d->check[i].run(d, config, d->check[i].context);
	}
	if (d->json) {
		json_t *all = json_pack("{s:b, s:s, s:O}", "ok", d->worst < DOCTOR_FAIL, "worst",
					grade_name[d->worst], "findings", d->findings);

		json_dumpf(all, d->out, JSON_INDENT(2));
		fputc('\n', d->out);
		json_decref(all);
	} else {
		fprintf(d->out, "\n%u ok, %u to note, %u warnings, %u to repair\n", d->found[DOCTOR_OK],
			d->found[DOCTOR_NOTE], d->found[DOCTOR_WARN], d->found[DOCTOR_FAIL]);
	}
	return d->worst;
}
