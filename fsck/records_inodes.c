/*
 * Which inodes there are. All trees that name inodes are read side by side, in order of the number. An inode that anything tells of but whose record is
 * gone is made anew; one without a name goes to /lost+found; what belongs to no inode, or to one of another type, is removed.
 */
#include "fsck/sweep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/dir.h"
#include "journal/root.h"

struct settle {
	struct records *records;
	const struct name_plan *names;
	struct sweep sweep;
	inum_t *lost; /* to be put into /lost+found when all inodes are there */
	size_t count_lost, capacity_lost;
};

/* --- removing what belongs to nobody --------------------------------------------------------------------------------------------------------------- */

/* Every record of this inode in the tree. */
static int purge_tree(struct records *records, const struct btree *tree, inum_t ino)
{
	struct btree_key key = {{ino}};
	struct btree_record found;
	int error;

	while (!(error = records_lookup_ge(records, tree, &key, &found)) && found.key.word[0] == ino) {
		error = records_remove(records, tree, &found.key);
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

int purge_target(struct records *records, inum_t ino)
{
	struct btree_key key = {{ino, 0, 0}};
	struct btree_record found;
	int error;

	while (!(error = records_lookup_ge(records, &records->fs->xattrs, &key, &found)) && found.key.word[0] == ino && !found.key.word[1]) {
		error = records_remove(records, &records->fs->xattrs, &found.key);
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

static int purge_extents(struct records *records, inum_t ino)
{
	struct btree_key key = {{ino}};
	struct btree_record found;
	struct extent extent;
	int error;

	while (!(error = records_lookup_ge(records, &records->fs->extents, &key, &found)) && found.key.word[0] == ino) {
		error = format_extent_unpack(&extent, found.value, found.length);
		if (!error) {
			const struct btree_key owner = {{extent.block, ino, found.key.word[1]}};

			error = records_remove(records, &records->fs->rmap.tree, &owner);
		}
		if (!error)
			error = records_remove(records, &records->fs->extents, &found.key);
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

static int purge_entries(struct records *records, inum_t dir)
{
	struct btree_key key = {{dir}};
	struct btree_record found;
	struct dirent_record entry;
	int error;

	while (!(error = records_lookup_ge(records, &records->fs->dirents, &key, &found)) && found.key.word[0] == dir) {
		error = format_dirent_unpack(&entry, found.value, found.length);
		if (!error && !dir_entry_is_marker(&entry)) {
			const struct btree_key parent = {{entry.ino, dir, found.key.word[1]}};

			records_tell(records, RECORD_NAME_DROPPED, "inode %llu: is no directory, \"%s\" removed from it", (unsigned long long)dir,
				     entry.name);
			error = records_remove(records, &records->fs->parents, &parent);
		}
		if (!error)
			error = records_remove(records, &records->fs->dirents, &found.key);
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

static int purge_damage(struct records *records, inum_t ino)
{
	struct btree_key key = {{ino}};
	struct btree_record found;
	int error;

	while (!(error = records_lookup_ge(records, &records->fs->damaged, &key, &found)) && found.key.word[0] == ino) {
		const struct btree_key copy = {{FORMAT_TREE_DAMAGED, found.key.word[0], found.key.word[1]}};

		error = records_remove(records, &records->fs->damaged, &found.key);
		if (!error)
			error = records_remove(records, &records->ledger_copy, &copy);
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

static int purge_names(struct records *records, inum_t ino, const struct facts *keep)
{
	struct btree_key key = {{ino}};
	struct btree_record found;
	int error;

	while (!(error = records_lookup_ge(records, &records->fs->parents, &key, &found)) && found.key.word[0] == ino) {
		key = found.key;
		key.word[2]++;
		if (keep && keep->dir == found.key.word[1] && keep->cookie == found.key.word[2])
			continue;
		records_tell(records, RECORD_NAME_DROPPED, "inode %llu: a name in directory %llu removed", (unsigned long long)ino,
			     (unsigned long long)found.key.word[1]);
		error = names_remove(records, ino, found.key.word[1], found.key.word[2]);
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

/* What a file of this type cannot have. */
static int purge_foreign(struct records *records, const struct facts *facts)
{
	uint32_t mode = facts->inode.mode;
	int error = 0;

	if (facts->extents && !S_ISREG(mode)) {
		records_tell(records, RECORD_MAP_DROPPED, "inode %llu: is no regular file, its blocks are freed", (unsigned long long)facts->ino);
		error = purge_extents(records, facts->ino);
	}
	if (!error && facts->entries + facts->markers && !S_ISDIR(mode))
		error = purge_entries(records, facts->ino);
	if (!error && facts->target_parts && !S_ISLNK(mode)) {
		records_tell(records, RECORD_XATTR, "inode %llu: is no symlink, its target is removed", (unsigned long long)facts->ino);
		error = purge_target(records, facts->ino);
	}
	if (!error && facts->names > 1 && S_ISDIR(mode))
		error = purge_names(records, facts->ino, facts);
	return error;
}

/* Nothing is left of the inode but records that have no meaning without it. */
static int purge_all(struct records *records, const struct facts *facts)
{
	const struct btree_key key = {{facts->ino}};
	int error = 0;

	records_tell(records, RECORD_XATTR, "inode %llu: there is none, its other records are removed", (unsigned long long)facts->ino);
	if (facts->is_orphan)
		error = records_remove(records, &records->fs->orphans, &key);
	if (!error && facts->has_damage)
		error = purge_damage(records, facts->ino);
	return error ? error : purge_tree(records, &records->fs->xattrs, facts->ino);
}

/* --- inodes anew ------------------------------------------------------------------------------------------------------------------------------------- */

static uint32_t facts_type(const struct facts *facts)
{
	if (facts->ino == FS_ROOT_INO)
		return S_IFDIR;
	if (facts->names)
		return (uint32_t)facts->name.type << 12;
	if (facts->entries + facts->markers)
		return S_IFDIR;
	if (facts->extents)
		return S_IFREG;
	return facts->target_parts ? S_IFLNK : S_IFREG;
}

static void record_init(const struct facts *facts, struct inode_record *record)
{
	uint64_t now = time_now_ns();
	uint32_t type = facts_type(facts);

	*record = (struct inode_record){
		.mode = type | (type == S_IFDIR ? 0700 : type == S_IFLNK ? 0777 : 0600),
		.nlink = 1,
		.generation = facts->names ? facts->name.generation : (uint32_t)(now / 1000000000u) | 1,
		.parent = type == S_IFDIR ? (facts->ino == FS_ROOT_INO ? FS_ROOT_INO : facts->dir) : 0,
	};
	record->ctime.sec = (int64_t)(now / 1000000000u);
	record->ctime.nsec = (uint32_t)(now % 1000000000u);
	record->atime = record->mtime = record->btime = record->ctime;
	if (type == S_IFREG)
		record->size_bytes = (facts->written_end ? facts->written_end : facts->end) << BLOCK_SHIFT;
	if (type == S_IFLNK)
		record->size_bytes = facts->target_bytes;
	if (type == S_IFDIR)
		record->nlink = 2;
}

static int inode_make(struct records *records, struct facts *facts)
{
	record_init(facts, &facts->inode);
	records_tell(records, RECORD_INODE_LOST, "inode %llu: its record is lost: owner, mode and times of the %s are made up, %llu bytes of data kept",
		     (unsigned long long)facts->ino, S_ISDIR(facts->inode.mode) ? "directory" : S_ISREG(facts->inode.mode) ? "file" : "node",
		     (unsigned long long)facts->inode.size_bytes);
	return records_put_inode(records, facts->ino, &facts->inode);
}

/* --- names that say something else than the inode ----------------------------------------------------------------------------------------------------- */

static int name_correct(struct records *records, const struct facts *facts, const struct btree_key *parent, struct dirent_record *name)
{
	const struct btree_key dirent = {{parent->word[1], parent->word[2]}};
	uint8_t packed[sizeof(struct format_dirent) + NAME_BYTES_MAX];
	size_t length;
	int error;

	name->generation = facts->inode.generation;
	name->type = dir_type_of_mode(facts->inode.mode);
	length = format_dirent_pack(packed, name);
	records_tell(records, RECORD_INODE, "inode %llu: type and generation in its name \"%s\" corrected", (unsigned long long)facts->ino, name->name);
	error = records_put(records, &records->fs->dirents, &dirent, packed, length);
	return error ? error : records_put(records, &records->fs->parents, parent, packed, length);
}

static int names_correct(struct records *records, const struct facts *facts)
{
	struct btree_key key = {{facts->ino}};
	struct btree_record found;
	int error;

	while (!(error = records_lookup_ge(records, &records->fs->parents, &key, &found)) && found.key.word[0] == facts->ino) {
		struct dirent_record name;

		key = found.key;
		key.word[2]++;
		error = format_dirent_unpack(&name, found.value, found.length);
		if (!error && (name.generation != facts->inode.generation || name.type != dir_type_of_mode(facts->inode.mode)))
			error = name_correct(records, facts, &found.key, &name);
		if (error)
			return error;
	}
	return error == -ENOENT ? 0 : error;
}

/* --- one inode ------------------------------------------------------------------------------------------------------------------------------------------- */

static int settle_lose(struct settle *settle)
{
	inum_t *to = records_grow((void **)&settle->lost, &settle->count_lost, &settle->capacity_lost, sizeof(*to));

	if (!to)
		return -ENOMEM;
	*to = settle->sweep.facts.ino;
	return 0;
}

/* A link count of 0 in a younger record, or a record of the orphan, says that its names are gone by right. */
static bool facts_are_orphan(const struct facts *facts)
{
	return (facts->is_orphan || !facts->inode.nlink) && !facts->entries;
}

static int settle_nameless(struct settle *settle)
{
	struct records *records = settle->records;
	const struct facts *facts = &settle->sweep.facts;
	const struct btree_key key = {{facts->ino}};

	if (facts->ino == FS_ROOT_INO || facts_are_orphan(facts))
		return 0;
	if (name_plan_dooms(settle->names, facts->ino) && !facts->entries && !facts->extents && !facts->xattrs) {
		records_tell(records, RECORD_INODE_DROPPED, "inode %llu: was deleted after its record was written: removed",
			     (unsigned long long)facts->ino);
		return records_remove(records, &records->fs->inodes, &key);
	}
	return settle_lose(settle);
}

static bool facts_are_empty(const struct facts *facts)
{
	return !facts->names && !facts->entries && !facts->markers && !facts->extents && !facts->target_parts && facts->ino != FS_ROOT_INO;
}

static int settle_inode(struct settle *settle)
{
	struct records *records = settle->records;
	struct facts *facts = &settle->sweep.facts;
	bool is_new = !facts->has_inode;
	int error = 0;

	records->next_ino = max_u64(records->next_ino, facts->ino + 1);
	if (is_new && facts_are_empty(facts))
		return purge_all(records, facts);
	if (is_new)
		error = inode_make(records, facts);
	if (!error)
		error = purge_foreign(records, facts);
	if (!error && facts->names)
		error = names_correct(records, facts);
	if (error)
		return error;
	if (!facts->names)
		return settle_nameless(settle);
	return is_new && S_ISREG(facts->inode.mode) ? settle_lose(settle) : 0;
}

/* --- all inodes --------------------------------------------------------------------------------------------------------------------------------------------- */

static int root_settle(struct records *records)
{
	struct facts facts = {.ino = FS_ROOT_INO};
	struct inode_record record;
	int error = records_load_inode(records, FS_ROOT_INO, &record);

	if (error == -ENOENT)
		return inode_make(records, &facts);
	return error;
}

/* A root that is no directory is one that nothing of ours has written. */
static int root_is_sane(struct records *records)
{
	struct facts facts = {.ino = FS_ROOT_INO};
	struct inode_record record;
	int error = records_load_inode(records, FS_ROOT_INO, &record);

	if (error || S_ISDIR(record.mode))
		return error;
	return inode_make(records, &facts);
}

static int lost_store(struct settle *settle)
{
	struct inode_record record;
	int error = 0;

	for (size_t i = 0; i < settle->count_lost && !error; i++) {
		error = records_load_inode(settle->records, settle->lost[i], &record);
		if (!error)
			error = lost_found_add(settle->records, settle->lost[i], &record);
	}
	return error;
}

static int settle_run(struct settle *settle)
{
	int got = 0, error = sweep_begin(&settle->sweep, settle->records);

	while (!error && (got = sweep_next(&settle->sweep)) > 0)
		error = settle_inode(settle);
	sweep_end(&settle->sweep);
	return error ? error : got;
}

static int next_ino_settle(struct records *records)
{
	uint64_t stored;

	records_read_begin(records);
	stored = root_get(records->fs->journal, ROOT_NEXT_INO);
	records_read_end(records);
	return stored < records->next_ino ? records_set_counter(records, ROOT_NEXT_INO, records->next_ino) : 0;
}

int inodes_settle(struct records *records, const struct name_plan *names)
{
	struct settle settle = {.records = records, .names = names};
	int error = root_settle(records);

	if (!error)
		error = root_is_sane(records);
	if (!error)
		error = settle_run(&settle);
	if (!error)
		error = next_ino_settle(records);
	if (!error)
		error = lost_store(&settle);
	free(settle.lost);
	return error;
}
