// SPDX-License-Identifier: Apache-2.0
/*
 * replay.c: runs a fuzz target over its corpus without a fuzzer, so that `make check` does it with any compiler.
 *
 * Linked with one fuzz_X.c. Reads each file of tests/fuzz/fuzz_X.in/ (seeds) and fuzz_X.repro/ (inputs that once broke
 * something, kept for ever). Every input is fed whole, and then each strict prefix of its first 4 KiB, because a stream
 * ends anywhere. The bytes lie flush against an inaccessible page: one read too far is a fault, sanitizer or not.
 *
 *   fuzz_X.replay [DIRECTORY]     default: tests/fuzz below the current directory
 *   fuzz_X.replay FILE...         those inputs alone
 *
 * Exit status 0 when all ran, 1 when a file cannot be read, 2 when there is no input at all.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX_MAX 4096u
#define INPUT_MAX (16u << 20) /* bytes; corpora hold small inputs */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* A target may have one; weak, so that the others need not. */
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

/* One mapping for the whole run: [ room for INPUT_MAX | guard page ]. */
static uint8_t *guard_end;

static int guard_init(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *base = mmap(NULL, INPUT_MAX + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED)
		return -errno;
	guard_end = base + INPUT_MAX;
	return mprotect(guard_end, page, PROT_NONE) ? -errno : 0;
}

static void input_feed(const uint8_t *bytes, size_t size)
{
	uint8_t *at = guard_end - size;

	memcpy(at, bytes, size);
	LLVMFuzzerTestOneInput(at, size);
}

static int file_replay(const char *path)
{
	struct stat st;
	int rc = -1;
	uint8_t *bytes = NULL;
	FILE *file = fopen(path, "rb");

	if (!file || fstat(fileno(file), &st) || st.st_size < 0 || (size_t)st.st_size > INPUT_MAX) {
		fprintf(stderr, "replay: %s: %s\n", path, file ? "too large" : strerror(errno));
		goto out;
	}
	size_t size = (size_t)st.st_size;

	bytes = malloc(size ? size : 1);
	if (!bytes || fread(bytes, 1, size, file) != size) {
		fprintf(stderr, "replay: %s: cannot be read\n", path);
		goto out;
	}
	/* Named before it runs: when it crashes, the last line says which input it was. */
	printf("%s\n", path);
	fflush(stdout);
	input_feed(bytes, size);
	for (size_t n = 0; n < size && n < PREFIX_MAX; n++)
		input_feed(bytes, n);
	rc = 0;
out:
	if (file)
		fclose(file);
	free(bytes);
	return rc;
}

static int directory_replay(const char *path, unsigned *count, unsigned *failed)
{
	struct dirent **names = NULL;
	int n = scandir(path, &names, NULL, alphasort);

	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		char file[4096];
		struct stat st;

		if (snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name) < (int)sizeof(file) &&
		    names[i]->d_name[0] != '.' && !stat(file, &st) && S_ISREG(st.st_mode)) {
			(*count)++;
			if (file_replay(file))
				(*failed)++;
		}
		free(names[i]);
	}
	free(names);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned count = 0, failed = 0;
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash ? slash + 1 : argv[0];
	int length = (int)strcspn(name, ".");
	const char *root = "tests/fuzz";
	struct stat st;

	if (guard_init()) {
		fprintf(stderr, "replay: no memory for the guard page\n");
		return 1;
	}
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	if (argc > 1 && !stat(argv[1], &st) && S_ISDIR(st.st_mode)) {
		root = argv[1];
	} else if (argc > 1) {
		for (int i = 1; i < argc; i++, count++)
			if (file_replay(argv[i]))
				failed++;
		return failed != 0;
	}
	static const char *const kinds[] = {"in", "repro"};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		char path[4096];

		if (snprintf(path, sizeof(path), "%s/%.*s.%s", root, length, name, kinds[i]) < (int)sizeof(path))
			directory_replay(path, &count, &failed); /* either directory may be absent */
	}
	if (count == 0) {
		fprintf(stderr, "replay: no input in %s/%.*s.in or .repro\n", root, length, name);
		return 2;
	}
	printf("%u inputs\n", count);
	return failed != 0;
}
