#include "dump/scramble.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dump/internal.h"
#include "fs/dir.h"

/* Blocks that the change of one name may join: leaves of two trees, their splits or merges on the way up. */
#define NAME_ROOM 40

/* --- names --------------------------------------------------------------------------------------------------------------------- */

static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
#define LETTERS (sizeof(letters) - 1)
/* Bytes that a name may have: all but NUL and the slash. The dot comes last, so that "." and ".." are the last of their length. */
#define SYMBOLS 254u

static char symbol(uint64_t index)
{
	unsigned seen = LETTERS;

	if (index < LETTERS)
		return letters[index];
	for (unsigned byte = 1; byte < 256; byte++)
		if (byte != '/' && byte != '.' && !memchr(letters, (int)byte, LETTERS) && seen++ == index)
			return (char)byte;
	return '.';
}

/* Pairs of symbols in shells around (0, 0), the corner of each last: those of letters alone come first, ".." at the very end. */
static void make_pair(uint64_t index, char *to)
{
	uint64_t shell = 0;

	while ((shell + 1) * (shell + 1) <= index)
		shell++;
	index -= shell * shell;
	to[0] = symbol(index < shell || index == 2 * shell ? shell : index - shell);
	to[1] = symbol(index < shell ? index : shell);
}

int scramble_make_name(uint64_t index, size_t length, char *to)
{
	to[length] = 0;
	if (length <= 2) {
		if (index >= (length == 1 ? SYMBOLS : SYMBOLS * SYMBOLS) - 1)
			return -EOVERFLOW;
		if (length == 2)
			make_pair(index, to);
		else
			to[0] = symbol(index);
		return 0;
	}
	for (size_t i = length; i-- > 0; index /= LETTERS)
		to[i] = letters[index % LETTERS];
	return index ? -EOVERFLOW : 0;
}

/* --- a directory --------------------------------------------------------------------------------------------------------------- */

struct dir_names {
	struct dir_entry *entries;
	size_t count, capacity;
	uint64_t next[NAME_BYTES_MAX + 1]; /* by length */
};

static int collect_entry(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct dir_names *names = arg;
	struct dir_entry *entry;

	if (names->count == names->capacity) {
		size_t capacity = names->capacity ? 2 * names->capacity : 64;
		struct dir_entry *entries = realloc(names->entries, capacity * sizeof(*entries));

		if (!entries)
			return -ENOMEM;
		names->entries = entries;
		names->capacity = capacity;
	}
	entry = &names->entries[names->count];
	entry->cookie = key->word[1];
	if (format_dirent_unpack(&entry->record, value, length))
		return -EUCLEAN;
	names->count += !dir_entry_is_marker(&entry->record);
	return 0;
}

int scramble_end(struct tx *tx, int error)
{
	if (!error)
		return tx_commit(tx, NULL);
	tx_abort(tx);
	return error;
}

typedef int step_fn(struct fs *fs, struct tx *tx, inum_t dir, struct dir_names *names, size_t i);

static int step_remove(struct fs *fs, struct tx *tx, inum_t dir, struct dir_names *names, size_t i)
{
	return dir_remove_entry(fs, tx, dir, &names->entries[i]);
}

static int step_insert(struct fs *fs, struct tx *tx, inum_t dir, struct dir_names *names, size_t i)
{
	struct dirent_record *record = &names->entries[i].record;
	int error = scramble_make_name(names->next[record->name_length]++, record->name_length, record->name);

	return error ? error : dir_insert_entry(fs, tx, dir, &names->entries[i]);
}

static int for_each_entry(struct fs *fs, inum_t dir, struct dir_names *names, step_fn *step)
{
	int error = 0;

	for (size_t i = 0; i < names->count && !error;) {
		struct tx *tx;

		error = fs_tx_begin(fs, TX_RESERVE, &tx);
		if (error)
			return error;
		do
			error = step(fs, tx, dir, names, i++);
		while (!error && i < names->count && tx_room(tx) > NAME_ROOM);
		error = scramble_end(tx, error);
	}
	return error;
}

static int drop_markers(struct fs *fs, inum_t dir)
{
	struct tx *tx;
	int error = fs_tx_begin(fs, TX_RESERVE, &tx);

	return error ? error : scramble_end(tx, dir_remove_markers(fs, tx, dir));
}

/* All old names go before the first new one comes: it may be equal to an old one. The copy is nobody else's, so nobody sees the time between. */
static int scramble_dir(struct fs *fs, inum_t dir, struct image_report *report)
{
	struct btree_key first = {{dir, 0}}, last = {{dir, UINT64_MAX}};
	struct dir_names names = {.count = 0};
	int error;

	journal_read_begin(fs->journal);
	error = btree_walk(&fs->dirents, &first, &last, collect_entry, &names);
	journal_read_end(fs->journal);
	if (!error)
		error = for_each_entry(fs, dir, &names, step_remove);
	if (!error)
		error = drop_markers(fs, dir);
	if (!error)
		error = for_each_entry(fs, dir, &names, step_insert);
	report->names += names.count;
	free(names.entries);
	return error;
}

/* --- all of them --------------------------------------------------------------------------------------------------------------- */

struct next_dir {
	inum_t ino; /* the first at or after it */
};

static int find_dir(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct next_dir *next = arg;
	struct inode_record record;

	if (format_inode_unpack(&record, value, length))
		return -EUCLEAN;
	if (!S_ISDIR(record.mode))
		return 0;
	next->ino = key->word[0];
	return 1;
}

static int scramble_dirs(struct fs *fs, struct image_report *report)
{
	struct next_dir next = {.ino = 0};
	int found, error = 0;

	for (; !error; next.ino++) {
		struct btree_key first = {{next.ino}}, last = {{UINT64_MAX}};

		journal_read_begin(fs->journal);
		found = btree_walk(&fs->inodes, &first, &last, find_dir, &next);
		journal_read_end(fs->journal);
		if (found <= 0)
			return found;
		error = scramble_dir(fs, next.ino, report);
	}
	return error;
}

int scramble_random(uint8_t *to, size_t length)
{
	for (size_t i = 0; i < length; i += 256)
		if (getentropy(to + i, min_u64(256, length - i)))
			return -errno;
	return 0;
}

static int scramble_target(struct fs *fs, struct btree_record *record)
{
	uint8_t bytes[NODE_VALUE_MAX];
	struct tx *tx;
	int error = fs_tx_begin(fs, TX_RESERVE, &tx);

	if (error)
		return error;
	error = scramble_random(bytes, record->length);
	for (unsigned i = 0; i < record->length; i++)
		if (record->value[i] != '/')
			record->value[i] = (uint8_t)letters[bytes[i] % LETTERS];
	return scramble_end(tx, error ? error : btree_update(&fs->xattrs, tx, &record->key, record->value, record->length));
}

static int scramble_targets(struct fs *fs, struct image_report *report)
{
	struct btree_key key = {{0}};
	struct btree_record record;
	int error = 0;

	while (!error) {
		journal_read_begin(fs->journal);
		error = btree_lookup_ge(&fs->xattrs, &key, &record);
		journal_read_end(fs->journal);
		if (error)
			break;
		key = record.key;
		if (key.word[1] == 0) {
			error = scramble_target(fs, &record);
			report->targets += key.word[2] == 0;
		}
		key.word[2]++;
	}
	return error == -ENOENT ? 0 : error;
}

int scramble_names(const char *path, struct image_report *report, struct why *why)
{
	struct fs_options options = {.tools = true, .claim = true};
	struct why inner;
	struct fs *fs;
	int error = fs_mount(path, &options, &inner, &fs), end;

	if (error)
		return why_set(why, error, "names cannot be scrambled where the filesystem cannot be mounted: %.900s", inner.text);
	error = fs_is_readonly(fs) ? -EROFS : 0;
	if (!error)
		error = scramble_dirs(fs, report);
	if (!error)
		error = scramble_targets(fs, report);
	if (!error)
		error = scramble_attributes(fs, report);
	end = fs_unmount(fs);
	error = error ? error : end;
	return error ? why_set(why, error, "names cannot be scrambled: %s; try again after fsck.mendfs on a copy, or without --scramble-names",
			       strerror(-error))
		     : 0;
}
