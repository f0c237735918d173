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

/* Where A has data B has some too, never the other way round (the walk has the same rule). Nothing found: the end of the file. */
static bool is_hole_of_zeros(const struct differ *d, const struct op *op)
{
	const struct answer *a = &d->side[0].answer, *b = &d->side[1].answer;

	if (op->kind->apply != apply_seek_data || (b->error && !d->is_writeback))
		return false;
	if (d->is_writeback)
		return true;
	return op->flags == SEEK_DATA ? a->error == ENXIO || a->value > b->value : !a->error && a->value < b->value;
}

/* POSIX allows either, for rmdir and rename. */
static bool is_not_empty(const struct differ *d, const struct op *op)
{
	return op->kind->apply == apply_rename && d->side[0].answer.error == ENOTEMPTY && d->side[1].answer.error == EEXIST;
}

static struct {
	const char *what;
	const char *why;
	bool (*is_it)(const struct differ *, const struct op *);
	unsigned long count;
} table[] = {
	{"positions in directories", "cookies of the filesystem's own; only 0 means the same everywhere", directory_position, 0},
	{"a directory that is not empty", "XFS says EEXIST when it is to be renamed over, ext4 and mendfs ENOTEMPTY", is_not_empty, 0},
	{"XATTR_CREATE with XATTR_REPLACE", "XFS takes it for neither, ext4 and mendfs find no attribute that fits", NULL, 0},
	{"holes where the other has zeros",
	 "copy_file_range shares blocks and leaves holes, ext4 copies zeros (XFS where it cannot share); ext4 writes zeros beside what is written, into preallocated or "
	 "punched blocks of one folio, and where ZERO_RANGE covers a block in part. Never the other way round",
	 is_hole_of_zeros, 0},
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
	{"group of whiteouts (--xfs)", "XFS makes them before it knows their directory; it is set on both sides", NULL, 0},
	{"truncate(2) of an empty file to nothing (--xfs)", "XFS does not even move a time then; it is not done", NULL, 0},
	{"mtime of a directory that moves (--xfs)", "XFS counts the change of its \"..\"; it is touched on both sides", NULL, 0},
	{"mtime of fifos", "the kernel does not tell a FUSE server that one was written to", NULL, 0},
	{"atime", "both are mounted noatime; the kernel leaves atimes of FUSE inodes to the daemon, which sees only reads that it serves", NULL, 0},
	{"COLLAPSE_RANGE, INSERT_RANGE, UNSHARE_RANGE", "the kernel does not pass them to a FUSE server", NULL, 0},
	{"long targets of symbolic links (--xfs)", "XFS stores 1,023 bytes, ext4 and mendfs 4,095", NULL, 0},
	{"trusted.SGI_ACL_FILE, trusted.SGI_ACL_DEFAULT", "XFS shows its ACLs by these names too", NULL, 0},
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
