#include "fsck/sweep.h"

#include <string.h>
#include <sys/stat.h>

#include "fs/dir.h"

static const struct btree *sweep_tree(struct fs *fs, enum sweep_tree tree)
{
	const struct btree *trees[SWEEP_TREES] = {
		[SWEEP_INODES] = &fs->inodes, [SWEEP_PARENTS] = &fs->parents, [SWEEP_DIRENTS] = &fs->dirents, [SWEEP_EXTENTS] = &fs->extents,
		[SWEEP_XATTRS] = &fs->xattrs, [SWEEP_DAMAGED] = &fs->damaged, [SWEEP_ORPHANS] = &fs->orphans,
	};

	return trees[tree];
}

/* A directory has one name: that which its record knows of, if there is such. */
static int facts_take_parent(struct facts *facts, const struct cursor_record *record)
{
	bool is_first = !facts->names++;

	if (!is_first && !(facts->has_inode && facts->inode.parent == record->key.word[1] && facts->dir != facts->inode.parent))
		return 0;
	facts->dir = record->key.word[1];
	facts->cookie = record->key.word[2];
	return format_dirent_unpack(&facts->name, record->value, record->length);
}

static int facts_take_dirent(struct facts *facts, const struct cursor_record *record)
{
	struct dirent_record entry;
	int error = format_dirent_unpack(&entry, record->value, record->length);

	if (error)
		return error;
	facts->markers += dir_entry_is_marker(&entry);
	facts->entries += !dir_entry_is_marker(&entry);
	facts->subdirs += entry.type == dir_type_of_mode(S_IFDIR);
	return 0;
}

static int facts_take_extent(struct facts *facts, const struct cursor_record *record)
{
	struct extent extent;
	uint64_t end;
	int error = format_extent_unpack(&extent, record->value, record->length);

	if (error)
		return error;
	end = record->key.word[1] + extent.count_blocks;
	facts->extents++;
	facts->blocks += extent.count_blocks;
	facts->end = max_u64(facts->end, end);
	if (!(extent.flags & EXTENT_UNWRITTEN))
		facts->written_end = max_u64(facts->written_end, end);
	return 0;
}

static int facts_take_xattr(struct facts *facts, const struct cursor_record *record)
{
	facts->xattrs++;
	if (record->key.word[1])
		return 0;
	facts->is_target_whole &= record->key.word[2] == facts->target_parts;
	facts->target_parts++;
	facts->target_bytes += record->length;
	return 0;
}

static int facts_take(struct facts *facts, enum sweep_tree tree, const struct cursor_record *record)
{
	switch (tree) {
	case SWEEP_INODES:
		facts->has_inode = true;
		return format_inode_unpack(&facts->inode, record->value, record->length);
	case SWEEP_PARENTS:
		return facts_take_parent(facts, record);
	case SWEEP_DIRENTS:
		return facts_take_dirent(facts, record);
	case SWEEP_EXTENTS:
		return facts_take_extent(facts, record);
	case SWEEP_XATTRS:
		return facts_take_xattr(facts, record);
	case SWEEP_DAMAGED:
		facts->has_damage = true;
		return 0;
	case SWEEP_ORPHANS:
		facts->is_orphan = true;
		return 0;
	case SWEEP_TREES:
		break;
	}
	return 0;
}

static int sweep_collect(struct sweep *sweep, enum sweep_tree tree)
{
	struct cursor *cursor = &sweep->cursors[tree];
	struct cursor_record record;
	int got, error = 0;

	while (!error && (got = cursor_peek(cursor, &record)) != 0) {
		if (got < 0)
			return got;
		if (record.key.word[0] != sweep->facts.ino)
			return 0;
		error = facts_take(&sweep->facts, tree, &record);
		cursor_advance(cursor);
	}
	return error;
}

int sweep_begin(struct sweep *sweep, struct records *records)
{
	int error = 0;

	memset(sweep, 0, sizeof(*sweep));
	for (unsigned i = 0; i < SWEEP_TREES && !error; i++)
		error = cursor_begin(&sweep->cursors[i], records, sweep_tree(records->fs, i));
	return error;
}

void sweep_end(struct sweep *sweep)
{
	for (unsigned i = 0; i < SWEEP_TREES; i++)
		cursor_end(&sweep->cursors[i]);
}

int sweep_next(struct sweep *sweep)
{
	uint64_t ino = UINT64_MAX, word;
	int error = 0;

	for (unsigned i = 0; i < SWEEP_TREES && !error; i++) {
		error = cursor_first_word(&sweep->cursors[i], &word);
		ino = min_u64(ino, word);
	}
	if (error || ino == UINT64_MAX)
		return error;
	sweep->facts = (struct facts){.ino = ino, .is_target_whole = true};
	for (unsigned i = 0; i < SWEEP_TREES && !error; i++)
		error = sweep_collect(sweep, i);
	return error ? error : 1;
}
