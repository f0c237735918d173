/*
 * Everything in which mendfs may differ from ext4 or XFS, and why. Those with a function are recognised when they happen and counted; the others are what is never
 * asked for or never compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "tests/differ/differ.h"

static bool slot_is_directory(const struct differ *d, unsigned slot)
{
	struct stat st;

	return !fstat(slot_fd(&d->side[0], slot), &st) && S_ISDIR(st.st_mode);
}

static bool directory_position(const struct differ *d, const struct op *op)
{
	return (op->kind->apply == apply_lseek || op->kind->apply == apply_seek_data) && slot_is_directory(d, op->slot[0]);
}

/* That A has a hole and B zeros, and never the other way round, is seen by the walk. */
static bool is_loose_hole(const struct differ *d, const struct op *op)
{
	struct stat st;

	if (op->kind->apply != apply_seek_data || fstat(slot_fd(&d->side[0], op->slot[0]), &st))
		return false;
	return d->is_writeback || is_loosened(d, st.st_ino);
}

static struct {
	const char *what;
	const char *why;
	bool (*is_it)(const struct differ *, const struct op *);
	unsigned long count;
} table[] = {
	{"positions in directories", "cookies of the filesystem's own; only 0 means the same everywhere", directory_position, 0},
	{"holes of a copy, and where space was preallocated",
	 "copy_file_range shares blocks and leaves holes, ext4 copies zeros (XFS where it cannot share); ext4 writes zeros beside what is written into preallocated "
	 "blocks, and into those that ZERO_RANGE covers in part. Never the other way round",
	 is_loose_hole, 0},
	{"mtime after truncate(2) to the same size, with -o writeback", "the kernel keeps that time by itself then, and moves it only with the size; the file is touched",
	 NULL, 0},
	{"st_ino, st_dev, st_blksize", "numbers of the filesystem's own", NULL, 0},
	{"st_size of directories", "ext4 counts its blocks, XFS its records, mendfs none", NULL, 0},
	{"st_blocks", "ext4 counts its extent tree and attribute block too, and only what has been written back", NULL, 0},
	{"times that nobody set", "A is done before B; compared is whether they are of this run (\"now\") or still what utimensat set", NULL, 0},
	{"chown(-1, -1) of setuid files", "the kernel asks a FUSE server to change nothing, without saying why, as it does before some writes, and does not refuse strangers", NULL, 0},
	{"setuid, setgid (--no-setid)", "libfuse before 3.18 does not pass on that a write clears them: the kernel does so then, not quite as it does elsewhere", NULL, 0},
	{"O_TMPFILE (--no-tmpfile)", "libfuse before 3.17 has it not", NULL, 0},
	{"ACL of whiteouts", "ext4 lets what rename leaves inherit the directory's default ACL, XFS does not; it is removed", NULL, 0},
	{"mtime after a RENAME_WHITEOUT that failed", "ext4 has put the whiteout there and taken it back; the directory is touched on both sides", NULL, 0},
	{"mtime of fifos", "the kernel does not tell a FUSE server that one was written to", NULL, 0},
	{"atime", "both are mounted noatime; the kernel leaves atimes of FUSE inodes to the daemon, which sees only reads that it serves", NULL, 0},
	{"COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE", "the kernel does not pass them to a FUSE server", NULL, 0},
	{"large values of attributes, many of them", "ext4 has one block for those of an inode; mendfs has 64 KiB for each", NULL, 0},
	{"times outside 1901 to 2446", "ext4 cannot store them", NULL, 0},
	{"holes with -o writeback (--writeback)", "the kernel does not ask the daemon: docs/STATUS.md", NULL, 0},
	{"holes before what is dirty is written", "the kernel asks the daemon without handing over what a mapping changed: docs/STATUS.md; pages are written first", NULL, 0},
};

bool difference_is_allowed(struct differ *d, const struct op *op)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].is_it && table[i].is_it(d, op)) {
			table[i].count++;
			return true;
		}
	return false;
}

void differences_print(void)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (table[i].is_it)
			printf("allowed %lu times: ", table[i].count);
		else
			printf("not compared: ");
		printf("%s: %s\n", table[i].what, table[i].why);
	}
}

bool is_loosened(const struct differ *d, ino_t ino)
{
	for (size_t i = 0; i < d->count_loose; i++)
		if (d->loose[i] == ino)
			return true;
	return false;
}

/* mendfs never uses a number again. */
void loosen(struct differ *d, ino_t ino)
{
	if (is_loosened(d, ino))
		return;
	d->loose = realloc(d->loose, (d->count_loose + 1) * sizeof(ino));
	if (!d->loose)
		abort();
	d->loose[d->count_loose++] = ino;
}
