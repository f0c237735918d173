#include "fs/dir.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "util/siphash.h"

#define DIR_HASH_MASK ((1ull << DIR_HASH_BITS) - 1)
/* A chain of markers longer than any real directory has: damaged media. */
#define DIR_CHAIN_MAX (1u << 20)
#define MARKERS_PER_STEP 32

/* --- hash ----------------------------------------------------------------------------------------------------------------- */

uint64_t dir_hash_name(const struct fs *fs, const char *name, size_t length_bytes)
{
	uint64_t hash;

	if (fs->options.weak_hash)
		return 1;
	hash = siphash(fs->super.hash_seed, name, length_bytes) & DIR_HASH_MASK;
	return hash ? hash : 1;
}

static uint64_t hash_after(uint64_t hash)
{
	hash = (hash + 1) & DIR_HASH_MASK;
	return hash ? hash : 1;
}

/* --- names and records ---------------------------------------------------------------------------------------------------- */

int dir_verify_name(const char *name)
{
	size_t length = strnlen(name, FS_NAME_MAX + 1);

	if (length > FS_NAME_MAX)
		return -ENAMETOOLONG;
	if (length == 0 || memchr(name, '/', length))
		return -EINVAL;
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EEXIST;
	return 0;
}

bool dir_entry_is_marker(const struct dirent_record *record)
{
	return record->ino == 0;
}

uint8_t dir_type_of_mode(uint32_t mode)
{
	return (uint8_t)((mode & S_IFMT) >> 12);
}

static struct btree_key dirent_key(inum_t dir, uint64_t cookie)
{
	return (struct btree_key){{dir, cookie}};
}

/* --- probing -------------------------------------------------------------------------------------------------------------- */

/* What one hash value holds: the entry looked for, the first free collision number, whether the chain goes on. */
struct dir_probe {
	const char *name;
	size_t length_bytes;
	struct dir_entry *found;
	bool is_found, goes_on;
	unsigned next_number; /* while equal to the number seen, the numbers are dense */
	int error;
};

static int probe_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct dir_probe *probe = arg;
	unsigned number = key->word[1] & 0xff;
	struct dirent_record record;

	if (number == DIR_COLLISION_MARKER) {
		probe->goes_on = true;
		return 0;
	}
	if (number == probe->next_number)
		probe->next_number++;
	if (format_dirent_unpack(&record, value, length))
		return -EUCLEAN;
	if (record.name_length != probe->length_bytes ||
	    memcmp(record.name, probe->name, probe->length_bytes) != 0)
		return 0;
	probe->is_found = true;
	probe->found->cookie = key->word[1];
	probe->found->record = record;
	return 1;
}

static int probe_hash(struct fs *fs, inum_t dir, uint64_t hash, struct dir_probe *probe)
{
	struct btree_key first = dirent_key(dir, hash << 8);
	struct btree_key last = dirent_key(dir, hash << 8 | DIR_COLLISION_MARKER);
	int error;

	probe->goes_on = false;
	probe->next_number = 0;
	error = btree_walk(&fs->dirents, &first, &last, probe_visit, probe);
	return error < 0 ? error : 0;
}

int dir_lookup_entry(struct fs *fs, inum_t dir, const char *name, struct dir_entry *out)
{
	struct dir_entry found;
	struct dir_probe probe = {.name = name, .length_bytes = strlen(name), .found = &found};
	uint64_t hash = dir_hash_name(fs, name, probe.length_bytes);

	for (unsigned i = 0; i < DIR_CHAIN_MAX; i++, hash = hash_after(hash)) {
		int error = probe_hash(fs, dir, hash, &probe);

		if (error)
			return error;
		if (probe.is_found) {
			*out = found;
			return 0;
		}
		if (!probe.goes_on)
			return -ENOENT;
	}
	return -EUCLEAN;
}

static int dir_insert_marker(struct fs *fs, struct tx *tx, inum_t dir, uint64_t hash)
{
	struct btree_key key = dirent_key(dir, hash << 8 | DIR_COLLISION_MARKER);
	struct dirent_record marker = {0};
	uint8_t packed[sizeof(struct format_dirent) + NAME_BYTES_MAX];

	return btree_insert(&fs->dirents, tx, &key, packed, format_dirent_pack(packed, &marker));
}

/* The lowest free number of the first hash value that has one. */
static int dir_find_cookie(struct fs *fs, struct tx *tx, inum_t dir, const char *name, uint64_t *cookie)
{
	struct dir_entry found;
	struct dir_probe probe = {.name = name, .length_bytes = strlen(name), .found = &found};
	uint64_t hash = dir_hash_name(fs, name, probe.length_bytes);

	for (unsigned i = 0; i < DIR_CHAIN_MAX; i++, hash = hash_after(hash)) {
		int error = probe_hash(fs, dir, hash, &probe);

		if (error)
			return error;
		if (probe.is_found)
			return -EEXIST;
		if (probe.next_number < DIR_COLLISION_MARKER) {
			*cookie = hash << 8 | probe.next_number;
			return 0;
		}
		if (!probe.goes_on)
			error = dir_insert_marker(fs, tx, dir, hash);
		if (error)
			return error;
	}
	return -ENOSPC;
}

/* --- changes -------------------------------------------------------------------------------------------------------------- */

/* With the same bytes as the entry: either tree can be rebuilt from the other. */
static int dir_insert_parent(struct fs *fs, struct tx *tx, inum_t dir, uint64_t cookie, const struct dirent_record *record)
{
	uint8_t packed[sizeof(struct format_dirent) + NAME_BYTES_MAX];
	struct btree_key key = {{record->ino, dir, cookie}};

	return btree_insert(&fs->parents, tx, &key, packed, format_dirent_pack(packed, record));
}

static int dir_remove_parent(struct fs *fs, struct tx *tx, inum_t ino, inum_t dir, uint64_t cookie)
{
	struct btree_key key = {{ino, dir, cookie}};
	int error = btree_remove(&fs->parents, tx, &key);

	return error == -ENOENT ? -EUCLEAN : error;
}

int dir_insert_entry(struct fs *fs, struct tx *tx, inum_t dir, struct dir_entry *entry)
{
	uint8_t packed[sizeof(struct format_dirent) + NAME_BYTES_MAX];
	struct btree_key key;
	int error = dir_find_cookie(fs, tx, dir, entry->record.name, &entry->cookie);

	if (error)
		return error;
	key = dirent_key(dir, entry->cookie);
	error = btree_insert(&fs->dirents, tx, &key, packed, format_dirent_pack(packed, &entry->record));
	if (error)
		return error;
	return dir_insert_parent(fs, tx, dir, entry->cookie, &entry->record);
}

int dir_remove_entry(struct fs *fs, struct tx *tx, inum_t dir, const struct dir_entry *entry)
{
	struct btree_key key = dirent_key(dir, entry->cookie);
	int error = btree_remove(&fs->dirents, tx, &key);

	return error ? error : dir_remove_parent(fs, tx, entry->record.ino, dir, entry->cookie);
}

int dir_replace_entry(struct fs *fs, struct tx *tx, inum_t dir, const struct dir_entry *entry, const struct inode *inode)
{
	uint8_t packed[sizeof(struct format_dirent) + NAME_BYTES_MAX];
	struct btree_key key = dirent_key(dir, entry->cookie);
	struct dirent_record record = entry->record;
	int error;

	record.ino = inode->ino;
	record.generation = inode->record.generation;
	record.type = dir_type_of_mode(inode->record.mode);
	error = btree_update(&fs->dirents, tx, &key, packed, format_dirent_pack(packed, &record));
	if (!error)
		error = dir_remove_parent(fs, tx, entry->record.ino, dir, entry->cookie);
	if (!error)
		error = dir_insert_parent(fs, tx, dir, entry->cookie, &record);
	return error;
}

struct marker_batch {
	uint64_t cookies[MARKERS_PER_STEP];
	size_t count;
};

static int marker_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct marker_batch *batch = arg;

	batch->cookies[batch->count++] = key->word[1];
	return batch->count == MARKERS_PER_STEP;
}

int dir_remove_markers(struct fs *fs, struct tx *tx, inum_t dir)
{
	struct btree_key first = dirent_key(dir, 0), last = dirent_key(dir, UINT64_MAX);
	struct marker_batch batch;
	int error;

	do {
		batch.count = 0;
		error = btree_walk(&fs->dirents, &first, &last, marker_visit, &batch);
		for (size_t i = 0; i < batch.count && error >= 0; i++) {
			struct btree_key key = dirent_key(dir, batch.cookies[i]);
			int removed = btree_remove(&fs->dirents, tx, &key);

			error = removed ? removed : error;
		}
	} while (error > 0);
	return error;
}
