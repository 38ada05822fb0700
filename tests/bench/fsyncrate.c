// SPDX-License-Identifier: Apache-2.0
/*
 * fsyncrate - how often a disk can make a group of writes durable: one write of N bytes, one fdatasync,
 * again.
 *
 *   fsyncrate --file PATH [--bytes N] [--seconds S] [--appending]
 *
 * This is what a journal with group commit can reach at best: each fdatasync covers the writes that gathered
 * while the one before it ran. Default: over a file that was filled beforehand, so that fdatasync has no
 * metadata to write;
 * --appending lets the file grow, and each sync writes its new size as well. The file is removed. One JSON
 * line:
 *
 *   {"bytes": 8192, "appending": false, "syncs": 912, "per_s": 912.3, "p50_us": 1012.0, "p99_us": 2310.0}
 */
#include "base/clock.h"
#include "histogram.h"
#include "wire.h"

#include <fcntl.h>
#include <getopt.h>
#include <unistd.h>

enum {
	FILLED = 64 << 20, /* the size of a journal segment or so; written over again from its begin */
	BYTES_MAX = 16 << 20,
};

static uint64_t took[BUCKETS];

static void write_all(int fd, const uint8_t *data, size_t n)
{
	while (n) {
		ssize_t done = write(fd, data, n);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			die("write: %s", strerror(errno));
		data += done;
		n -= (size_t)done;
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
	    {"file", 1, 0, 'f'}, {"bytes", 1, 0, 'b'}, {"seconds", 1, 0, 's'}, {"appending", 0, 0, 'a'}, {0}};
	const char *file = NULL;
	size_t bytes = 4096, at = 0;
	double seconds = 2;
	bool appending = false;
	uint64_t begun, now, syncs = 0;
	uint8_t *data;
	int opt, fd;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (opt) {
		case 'f':
			file = optarg;
			break;
		case 'b':
			bytes = strtoull(optarg, NULL, 10);
			break;
		case 's':
			seconds = strtod(optarg, NULL);
			break;
		case 'a':
			appending = true;
			break;
		default:
			die("see the head of tests/bench/fsyncrate.c for the options");
		}
	if (!file || bytes < 1 || bytes > BYTES_MAX || seconds <= 0)
		die("--file PATH, --bytes 1 to %d, --seconds above 0", BYTES_MAX);
	data = malloc(bytes);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (!data || fd < 0)
		die("cannot make %s: %s", file, strerror(errno));
	memset(data, 0x5a, bytes);
	for (size_t n = 0; !appending && n < FILLED; n += bytes)
		write_all(fd, data, bytes);
	if (fsync(fd) || lseek(fd, 0, SEEK_SET) < 0)
		die("%s: %s", file, strerror(errno));
	begun = now = clock_now_ns();
	while ((double)(now - begun) < seconds * 1e9) {
		uint64_t before = now;

		if (!appending && at + bytes > FILLED) {
			at = 0;
			if (lseek(fd, 0, SEEK_SET) < 0)
				die("%s: %s", file, strerror(errno));
		}
		write_all(fd, data, bytes);
		if (fdatasync(fd))
			die("fdatasync: %s", strerror(errno));
		at += bytes;
		now = clock_now_ns();
		took[bucket_of(now - before)]++;
		syncs++;
	}
	printf("{\"bytes\": %zu, \"appending\": %s, \"syncs\": %llu, \"per_s\": %.1f, \"p50_us\": %.1f, "
	       "\"p99_us\": %.1f}\n",
	       bytes, appending ? "true" : "false", (unsigned long long)syncs,
	       (double)syncs * 1e9 / (double)(now - begun), percentile(took, syncs, 0.5),
	       percentile(took, syncs, 0.99));
	close(fd);
	unlink(file);
	free(data);
	return 0;
}
