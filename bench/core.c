#include "bench/core.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/log.h"

extern char **environ;
static char image[PATH_MAX];

const char *core_image(void)
{
	return image;
}

int core_fail(int error, const char *what)
{
	fprintf(stderr, "bench-core: %s: %s\n", what, strerror(-error));
	return error;
}

static void remove_image(void)
{
	if (image[0])
		unlink(image);
	image[0] = 0;
}

static int create_image(uint64_t size_bytes)
{
	const char *dir = getenv("TMPDIR");
	int fd, error = 0;

	snprintf(image, sizeof(image), "%s/mendfs-core-XXXXXX", dir && dir[0] ? dir : "/dev/shm");
	fd = mkstemp(image);
	if (fd < 0) {
		image[0] = 0;
		return -errno;
	}
	if (ftruncate(fd, (off_t)size_bytes))
		error = -errno;
	close(fd);
	return error;
}

/* The program beside this one. */
static int run_mkfs(void)
{
	char self[PATH_MAX - 32], program[PATH_MAX];
	char *argv[] = {program, "-q", image, NULL};
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int status;
	pid_t pid;

	if (length < 0)
		return -errno;
	self[length] = 0;
	snprintf(program, sizeof(program), "%s/mkfs.mendfs", dirname(self));
	status = posix_spawn(&pid, program, NULL, NULL, argv, environ);
	if (status)
		return -status;
	if (waitpid(pid, &status, 0) < 0)
		return -errno;
	return status ? -EIO : 0;
}

int core_open(const struct core_options *options, uint64_t size_bytes, struct fs **out)
{
	struct fs_options mount = {.cache_bytes = 256u << 20, .claim = true};
	struct why why;
	int error = create_image(size_bytes);

	if (error)
		return core_fail(error, "image");
	error = run_mkfs();
	if (error)
		return core_fail(error, "mkfs.mendfs");
	error = fs_mount(image, &mount, &why, out);
	return error ? core_fail(error, why.text) : 0;
}

int core_close(struct fs *fs)
{
	int error = fs_unmount(fs);

	remove_image();
	return error ? core_fail(error, "unmount") : 0;
}

/* --- the command line ----------------------------------------------------------------------------------------------------- */

static const struct section {
	const char *name;
	int (*run)(const struct core_options *options);
} sections[] = {{"operations", core_operations}, {"scaling", core_scaling}, {"owners", core_owners}, {"mount_time", core_mount_time}};

static const struct option long_options[] = {
	{"smoke", no_argument, NULL, 's'}, {"large", no_argument, NULL, 'l'}, {"json", no_argument, NULL, 'j'},
	{"paged", no_argument, NULL, 'p'}, {"rounds", required_argument, NULL, 'r'}, {"only", required_argument, NULL, 'o'},
	{NULL, 0, NULL, 0}};

static int usage(void)
{
	fprintf(stderr, "usage: bench-core [--rounds N] [--only SECTION] [--paged] [--large] [--json] [--smoke]\n"
			"  sections: operations, scaling, owners, mount_time\n"
			"  --paged   a plain file as such; else as on persistent memory\n"
			"  --large   owners among 10,000,000 records, 1,000,000 sharers, mount with 1,000,000 files: some minutes, 8 GiB\n");
	return 2;
}

static bool parse(int argc, char **argv, struct core_options *options, const char **only)
{
	int letter;

	while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (letter) {
		case 's': options->smoke = true; options->rounds = 1; break;
		case 'l': options->large = true; break;
		case 'j': options->json = true; break;
		case 'p': options->paged = true; break;
		case 'r': options->rounds = (unsigned)atoi(optarg); break;
		case 'o': *only = optarg; break;
		default: return false;
		}
	}
	return optind == argc && options->rounds && options->rounds <= CORE_ROUNDS_MAX;
}

static void end_by_signal(int number)
{
	unlink(image);
	_exit(1);
}

int main(int argc, char **argv)
{
	struct core_options options = {.rounds = 5};
	const char *only = NULL;
	int error = 0;

	if (!parse(argc, argv, &options, &only))
		return usage();
	if (options.paged)
		unsetenv("PMEM2_FORCE_GRANULARITY");
	else
		setenv("PMEM2_FORCE_GRANULARITY", "CACHE_LINE", 1);
	signal(SIGINT, end_by_signal);
	signal(SIGTERM, end_by_signal);
	atexit(remove_image);
	log_set_level(LOG_LEVEL_SILENT);
	if (options.json)
		printf("{\"version\": 1");
	for (unsigned i = 0; i < ARRAY_SIZE(sections) && !error; i++) {
		if (only && strcmp(only, sections[i].name))
			continue;
		if (options.json)
			printf(",\n\"%s\": ", sections[i].name);
		error = sections[i].run(&options);
		fflush(stdout);
	}
	if (options.json)
		printf("}\n");
	return error ? 1 : 0;
}
