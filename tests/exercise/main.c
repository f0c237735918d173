/*
 * exercise DIR STATE [--ops N] [--max BYTES] [--full]: random operations on two files in DIR, each answer compared with a model. MENDFS_SEED is the seed. STATE holds the
 * model between runs (made if it is not there), so that whoever calls can remount in between. --full: ENOSPC is an answer like any other. Exit 1 when something is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/exercise/file.h"

static void state_load(struct exercise *x, const char *path)
{
	FILE *file = fopen(path, "rb");

	for (unsigned i = 0; file && i < FILES; i++) {
		struct file *f = &x->files[i];

		if (fread(&f->size, sizeof(f->size), 1, file) != 1 || f->size > x->max || fread(f->model, 1, f->size, file) != f->size)
			fail(x, "%s: not a state of this program", path);
	}
	if (file)
		fclose(file);
}

static void state_save(struct exercise *x, const char *path)
{
	FILE *file = fopen(path, "wb");

	for (unsigned i = 0; file && i < FILES; i++)
		if (fwrite(&x->files[i].size, sizeof(size_t), 1, file) != 1 || fwrite(x->files[i].model, 1, x->files[i].size, file) != x->files[i].size)
			fail(x, "%s: cannot be written", path);
	if (!file || fclose(file))
		fail(x, "%s: cannot be written", path);
}

static void begin(struct exercise *x, const char *dir, const char *state)
{
	for (unsigned i = 0; i < FILES; i++) {
		struct file *f = &x->files[i];

		f->name = (char)('a' + i);
		snprintf(f->path, sizeof(f->path), "%s/exercise-%c", dir, f->name);
		f->model = calloc(1, x->max);
	}
	if (posix_memalign((void **)&x->buffer, PAGE, x->max))
		exit(2);
	state_load(x, state);
	for (unsigned i = 0; i < FILES; i++) {
		file_open(x, &x->files[i], true);
		file_compare_all(x, &x->files[i]);
	}
}

/* Everything must be on the medium now: the caller may kill the daemon. */
static void end(struct exercise *x, const char *state)
{
	for (unsigned i = 0; i < FILES; i++) {
		file_compare_all(x, &x->files[i]);
		if (fsync(x->files[i].fd))
			fail(x, "fsync: %s", strerror(errno));
		file_close(x, &x->files[i]);
	}
	state_save(x, state);
	for (unsigned i = 0; i < FILES; i++)
		free(x->files[i].model);
	free(x->buffer);
	printf("sample: exercise:");
	for (unsigned i = 0; exercise_op_name(i); i++)
		printf(" %s %lu", exercise_op_name(i), x->count[i]);
	printf("\n");
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"ops", 1, NULL, 'n'}, {"max", 1, NULL, 'm'}, {"full", 0, NULL, 'f'}, {NULL, 0, NULL, 0}};
	struct exercise x = {.max = 600 * PAGE};
	unsigned long count = 1000;
	int flag;

	while ((flag = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (flag == 'n')
			count = strtoul(optarg, NULL, 0);
		else if (flag == 'm')
			x.max = strtoul(optarg, NULL, 0) / PAGE * PAGE;
		else if (flag == 'f')
			x.no_space_is_fine = true;
		else
			return 2;
	}
	if (argc - optind != 2 || x.max < 400 * PAGE)
		return 2;
	x.random = random_start("exercise");
	begin(&x, argv[optind], argv[optind + 1]);
	for (x.op = 1; x.op <= count; x.op++)
		exercise_step(&x);
	end(&x, argv[optind + 1]);
	return 0;
}
