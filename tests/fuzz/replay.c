/* Runs a target over files, for compilers without libFuzzer: replay FILE|FOLDER... */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/mutator.h"

#define INPUT_BYTES_MAX (1u << 20)

static unsigned count_inputs;
static char current[4096]; /* told when the input ends the program */

static void tell_current(void)
{
	if (current[0])
		fprintf(stderr, "the input was %s\n", current);
}

/* A copy of exactly its length, so that a read past it is seen. */
static int run_file(const char *path)
{
	static uint8_t buffer[INPUT_BYTES_MAX];
	FILE *file = fopen(path, "rb");
	size_t length;
	uint8_t *data;

	if (!file)
		return 1;
	length = fread(buffer, 1, sizeof(buffer), file);
	fclose(file);
	data = malloc(length);
	if (!data && length)
		return 1;
	if (length)
		memcpy(data, buffer, length);
	snprintf(current, sizeof(current), "%s", path);
	LLVMFuzzerTestOneInput(data, length);
	current[0] = '\0';
	free(data);
	count_inputs++;
	return 0;
}

static int run_folder(const char *path)
{
	DIR *folder = opendir(path);
	struct dirent *entry;
	char file[4096];
	int failed = 0;

	if (!folder)
		return 1;
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		failed |= run_file(file);
	}
	closedir(folder);
	return failed;
}

int main(int argc, char **argv)
{
	struct timespec begin, end;
	struct stat st;
	int failed = 0;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	atexit(tell_current);
	LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++) {
		int error = stat(argv[i], &st);

		if (!error)
			error = S_ISDIR(st.st_mode) ? run_folder(argv[i]) : run_file(argv[i]);
		if (error)
			fprintf(stderr, "FAIL: %s cannot be read\n", argv[i]);
		failed |= error;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("sample: %u inputs replayed by %s\n", count_inputs, strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0]);
	printf("Ran 1 test in %.1fs\n", (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
	return failed || !count_inputs ? EXIT_FAILURE : EXIT_SUCCESS;
}
