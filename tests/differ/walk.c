/* Both trees, compared in step. */
#include <errno.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/differ/differ.h"

/* The same place on both sides. */
struct place {
	struct differ *d;
	int dir[SIDES];
	char path[1024];
};

/* Of both sides, one after the other; B's answer is after A's. */
struct pair {
	uint8_t *bytes[SIDES];
	size_t count[SIDES];
};

static struct pair pair_of(struct differ *d)
{
	struct pair pair = {{d->side[0].answer.bytes, d->side[1].answer.bytes}, {0, 0}};

	return pair;
}

static void pair_compare(struct place *p, const struct pair *pair, const char *name, const char *what)
{
	if (pair->count[0] == pair->count[1] && !memcmp(pair->bytes[0], pair->bytes[1], pair->count[0]))
		return;
	print_first_difference(stdout, pair->bytes[0], pair->bytes[1], pair->count[0], pair->count[1]);
	fail_tree(p->d, p->path, "%s: %s", name, what);
}

static void compare_facts(struct place *p, const char *name, struct stat st[SIDES])
{
	char facts[SIDES][256];

	for (unsigned side = 0; side < SIDES; side++) {
		if (fstatat(p->dir[side], name, &st[side], AT_SYMLINK_NOFOLLOW))
			fail_tree(p->d, p->path, "%s: %c: stat: %s", name, 'A' + side, strerror(errno));
		facts_of(p->d, &st[side], facts[side], sizeof(facts[side]));
	}
	if (strcmp(facts[0], facts[1]))
		fail_tree(p->d, p->path, "%s:\n  A: %s\n  B: %s", name, facts[0], facts[1]);
}

/* Names and values as text. */
static size_t attributes_of(int dir, const char *name, uint8_t *to)
{
	char list[8192], value[4096], sorted[8192];
	ssize_t size;
	size_t used = 0;

	if (fchdir(dir) || (size = llistxattr(name, list, sizeof(list))) < 0)
		return (size_t)sprintf((char *)to, "%s\n", strerror(errno));
	sorted[sort_names(list, (size_t)size, (uint8_t *)sorted, sizeof(sorted))] = 0;
	for (char *rest = sorted, *one; (one = strsep(&rest, "\n")) && *one;) {
		size = lgetxattr(name, one, value, sizeof(value));
		used += (size_t)sprintf((char *)to + used, "%s=%zd:", one, size);
		for (ssize_t i = 0; i < size; i++)
			used += (size_t)sprintf((char *)to + used, "%02x", (uint8_t)value[i]);
		used += (size_t)sprintf((char *)to + used, "\n");
	}
	return used;
}

static void compare_attributes(struct place *p, const char *name)
{
	struct pair pair = pair_of(p->d);

	for (unsigned side = 0; side < SIDES; side++)
		pair.count[side] = attributes_of(p->dir[side], name, pair.bytes[side]);
	pair_compare(p, &pair, name, "other attributes");
}

static void compare_target(struct place *p, const char *name)
{
	struct pair pair = pair_of(p->d);

	for (unsigned side = 0; side < SIDES; side++) {
		ssize_t got = readlinkat(p->dir[side], name, (char *)pair.bytes[side], BYTES_ROOM);

		pair.count[side] = got > 0 ? (size_t)got : 0;
	}
	pair_compare(p, &pair, name, "another target");
}

static void compare_content(struct place *p, const char *name, const int fd[SIDES], off_t size)
{
	struct pair pair = pair_of(p->d);

	for (off_t at = 0; at < size; at += BYTES_ROOM) {
		for (unsigned side = 0; side < SIDES; side++) {
			ssize_t got = pread(fd[side], pair.bytes[side], BYTES_ROOM, at);

			if (got < 0)
				fail_tree(p->d, p->path, "%s: %c: read: %s", name, 'A' + side, strerror(errno));
			pair.count[side] = (size_t)got;
		}
		pair_compare(p, &pair, name, "another content");
	}
}

/* A byte for each block: is there data? */
static size_t map_of(int fd, off_t size, uint8_t *to)
{
	size_t blocks = (size_t)((size + PAGE - 1) / PAGE);
	off_t data = 0, hole;

	if (blocks > BYTES_ROOM)
		blocks = BYTES_ROOM;
	memset(to, '.', blocks);
	while ((data = lseek(fd, data, SEEK_DATA)) >= 0 && (hole = lseek(fd, data, SEEK_HOLE)) > data) {
		for (off_t block = data / PAGE; block * PAGE < hole && block < (off_t)blocks; block++)
			to[block] = 'D';
		data = hole;
	}
	return blocks;
}

static void compare_maps(struct place *p, const char *name, const int fd[SIDES], const struct stat *st)
{
	struct pair pair = pair_of(p->d);

	for (unsigned side = 0; side < SIDES; side++) {
		forget_pages(fd[side]);
		pair.count[side] = map_of(fd[side], st->st_size, pair.bytes[side]);
	}
	for (size_t i = 0; i < pair.count[1]; i++)
		if (pair.bytes[0][i] == '.') /* contents are the same, so what B has is zeros: allowed.c */
			pair.bytes[1][i] = '.';
	pair_compare(p, &pair, name, "other holes, by blocks");
}

static void compare_files(struct place *p, const char *name, const struct stat *st)
{
	int fd[SIDES];

	for (unsigned side = 0; side < SIDES; side++) {
		fd[side] = openat(p->dir[side], name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd[side] < 0)
			fail_tree(p->d, p->path, "%s: %c: open: %s", name, 'A' + side, strerror(errno));
	}
	compare_content(p, name, fd, st->st_size);
	if (!p->d->is_writeback)
		compare_maps(p, name, fd, st);
	for (unsigned side = 0; side < SIDES; side++)
		close(fd[side]);
	p->d->bytes_seen += (uint64_t)st->st_size;
}

static void compare_directories(struct place *p);

static void compare_below(const struct place *p, const char *name)
{
	struct place below = {.d = p->d};

	snprintf(below.path, sizeof(below.path), "%.700s/%.300s", p->path, name);
	for (unsigned side = 0; side < SIDES; side++) {
		below.dir[side] = openat(p->dir[side], name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below.dir[side] < 0)
			fail_tree(p->d, p->path, "%s: %c: open: %s", name, 'A' + side, strerror(errno));
	}
	compare_directories(&below);
	for (unsigned side = 0; side < SIDES; side++)
		close(below.dir[side]);
}

static void compare_inodes(struct place *p, const char *name)
{
	struct stat st[SIDES];

	compare_facts(p, name, st);
	compare_attributes(p, name);
	if (S_ISLNK(st[0].st_mode))
		compare_target(p, name);
	else if (S_ISREG(st[0].st_mode))
		compare_files(p, name, &st[0]);
	else if (S_ISDIR(st[0].st_mode) && strcmp(name, "."))
		compare_below(p, name);
}

static void compare_directories(struct place *p)
{
	struct pair pair = pair_of(p->d);
	char *names, *rest, *line;

	for (unsigned side = 0; side < SIDES; side++)
		if (list_directory(p->dir[side], pair.bytes[side], BYTES_ROOM, &pair.count[side]) < 0)
			fail_tree(p->d, p->path, "%c: cannot be listed", 'A' + side);
	pair_compare(p, &pair, ".", "other names");
	names = rest = strndup((char *)pair.bytes[0], pair.count[0]);
	while ((line = strsep(&rest, "\n")) && *line) {
		*strchr(line, ':') = 0;
		if (strcmp(line, ".."))
			compare_inodes(p, line);
	}
	free(names);
}

void walk(struct differ *d)
{
	struct place top = {d, {d->side[0].top, d->side[1].top}, "."};

	become(0);
	d->bytes_seen = 0;
	d->count_walks++;
	compare_directories(&top);
}

static void wipe_below(struct differ *d, int dir)
{
	uint8_t *bytes = malloc(1 << 16);
	size_t count;
	char *rest = (char *)bytes, *line;

	if (!bytes || list_directory(dir, bytes, 1 << 16, &count) < 0)
		fail_tree(d, "?", "cannot be listed for removal");
	while ((line = strsep(&rest, "\n")) && *line) {
		int below;

		*strchr(line, ':') = 0;
		if (!strcmp(line, ".") || !strcmp(line, "..") || !unlinkat(dir, line, 0))
			continue;
		below = openat(dir, line, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		wipe_below(d, below);
		close(below);
		if (unlinkat(dir, line, AT_REMOVEDIR))
			fail_tree(d, line, "cannot be removed: %s", strerror(errno));
	}
	free(bytes);
}

void wipe(struct differ *d)
{
	for (unsigned side = 0; side < SIDES; side++)
		wipe_below(d, d->side[side].top);
}
