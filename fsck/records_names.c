/*
 * Dirents against parents. Both hold every name in full, ordered differently. A name that only one of them has is kept when the inode's count of links
 * counts it, dropped when another leaf that denies it is younger; two names for one place: the younger's.
 */
#include "fsck/records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/dir.h"

/* A name further than this from its hash is not there by collisions. */
#define CHAIN_MAX (1u << 16)
#define HASH_VALUES ((1ull << DIR_HASH_BITS) - 1) /* 0 is none */

static struct btree_key dirent_key(const struct name_fix *fix)
{
	return (struct btree_key){{fix->dir, fix->cookie}};
}

static struct btree_key parent_key(const struct name_fix *fix)
{
	return (struct btree_key){{fix->ino, fix->dir, fix->cookie}};
}

static struct name_fix *plan_add(struct name_plan *plan, inum_t ino, inum_t dir, uint64_t cookie, bool is_from_parents)
{
	struct name_fix *fix = records_grow((void **)&plan->list, &plan->count, &plan->capacity, sizeof(*fix));

	if (fix)
		*fix = (struct name_fix){.ino = ino, .dir = dir, .cookie = cookie, .is_from_parents = is_from_parents};
	return fix;
}

static int fix_view(struct records *records, struct name_fix *fix)
{
	const struct btree_key dirent = dirent_key(fix), parent = parent_key(fix);
	struct leaf_view view;
	int error = fix->is_from_parents ? records_view(records, &records->fs->parents, &parent, &view)
					 : records_view(records, &records->fs->dirents, &dirent, &view);

	fix->sequence = view.sequence;
	return error;
}

/* --- what only one has ---------------------------------------------------------------------------------------------------------------------- */

static int plan_single(struct records *records, struct name_plan *plan, inum_t ino, inum_t dir, uint64_t cookie, bool is_from_parents)
{
	struct name_fix *fix = plan_add(plan, ino, dir, cookie, is_from_parents);

	return fix ? fix_view(records, fix) : -ENOMEM;
}

/* The same place with different bytes: a claim of the younger one. */
static int plan_differing(struct records *records, struct name_plan *plan, inum_t ino, inum_t dir, uint64_t cookie)
{
	struct name_fix of_dirents = {.ino = ino, .dir = dir, .cookie = cookie}, of_parents = of_dirents, *fix;
	int error;

	of_parents.is_from_parents = true;
	error = fix_view(records, &of_dirents);
	if (!error)
		error = fix_view(records, &of_parents);
	if (error)
		return error;
	fix = plan_add(plan, ino, dir, cookie, of_parents.sequence > of_dirents.sequence);
	if (!fix)
		return -ENOMEM;
	fix->is_in_both = true;
	return fix_view(records, fix);
}

static int plan_dirent(struct records *records, struct name_plan *plan, const struct cursor_record *record)
{
	inum_t dir = record->key.word[0];
	uint64_t cookie = record->key.word[1];
	struct dirent_record entry;
	struct btree_record found;
	struct btree_key key;
	int error = format_dirent_unpack(&entry, record->value, record->length);

	if (error || dir_entry_is_marker(&entry))
		return error;
	key = (struct btree_key){{entry.ino, dir, cookie}};
	error = records_lookup(records, &records->fs->parents, &key, &found);
	if (error == -ENOENT)
		return plan_single(records, plan, entry.ino, dir, cookie, false);
	if (!error && (found.length != record->length || memcmp(found.value, record->value, record->length)))
		return plan_differing(records, plan, entry.ino, dir, cookie);
	return error;
}

static int plan_parent(struct records *records, struct name_plan *plan, const struct cursor_record *record)
{
	inum_t ino = record->key.word[0], dir = record->key.word[1];
	uint64_t cookie = record->key.word[2];
	const struct btree_key key = {{dir, cookie}};
	struct dirent_record entry;
	struct btree_record found;
	int error = records_lookup(records, &records->fs->dirents, &key, &found);

	if (error && error != -ENOENT)
		return error;
	if (!error && !format_dirent_unpack(&entry, found.value, found.length) && entry.ino == ino)
		return 0;
	return plan_single(records, plan, ino, dir, cookie, true);
}

typedef int name_fn(struct records *records, struct name_plan *plan, const struct cursor_record *record);

static int plan_tree(struct records *records, struct name_plan *plan, const struct btree *tree, name_fn *visit)
{
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, tree), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = visit(records, plan, &record);
		cursor_advance(&cursor);
	}
	cursor_end(&cursor);
	return error ? error : got;
}

/* --- witnesses -------------------------------------------------------------------------------------------------------------------------------- */

/* What is said of the names of one inode that only one tree has. */
struct name_votes {
	inum_t ino;
	uint64_t confirmed, of_dirents, of_parents;
	uint64_t dirents_sequence, parents_sequence; /* of the youngest of these */
	bool has_inode;
	uint64_t expected;
	struct leaf_view inode_view;
};

static int votes_confirmed(struct records *records, inum_t ino, uint64_t *out)
{
	struct btree_key key = {{ino}};
	struct btree_record found;
	int error;

	while (!(error = records_lookup_ge(records, &records->fs->parents, &key, &found)) && found.key.word[0] == ino) {
		const struct btree_key of_dirent = {{found.key.word[1], found.key.word[2]}};
		struct dirent_record entry;
		struct btree_record dirent;

		error = records_lookup(records, &records->fs->dirents, &of_dirent, &dirent);
		if (!error && !format_dirent_unpack(&entry, dirent.value, dirent.length) && entry.ino == ino)
			++*out;
		if (error && error != -ENOENT)
			return error;
		key = found.key;
		key.word[2]++;
	}
	return error == -ENOENT ? 0 : error;
}

static void votes_count(struct name_votes *votes, const struct name_fix *fix)
{
	if (fix->is_in_both)
		return;
	*(fix->is_from_parents ? &votes->of_parents : &votes->of_dirents) += 1;
	if (fix->is_from_parents)
		votes->parents_sequence = max_u64(votes->parents_sequence, fix->sequence);
	else
		votes->dirents_sequence = max_u64(votes->dirents_sequence, fix->sequence);
}

static int votes_take(struct records *records, const struct name_fix *first, size_t count, struct name_votes *votes)
{
	const struct btree_key key = {{first->ino}};
	struct inode_record record;
	int error = records_load_inode(records, first->ino, &record);

	*votes = (struct name_votes){.ino = first->ino, .has_inode = !error};
	if (!error)
		votes->expected = S_ISDIR(record.mode) ? record.nlink != 0 : record.nlink;
	if (error && error != -ENOENT)
		return error;
	for (size_t i = 0; i < count; i++)
		votes_count(votes, &first[i]);
	error = votes_confirmed(records, first->ino, &votes->confirmed);
	return error ? error : records_view(records, &records->fs->inodes, &key, &votes->inode_view);
}

/* 1: the count of links has it, -1: it has not, 0: cannot say. */
static int votes_say(const struct name_votes *votes, const struct name_fix *fix)
{
	uint64_t mine = fix->is_from_parents ? votes->of_parents : votes->of_dirents;
	uint64_t theirs = fix->is_from_parents ? votes->of_dirents : votes->of_parents;
	bool is_younger = votes->inode_view.sequence > fix->sequence;

	if (!votes->has_inode)
		return votes->inode_view.is_known && is_younger ? -1 : 0;
	/* Either the names of the one or those of the other: a renamed file, in a leaf that still has it where it was. */
	if (mine == theirs && votes->confirmed + mine == votes->expected)
		return fix->sequence > (fix->is_from_parents ? votes->dirents_sequence : votes->parents_sequence) ? 1 : -1;
	if (votes->confirmed + mine + theirs == votes->expected || (votes->confirmed + mine == votes->expected && mine != theirs))
		return 1;
	if ((votes->confirmed == votes->expected || (votes->confirmed + theirs == votes->expected && mine != theirs)) && is_younger)
		return -1;
	return 0;
}

static int fix_judge(struct records *records, const struct name_votes *votes, struct name_fix *fix)
{
	const struct btree_key dirent = dirent_key(fix), parent = parent_key(fix);
	struct leaf_view other;
	int says = votes_say(votes, fix), error;

	if (says) {
		fix->is_dropped = says < 0;
		return 0;
	}
	error = fix->is_from_parents ? records_view(records, &records->fs->dirents, &dirent, &other)
				     : records_view(records, &records->fs->parents, &parent, &other);
	fix->is_dropped = !error && other.is_known && !other.found && other.sequence > fix->sequence;
	return error;
}

static int fix_ino_compare(const void *a, const void *b)
{
	const struct name_fix *x = a, *y = b;

	return (x->ino > y->ino) - (x->ino < y->ino);
}

static int judge_all(struct records *records, struct name_plan *plan)
{
	size_t i = 0, count;
	int error = 0;

	qsort(plan->list, plan->count, sizeof(*plan->list), fix_ino_compare);
	for (; i < plan->count && !error; i += count) {
		struct name_votes votes;

		for (count = 1; i + count < plan->count && plan->list[i + count].ino == plan->list[i].ino;)
			count++;
		error = votes_take(records, &plan->list[i], count, &votes);
		for (size_t j = i; j < i + count && !error; j++)
			if (!plan->list[j].is_in_both)
				error = fix_judge(records, &votes, &plan->list[j]);
	}
	return error;
}

/* --- two names for one place ------------------------------------------------------------------------------------------------------------------- */

/* By place, the younger first. */
static int fix_place_compare(const void *a, const void *b)
{
	const struct name_fix *x = a, *y = b;

	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	if (x->cookie != y->cookie)
		return x->cookie < y->cookie ? -1 : 1;
	return (x->sequence < y->sequence) - (x->sequence > y->sequence);
}

/* dirents has another name there that parents confirm: that one stays. */
static int place_judge(struct records *records, struct name_fix *fix)
{
	const struct btree_key key = dirent_key(fix);
	struct dirent_record entry;
	struct btree_record found;
	struct btree_key parent;
	int error = records_lookup(records, &records->fs->dirents, &key, &found);

	if (error || format_dirent_unpack(&entry, found.value, found.length) || entry.ino == fix->ino)
		return error == -ENOENT ? 0 : error;
	parent = (struct btree_key){{entry.ino, fix->dir, fix->cookie}};
	error = records_lookup(records, &records->fs->parents, &parent, &found);
	if (!error)
		fix->is_dropped = true;
	return error == -ENOENT ? 0 : error;
}

static int judge_places(struct records *records, struct name_plan *plan)
{
	const struct name_fix *winner = NULL;
	int error = 0;

	qsort(plan->list, plan->count, sizeof(*plan->list), fix_place_compare);
	for (size_t i = 0; i < plan->count && !error; i++) {
		struct name_fix *fix = &plan->list[i];

		if (fix->is_from_parents && !fix->is_dropped)
			error = place_judge(records, fix);
		if (fix->is_dropped)
			continue;
		if (winner && winner->dir == fix->dir && winner->cookie == fix->cookie)
			fix->is_dropped = true;
		else
			winner = fix;
	}
	return error;
}

/* --- inodes that were deleted ---------------------------------------------------------------------------------------------------------------------- */

static int doom(struct name_plan *plan, inum_t ino)
{
	inum_t *to = records_grow((void **)&plan->doomed, &plan->count_doomed, &plan->capacity_doomed, sizeof(*to));

	if (!to)
		return -ENOMEM;
	*to = ino;
	return 0;
}

static int inode_compare(const void *a, const void *b)
{
	const inum_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

bool name_plan_dooms(const struct name_plan *plan, inum_t ino)
{
	return plan->count_doomed && bsearch(&ino, plan->doomed, plan->count_doomed, sizeof(ino), inode_compare);
}

/* It has links but no name, and the leaf where its names would be is whole there and younger. */
static int plan_inode(struct records *records, struct name_plan *plan, const struct cursor_record *record, struct cursor *parents)
{
	inum_t ino = record->key.word[0];
	const struct btree_key parent = {{ino}};
	struct leaf_view mine, theirs;
	uint64_t next;
	int error;

	while (!(error = cursor_first_word(parents, &next)) && next < ino)
		cursor_advance(parents);
	if (error || next == ino || ino == FS_ROOT_INO)
		return error;
	error = records_view(records, &records->fs->inodes, &record->key, &mine);
	if (!error)
		error = records_view(records, &records->fs->parents, &parent, &theirs);
	if (error || !theirs.is_known || theirs.sequence <= mine.sequence)
		return error;
	return doom(plan, ino);
}

static int plan_doomed(struct records *records, struct name_plan *plan)
{
	struct cursor inodes = {0}, parents = {0};
	struct cursor_record record;
	int got = 0, error = cursor_begin(&inodes, records, &records->fs->inodes);

	if (!error)
		error = cursor_begin(&parents, records, &records->fs->parents);
	while (!error && (got = cursor_peek(&inodes, &record)) > 0) {
		error = plan_inode(records, plan, &record, &parents);
		cursor_advance(&inodes);
	}
	cursor_end(&inodes);
	cursor_end(&parents);
	return error ? error : got;
}

int names_plan(struct records *records, struct name_plan *plan)
{
	int error = plan_tree(records, plan, &records->fs->dirents, plan_dirent);

	if (!error)
		error = plan_tree(records, plan, &records->fs->parents, plan_parent);
	if (!error && plan->count)
		error = judge_all(records, plan);
	if (!error && plan->count)
		error = judge_places(records, plan);
	return error ? error : plan_doomed(records, plan);
}

void name_plan_fini(struct name_plan *plan)
{
	free(plan->list);
	free(plan->doomed);
}

/* --- applying --------------------------------------------------------------------------------------------------------------------------------------- */

int names_remove(struct records *records, inum_t ino, inum_t dir, uint64_t cookie)
{
	const struct btree_key dirent = {{dir, cookie}}, parent = {{ino, dir, cookie}};
	struct dirent_record entry;
	struct btree_record found;
	int error = records_lookup(records, &records->fs->dirents, &dirent, &found);

	if (!error && !format_dirent_unpack(&entry, found.value, found.length) && entry.ino == ino)
		error = records_remove(records, &records->fs->dirents, &dirent);
	if (error && error != -ENOENT)
		return error;
	return records_remove(records, &records->fs->parents, &parent);
}

static int fix_drop(struct records *records, const struct name_fix *fix)
{
	records_tell(records, RECORD_NAME_DROPPED, "directory %llu: a name of inode %llu that is out of date removed", (unsigned long long)fix->dir,
		     (unsigned long long)fix->ino);
	return names_remove(records, fix->ino, fix->dir, fix->cookie);
}

/* The name may stand elsewhere in the directory: then this one is out of date. */
static int fix_is_double(struct records *records, const struct name_fix *fix, const struct dirent_record *entry, bool *out)
{
	struct dir_entry found;
	int error;

	records_read_begin(records);
	error = dir_lookup_entry(records->fs, fix->dir, entry->name, &found);
	records_read_end(records);
	*out = !error && found.cookie != fix->cookie;
	return error == -ENOENT || error == -EUCLEAN ? 0 : error;
}

static int fix_restore(struct records *records, const struct name_fix *fix)
{
	const struct btree_key dirent = dirent_key(fix), parent = parent_key(fix);
	const struct btree *from = fix->is_from_parents ? &records->fs->parents : &records->fs->dirents;
	const struct btree *to = fix->is_from_parents ? &records->fs->dirents : &records->fs->parents;
	struct dirent_record entry;
	struct btree_record found;
	bool is_double = false;
	int error = records_lookup(records, from, fix->is_from_parents ? &parent : &dirent, &found);

	if (error)
		return error == -ENOENT ? 0 : error;
	/* Of format version 1: there is no name in it. */
	if (!found.length || format_dirent_unpack(&entry, found.value, found.length))
		return fix_drop(records, fix);
	if (fix->is_from_parents && !fix->is_in_both)
		error = fix_is_double(records, fix, &entry, &is_double);
	if (error || is_double)
		return error ? error : fix_drop(records, fix);
	records_tell(records, RECORD_NAME_RESTORED, "directory %llu: \"%s\" of inode %llu put back", (unsigned long long)fix->dir, entry.name,
		     (unsigned long long)fix->ino);
	return records_put(records, to, fix->is_from_parents ? &dirent : &parent, found.value, found.length);
}

/* Those that are out of date first: they may be in the way. */
int names_apply(struct records *records, const struct name_plan *plan)
{
	int error = 0;

	for (size_t i = 0; i < plan->count && !error; i++)
		if (plan->list[i].is_dropped)
			error = fix_drop(records, &plan->list[i]);
	for (size_t i = 0; i < plan->count && !error; i++) {
		if (i % 65536 == 0)
			repair_progress(records->repair, "names", i, plan->count);
		if (!plan->list[i].is_dropped)
			error = fix_restore(records, &plan->list[i]);
	}
	return error;
}

/* --- markers --------------------------------------------------------------------------------------------------------------------------------------------- */

static uint64_t hash_after(uint64_t hash)
{
	hash = (hash + 1) & ((1ull << DIR_HASH_BITS) - 1);
	return hash ? hash : 1;
}

static int marker_put(struct records *records, inum_t dir, uint64_t hash)
{
	const struct btree_key key = {{dir, hash << 8 | DIR_COLLISION_MARKER}};
	struct dirent_record marker = {0};
	uint8_t packed[sizeof(struct format_dirent) + NAME_BYTES_MAX];
	struct btree_record found;
	int error = records_lookup(records, &records->fs->dirents, &key, &found);

	if (error != -ENOENT)
		return error;
	records_tell(records, RECORD_MARKER, "directory %llu: the mark that names go on after hash %llu put back", (unsigned long long)dir,
		     (unsigned long long)hash);
	return records_insert(records, &records->fs->dirents, &key, packed, format_dirent_pack(packed, &marker));
}

/* A name that its hash does not lead to gets a new place. */
static int name_move(struct records *records, inum_t dir, uint64_t cookie, const struct dirent_record *record)
{
	struct dir_entry entry = {.record = *record};
	int error = names_remove(records, record->ino, dir, cookie);

	if (!error)
		error = records_change(records);
	if (error)
		return error;
	records_tell(records, RECORD_MARKER, "directory %llu: \"%s\" moved to where its hash leads", (unsigned long long)dir, record->name);
	error = dir_insert_entry(records->fs, records->tx, dir, &entry);
	return error == -EEXIST ? 0 : error;
}

static int entry_settle(struct records *records, inum_t dir, uint64_t cookie, const struct dirent_record *record)
{
	const struct btree_key key = {{dir, cookie}};
	bool is_marker = dir_entry_is_marker(record), is_place = (cookie & 0xff) == DIR_COLLISION_MARKER;
	uint64_t hash;
	int error = 0;

	if (is_marker)
		return is_place ? 0 : records_remove(records, &records->fs->dirents, &key);
	hash = dir_hash_name(records->fs, record->name, record->name_length);
	if (is_place || ((cookie >> 8) + HASH_VALUES - hash) % HASH_VALUES > CHAIN_MAX)
		return name_move(records, dir, cookie, record);
	for (; hash != cookie >> 8 && !error; hash = hash_after(hash))
		error = marker_put(records, dir, hash);
	return error;
}

int names_settle_markers(struct records *records)
{
	struct dirent_record entry;
	struct cursor_record record;
	struct cursor cursor;
	int got = cursor_begin(&cursor, records, &records->fs->dirents), error = got;

	while (!error && (got = cursor_peek(&cursor, &record)) > 0) {
		error = format_dirent_unpack(&entry, record.value, record.length);
		cursor_advance(&cursor);
		if (!error)
			error = entry_settle(records, record.key.word[0], record.key.word[1], &entry);
	}
	cursor_end(&cursor);
	return error ? error : got;
}
