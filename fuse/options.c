#include "fuse/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "media/claim.h"
#include "util/types.h"

void options_usage(const char *program)
{
	printf("usage: %s SOURCE DIR [options]\n"
	       "\n"
	       "Mount the mendfs filesystem on SOURCE (a device-dax device such as /dev/dax0.0, an image file, or a block device) at DIR.\n"
	       "\n"
	       "  -f, --foreground   stay in the foreground, log to stderr\n"
	       "  -d, --debug        as -f, and show every request\n"
	       "  -o OPTION[,...]    mount options:\n"
	       "       ro, rw             read-only (not one byte is written), or read-write (default)\n"
	       "       commit=SECONDS     plain files: how often everything is made durable (default 1)\n"
	       "       cache=BYTES[KMG]   limit of the metadata cache (default 1/64 of RAM)\n"
	       "       [no]allow_other    let other users in (default for root)\n"
	       "       [no]suid, [no]dev  honour setuid bits, device nodes (default for root: yes)\n"
	       "       relatime, noatime, strictatime, nodiratime\n"
	       "                          when reading a file sets its access time (default relatime)\n"
	       "       remount            change ro, rw, [no]suid, [no]dev, [no]exec, [no]sync of a mount that is up\n"
	       "       writeback          let the kernel gather writes (a crash of the daemon loses what it holds)\n"
	       "       no_open            open and close files without asking the daemon (see mendfs(8) for what that costs)\n"
	       "       no_io_uring        read and write /dev/fuse even where FUSE over io_uring is available\n"
	       "       no_fuseblk         mount a block device as a file is, without an umount and a sync that wait\n"
	       "       no_sched_idle      never let the io_uring threads be of the class SCHED_IDLE\n"
	       "  -h, --help         this text\n"
	       "  -V, --version      the version\n"
	       "\n"
	       "Unmount with: umount DIR, or fusermount3 -u DIR. See mendfs(8).\n",
	       program);
}

static int parse_bytes(const char *text, uint64_t *out)
{
	char *end;
	unsigned long long value;
	unsigned shift = 0;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 10);
	switch (*end) {
	case 'K': case 'k': shift = 10; end++; break;
	case 'M': case 'm': shift = 20; end++; break;
	case 'G': case 'g': shift = 30; end++; break;
	}
	if (errno || *end || value > (UINT64_MAX >> shift))
		return -EINVAL;
	*out = (uint64_t)value << shift;
	return 0;
}

enum { KEY_OTHER = FUSE_OPT_KEY_OPT, KEY_IO_URING, KEY_ALLOW_OTHER, KEY_NOALLOW_OTHER, KEY_COMMIT, KEY_CACHE, KEY_WRITEBACK, KEY_NO_OPEN, KEY_NO_URING,
       KEY_NO_SCHED_IDLE, KEY_NO_FUSEBLK };

static const struct fuse_opt option_keys[] = {
	FUSE_OPT_KEY("allow_other", KEY_ALLOW_OTHER),
	FUSE_OPT_KEY("noallow_other", KEY_NOALLOW_OTHER),
	FUSE_OPT_KEY("commit=", KEY_COMMIT),
	FUSE_OPT_KEY("cache=", KEY_CACHE),
	FUSE_OPT_KEY("writeback", KEY_WRITEBACK),
	FUSE_OPT_KEY("no_open", KEY_NO_OPEN),
	FUSE_OPT_KEY("no_fuseblk", KEY_NO_FUSEBLK),
	FUSE_OPT_KEY("io_uring", KEY_IO_URING),
	FUSE_OPT_KEY("no_io_uring", KEY_NO_URING),
	FUSE_OPT_KEY("no_sched_idle", KEY_NO_SCHED_IDLE),
	FUSE_OPT_END,
};

/* What libfuse knows and an administrator may want; everything else is refused, by name. */
static const char *const libfuse_names[] = {"debug", "allow_root", "auto_unmount"};
static const char *const libfuse_prefixes[] = {
	"fsname=", "subtype=", "max_read=", "context=", "fscontext=", "defcontext=", "rootcontext=", "io_uring_q_depth=",
};

struct parse {
	struct options *options;
	struct why *why;
};

static int set_number(struct parse *parse, const char *arg, uint64_t max, uint64_t *out)
{
	const char *text = strchr(arg, '=') + 1;

	if (!parse_bytes(text, out) && *out > 0 && *out <= max)
		return 0;
	why_set(parse->why, -EINVAL, "option %s: not a number from 1 to %llu", arg, (unsigned long long)max);
	return -1;
}

/* It goes on to libfuse; what we must know too is kept. */
static int take_of_libfuse(struct parse *parse, const char *arg)
{
	uint64_t depth;

	if (strncmp(arg, "io_uring_q_depth=", 17))
		return 1;
	if (set_number(parse, arg, 1024, &depth))
		return -1;
	parse->options->ring_depth = (unsigned)depth;
	return 1;
}

static int take_other(struct parse *parse, const char *arg)
{
	if (vfs_option_take(&parse->options->vfs, arg))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(libfuse_names); i++)
		if (!strcmp(arg, libfuse_names[i]))
			return 1;
	for (size_t i = 0; i < ARRAY_SIZE(libfuse_prefixes); i++)
		if (!strncmp(arg, libfuse_prefixes[i], strlen(libfuse_prefixes[i])))
			return take_of_libfuse(parse, arg);
	why_set(parse->why, -EINVAL, "-o %s is no option of a mendfs mount; see mendfs(8) or mendfs --help", arg);
	return -1;
}

/* libfuse's convention: 0 takes the option away, 1 leaves it to libfuse, -1 is an error. */
static int take_option(void *data, const char *arg, int key, struct fuse_args *outargs)
{
	struct parse *parse = data;
	struct options *options = parse->options;
	uint64_t number;

	switch (key) {
	case KEY_ALLOW_OTHER:
	case KEY_NOALLOW_OTHER:
		options->allow_other = key == KEY_ALLOW_OTHER;
		return 0;
	case KEY_WRITEBACK:
		options->writeback = true;
		return 0;
	case KEY_NO_OPEN:
		options->no_open = true;
		return 0;
	case KEY_NO_SCHED_IDLE:
		options->no_sched_idle = true;
		return 0;
	case KEY_NO_FUSEBLK:
		options->no_fuseblk = true;
		return 0;
	case KEY_NO_URING:
		options->no_uring = true;
		return 0;
	case KEY_COMMIT:
		if (set_number(parse, arg, 3600, &number))
			return -1;
		options->commit_seconds = (unsigned)number;
		return 0;
	case KEY_CACHE:
		return set_number(parse, arg, 1ull << 50, &options->cache_bytes);
	case KEY_IO_URING:
		options->no_uring = false;
		return 0;
	default:
		return take_other(parse, arg);
	}
}

static int add_source(struct options *options)
{
	char *name = NULL;
	char *list = NULL;
	size_t length = strlen(options->source) + sizeof("fsname=");
	int rc = -ENOMEM;

	name = malloc(length);
	if (!name)
		return -ENOMEM;
	snprintf(name, length, "fsname=%s", options->source);
	/* Escaped: a comma in the name is part of the name. */
	if (!fuse_opt_add_opt_escaped(&list, name) && !fuse_opt_add_opt(&list, "subtype=mendfs,default_permissions") &&
	    !fuse_opt_insert_arg(&options->args, 1, "-o") && !fuse_opt_insert_arg(&options->args, 2, list))
		rc = 0;
	free(list);
	free(name);
	return rc;
}

static int add_finals(struct options *options)
{
	if (add_source(options) || vfs_options_emit(&options->vfs, &options->args))
		return -ENOMEM;
	if (options->allow_other && fuse_opt_add_arg(&options->args, "-oallow_other"))
		return -ENOMEM;
	if (options->debug && fuse_opt_add_arg(&options->args, "-d"))
		return -ENOMEM;
	return 0;
}

/* mount(8) calls /sbin/mount.TYPE SOURCE DIR [-sfnv] [-N ns] [-o options] [-t type], where -f means: fake. */
static int take_flag(struct options *options, bool from_mount, int flag)
{
	switch (flag) {
	case 'f':
		*(from_mount ? &options->fake : &options->foreground) = true;
		return 0;
	case 'd':
		options->debug = options->foreground = true;
		return 0;
	case 'r':
		return fuse_opt_add_arg(&options->args, "-oro") ? -ENOMEM : 0;
	case 'w':
		return fuse_opt_add_arg(&options->args, "-orw") ? -ENOMEM : 0;
	case 'o':
		return fuse_opt_add_arg(&options->args, "-o") || fuse_opt_add_arg(&options->args, optarg) ? -ENOMEM : 0;
	case 'h':
		options->help = true;
		return 0;
	case 'V':
		options->version = true;
		return 0;
	case 's': case 'n': case 'v': case 't': case 'N':
		return from_mount ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

static int take_arguments(struct options *options, int argc, char **argv, struct why *why)
{
	static const struct option longs[] = {
		{"foreground", no_argument, NULL, 'f'}, {"debug", no_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},	{NULL, 0, NULL, 0},
	};
	const char *base = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	bool from_mount = !strncmp(base, "mount.", 6);
	int flag, error;

	opterr = 0;
	while ((flag = getopt_long(argc, argv, from_mount ? "fdrwo:hVsnvt:N:" : "fdrwo:hV", longs, NULL)) != -1) {
		error = take_flag(options, from_mount, flag);
		if (error)
			return why_set(why, error, "unknown option %s; see %s --help", argv[optind - 1], base);
	}
	if (options->help || options->version)
		return 1;
	if (argc - optind != 2)
		return why_set(why, -EINVAL, "usage: %s SOURCE DIR [-o OPTIONS]; see %s --help", base, base);
	options->source = strdup(argv[optind]);
	return options->source ? 0 : -ENOMEM;
}

static int check_mountpoint(struct options *options, const char *dir, struct why *why)
{
	struct stat st;
	int error = claim_check_mountpoint(dir, why);

	if (error)
		return error;
	if (stat(dir, &st))
		return why_set(why, -errno, "%s: %s; the mount point must be an existing directory", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return why_set(why, -ENOTDIR, "%s is not a directory; the mount point must be one", dir);
	options->mountpoint = realpath(dir, NULL);
	return options->mountpoint ? 0 : why_set(why, -errno, "%s: %s", dir, strerror(errno));
}

int options_parse(int argc, char **argv, struct options *options, struct why *why)
{
	struct parse parse = {options, why};
	int error;

	/* What a kernel filesystem mounted by root does by itself, an ordinary user's may not. */
	*options = (struct options){.allow_other = geteuid() == 0, .vfs.flags = geteuid() == 0 ? 0 : MS_NOSUID | MS_NODEV};
	why->text[0] = '\0';
	if (fuse_opt_add_arg(&options->args, "mendfs"))
		return -ENOMEM;
	error = take_arguments(options, argc, argv, why);
	if (error)
		return error;
	if (fuse_opt_parse(&options->args, &parse, option_keys, take_option))
		return why->text[0] ? -EINVAL : why_set(why, -EINVAL, "options are wrong; see mendfs --help");
	error = add_finals(options);
	if (error)
		return why_set(why, error, "out of memory");
	return check_mountpoint(options, argv[optind + 1], why);
}

void options_free(struct options *options)
{
	free(options->source);
	free(options->mountpoint);
	fuse_opt_free_args(&options->args);
}
