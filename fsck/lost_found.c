/* /lost+found, and directories that are not below the root. */
#include "fsck/records.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/dir.h"
#include "journal/root.h"

#define NAME_TRIES 64

/* The inode of a name in a directory; -ENOENT. */
static int name_find(struct records *records, inum_t dir, const char *name, inum_t *out)
{
	struct dir_entry entry;
	int error;

	records_read_begin(records);
	error = dir_lookup_entry(records->fs, dir, name, &entry);
	records_read_end(records);
	if (!error)
		*out = entry.record.ino;
	return error;
}

static int name_add(struct records *records, inum_t dir, const char *name, inum_t ino, const struct inode_record *record)
{
	struct dir_entry entry = {
		.record = {
			.ino = ino, .generation = record->generation, .type = dir_type_of_mode(record->mode), .name_length = (uint8_t)strlen(name),
		},
	};
	int error = records_change(records);

	memcpy(entry.record.name, name, strlen(name) + 1);
	return error ? error : dir_insert_entry(records->fs, records->tx, dir, &entry);
}

/* The counts of the root directory are settled later, as those of all inodes. */
static int lost_found_make(struct records *records, const char *name)
{
	uint64_t now = time_now_ns();
	struct inode_record record = {
		.mode = S_IFDIR | 0700, .nlink = 2, .generation = (uint32_t)(now / 1000000000u) | 1, .parent = FS_ROOT_INO,
	};
	int error = records_change(records);

	if (error)
		return error;
	record.ctime.sec = (int64_t)(now / 1000000000u);
	record.ctime.nsec = (uint32_t)(now % 1000000000u);
	record.atime = record.mtime = record.btime = record.ctime;
	records->lost_found = root_get(records->fs->journal, ROOT_NEXT_INO);
	error = root_add(records->tx, ROOT_NEXT_INO, 1);
	if (!error)
		error = records_put_inode(records, records->lost_found, &record);
	return error ? error : name_add(records, FS_ROOT_INO, name, records->lost_found, &record);
}

/* Something of that name that is no directory stays as it is. */
static int lost_found_get(struct records *records)
{
	struct inode_record record;
	char name[32] = "lost+found";
	int error = 0;

	for (unsigned i = 1; !records->lost_found && i < NAME_TRIES; i++) {
		inum_t ino;

		error = name_find(records, FS_ROOT_INO, name, &ino);
		if (error == -ENOENT)
			return lost_found_make(records, name);
		if (!error)
			error = records_load_inode(records, ino, &record);
		if (error && error != -ENOENT)
			return error;
		if (!error && S_ISDIR(record.mode))
			records->lost_found = ino;
		snprintf(name, sizeof(name), "lost+found-%u", i);
	}
	return records->lost_found ? 0 : -EEXIST;
}

int lost_found_add(struct records *records, inum_t ino, const struct inode_record *record)
{
	int error = lost_found_get(records);
	char name[48];

	for (unsigned i = 0; !error && i < NAME_TRIES; i++) {
		inum_t there;

		if (i)
			snprintf(name, sizeof(name), "%llu-%u", (unsigned long long)ino, i);
		else
			snprintf(name, sizeof(name), "%llu", (unsigned long long)ino);
		error = name_find(records, records->lost_found, name, &there);
		if (!error && there == ino)
			return 0;
		if (error != -ENOENT)
			continue;
		error = name_add(records, records->lost_found, name, ino, record);
		if (error)
			return error;
		records->repair->report->lost_found++;
		records_tell(records, RECORD_LOST_FOUND, "inode %llu: is /lost+found/%s", (unsigned long long)ino, name);
		return 0;
	}
	return error ? error : -EEXIST;
}

/* --- connections ------------------------------------------------------------------------------------------------------------------------------- */

enum dir_state { DIR_UNSEEN, DIR_ON_WAY, DIR_CONNECTED };

struct dir_link { /* a directory's one name */
	inum_t ino, parent;
	uint64_t cookie;
	uint8_t state;
};
struct dir_links {
	struct dir_link *list;
	size_t count, capacity;
};

static int links_take(struct dir_links *links, const struct cursor_record *record)
{
	struct dirent_record entry;
	struct dir_link *link;
	int error = format_dirent_unpack(&entry, record->value, record->length);

	if (error || entry.type != dir_type_of_mode(S_IFDIR))
		return error;
	link = records_grow((void **)&links->list, &links->count, &links->capacity, sizeof(*link));
	if (!link)
		return -ENOMEM;
	*link = (struct dir_link){.ino = entry.ino, .parent = record->key.word[0], .cookie = record->key.word[1]};
	return 0;
}

static int link_compare(const void *a, const void *b)
{
	const struct dir_link *x = a, *y = b;

	return (x->ino > y->ino) - (x->ino < y->ino);
}

static int links_load(struct records *records, struct dir_links *links)
{
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, &records->fs->dirents), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = links_take(links, &record);
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	if (links->count)
		qsort(links->list, links->count, sizeof(*links->list), link_compare);
	return error ? error : got;
}

static struct dir_link *link_find(struct dir_links *links, inum_t ino)
{
	const struct dir_link key = {.ino = ino};

	return links->count ? bsearch(&key, links->list, links->count, sizeof(key), link_compare) : NULL;
}

static int link_cut(struct records *records, struct dir_link *link)
{
	struct inode_record record;
	int error = records_load_inode(records, link->ino, &record);

	records_tell(records, RECORD_NAME_DROPPED, "directory %llu: is below itself, its name in directory %llu removed",
		     (unsigned long long)link->ino, (unsigned long long)link->parent);
	if (!error)
		error = names_remove(records, link->ino, link->parent, link->cookie);
	if (!error)
		error = lost_found_add(records, link->ino, &record);
	link->parent = FS_ROOT_INO;
	return error;
}

/* Up to the root, or to what is known to be below it; a way that meets itself is cut there. */
static int link_connect(struct records *records, struct dir_links *links, struct dir_link *from)
{
	struct dir_link *at = from, *meets;

	while (at && at->state == DIR_UNSEEN) {
		at->state = DIR_ON_WAY;
		at = at->parent == FS_ROOT_INO ? NULL : link_find(links, at->parent);
	}
	meets = at && at->state == DIR_ON_WAY ? at : NULL;
	for (at = from; at && at->state == DIR_ON_WAY; at = at->parent == FS_ROOT_INO ? NULL : link_find(links, at->parent))
		at->state = DIR_CONNECTED;
	return meets ? link_cut(records, meets) : 0;
}

int dirs_connect(struct records *records)
{
	struct dir_links links = {0};
	int error = links_load(records, &links);

	for (size_t i = 0; i < links.count && !error; i++)
		if (links.list[i].ino != FS_ROOT_INO)
			error = link_connect(records, &links, &links.list[i]);
	free(links.list);
	return error;
}
