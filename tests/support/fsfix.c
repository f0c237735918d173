#include "tests/support/fsfix.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "format/chunk_format.h"
#include "fs/inode.h"
#include "journal/internal.h"
#include "journal/journal.h"
#include "notify/poison_log.h"

static const char *fsfix_dir(void)
{
	const char *dir = getenv("TMPDIR");

	if (dir && dir[0])
		return dir;
	return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

static int fsfix_fail(int error, const char *what, const struct why *why)
{
	fprintf(stderr, "fsfix: %s: %s (%s)\n", what, strerror(-error), why ? why->text : "");
	return error;
}

/* --- layout ------------------------------------------------------------------------------------------------------------- */

/* Everything fixed sits in the 2 MiB pages behind superblock slots 0 and 1 of each half; large images get a large journal beyond the slots. */
static void fsfix_layout(struct super *super, devoff_t chunk[2])
{
	uint64_t half = round_down_u64(super->size_bytes / 2, HUGE_BYTES);
	bool large = super->size_bytes >= (128ull << 20);

	super->chunk_shift = large ? CHUNK_SHIFT_MAX : 18;
	for (unsigned copy = 0; copy < 2; copy++) {
		devoff_t base = copy * half;

		super->areas[AREA_FIXED].copy[copy] = base + 0x1d0000;
		super->areas[AREA_POISON_LOG].copy[copy] = base + 0x1e0000;
		super->areas[AREA_JOURNAL].copy[copy] = base + (large ? 20u << 20 : BLOCK_BYTES);
		chunk[copy] = base + (large ? 16u << 20 : HUGE_BYTES + 0x10000);
	}
	super->areas[AREA_FIXED].length_bytes = 0x10000;
	super->areas[AREA_POISON_LOG].length_bytes = POISON_LOG_BYTES;
	super->areas[AREA_JOURNAL].length_bytes = large ? 8u << 20 : JOURNAL_RING_MIN + BLOCK_BYTES;
}

static void fsfix_init_super(struct super *super, uint64_t size_bytes, devoff_t chunk[2])
{
	*super = (struct super){
		.version = FORMAT_VERSION,
		.label = "fsfix",
		.update = 1,
		.size_bytes = size_bytes,
		.copies = 2,
		.slots = (1u << SUPER_SLOTS) - 1,
		.device_count = 1,
		.mkfs_time_ns = 1700000000000000000ull,
		.mkfs_version = "fsfix",
	};
	for (unsigned i = 0; i < 16; i++) {
		super->meta_uuid[i] = (uint8_t)(0x10 + i);
		super->uuid[i] = (uint8_t)(0x30 + i);
		super->device_uuid[i] = (uint8_t)(0x50 + i);
		super->hash_seed[i] = (uint8_t)(0x70 + i);
	}
	fsfix_layout(super, chunk);
}

static int fsfix_write_super(struct media *media, const struct super *super)
{
	struct format_super raw;
	int error = 0;

	format_super_pack(&raw, super);
	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		error = media_write(media, super_slot_offset(slot), &raw, sizeof(raw), NULL);
	return error ? error : media_sync(media);
}

int fsfix_format_media(struct media *media)
{
	return fsfix_format_part(media, media_size(media));
}

int fsfix_format_part(struct media *media, uint64_t size_bytes)
{
	struct fs_format_options options = {.time_ns = 1700000000000000000ull};
	struct why why = {0};
	struct super super;
	int error;

	fsfix_init_super(&super, size_bytes, options.chunk);
	error = poison_log_format(media, &super);
	if (!error)
		error = journal_format(media, &super, options.chunk);
	if (!error)
		error = media_sync(media);
	if (!error)
		error = fs_format(media, &super, &options, &why);
	if (!error)
		error = fsfix_write_super(media, &super);
	return error ? fsfix_fail(error, "format", &why) : 0;
}

static int fsfix_format(const char *path, uint64_t size_bytes)
{
	struct media_options options = {.create_bytes = size_bytes};
	struct why why = {0};
	struct media *media;
	int error = media_open(path, &options, &why, &media), closed;

	if (error)
		return fsfix_fail(error, "open", &why);
	error = fsfix_format_media(media);
	closed = media_close(media);
	return error ? error : closed;
}

/* --- life ----------------------------------------------------------------------------------------------------------------- */

int fsfix_create(struct fsfix *fix, uint64_t size_bytes)
{
	int fd;

	memset(fix, 0, sizeof(*fix));
	fix->options.commit_seconds = 1;
	fix->options.cache_bytes = 16u << 20;
	snprintf(fix->path, sizeof(fix->path), "%s/mendfs-test-XXXXXX", fsfix_dir());
	fd = mkstemp(fix->path);
	if (fd < 0)
		return fsfix_fail(-errno, fix->path, NULL);
	if (ftruncate(fd, (off_t)size_bytes)) {
		close(fd);
		return fsfix_fail(-errno, fix->path, NULL);
	}
	close(fd);
	return fsfix_format(fix->path, size_bytes);
}

int fsfix_mount(struct fsfix *fix)
{
	struct why why = {0};
	int error = fs_mount(fix->path, &fix->options, &why, &fix->fs);

	return error ? fsfix_fail(error, "mount", &why) : 0;
}

int fsfix_create_mounted(struct fsfix *fix, uint64_t size_bytes)
{
	int error = fsfix_create(fix, size_bytes);

	return error ? error : fsfix_mount(fix);
}

int fsfix_unmount(struct fsfix *fix)
{
	int error = fs_unmount(fix->fs);

	fix->fs = NULL;
	return error ? fsfix_fail(error, "unmount", NULL) : 0;
}

int fsfix_remount(struct fsfix *fix)
{
	int error = fsfix_unmount(fix);

	return error ? error : fsfix_mount(fix);
}

static int copy_piece(int from, int to, off_t start, off_t end)
{
	char buffer[64 << 10];

	while (start < end) {
		ssize_t got = pread(from, buffer, min_u64(sizeof(buffer), (uint64_t)(end - start)), start);

		if (got <= 0)
			return got < 0 ? -errno : -EIO;
		if (pwrite(to, buffer, (size_t)got, start) != got)
			return -errno;
		start += got;
	}
	return 0;
}

static int copy_pieces(int from, int to, off_t size)
{
	off_t start = 0, end;
	int error = ftruncate(to, size) ? -errno : 0;

	while (!error && (start = lseek(from, start, SEEK_DATA)) >= 0) {
		end = lseek(from, start, SEEK_HOLE);
		error = copy_piece(from, to, start, end);
		start = end;
	}
	return error;
}

int fsfix_copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out = -1, error;
	struct stat st;

	if (in >= 0)
		out = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (in < 0 || out < 0 || fstat(in, &st))
		error = -errno;
	else
		error = copy_pieces(in, out, st.st_size);
	if (in >= 0)
		close(in);
	if (out >= 0)
		close(out);
	return error ? fsfix_fail(error, "copy", NULL) : 0;
}

int fsfix_crash(struct fsfix *fix)
{
	char copy[300];
	int error;

	snprintf(copy, sizeof(copy), "%s.crash", fix->path);
	/* All of it as of one moment: a checkpoint in the background would leave the first half as before, the second as after it. */
	journal_lock(fix->fs->journal);
	error = fsfix_copy_file(fix->path, copy);
	journal_unlock(fix->fs->journal);
	if (error)
		return error;
	fsfix_unmount(fix);
	if (rename(copy, fix->path))
		return fsfix_fail(-errno, "rename", NULL);
	return 0;
}

static void fsfix_tell(void *arg, const char *line)
{
	fprintf(stderr, "check: %s\n", line);
}

int fsfix_check(struct fsfix *fix)
{
	struct fs_check_totals totals;
	int error = fs_check(fix->fs, fsfix_tell, NULL, &totals);

	return error ? error : (int)totals.findings;
}

void fsfix_destroy(struct fsfix *fix)
{
	char poison[300];

	if (fix->fs)
		fsfix_unmount(fix);
	if (!fix->path[0])
		return;
	unlink(fix->path);
	snprintf(poison, sizeof(poison), "%s.poison", fix->path);
	unlink(poison);
	fix->path[0] = '\0';
}

/* --- names ---------------------------------------------------------------------------------------------------------------- */

static const struct fs_who fsfix_who = {.uid = 1000, .gid = 1000};

static int fsfix_make(struct fsfix *fix, inum_t dir, const char *name, mode_t mode, inum_t *ino)
{
	struct fs_attr attr;
	int error = fs_create(fix->fs, &fsfix_who, dir, name, mode, 0, &attr);

	if (error)
		return error;
	fs_forget(fix->fs, attr.ino, 1);
	*ino = attr.ino;
	return 0;
}

int fsfix_mkfile(struct fsfix *fix, inum_t dir, const char *name, inum_t *ino)
{
	return fsfix_make(fix, dir, name, S_IFREG | 0644, ino);
}

int fsfix_mkdir(struct fsfix *fix, inum_t dir, const char *name, inum_t *ino)
{
	return fsfix_make(fix, dir, name, S_IFDIR | 0755, ino);
}

int fsfix_lookup(struct fsfix *fix, inum_t dir, const char *name, struct fs_attr *attr)
{
	int error = fs_lookup(fix->fs, dir, name, attr);

	if (!error)
		fs_forget(fix->fs, attr->ino, 1);
	return error;
}
