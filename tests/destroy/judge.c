#include "tests/destroy/judge.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct judgement {
	const struct oracle *before, *after;
	const struct loss *loss;
	struct why *why;
	inum_t lost_found; /* 0: there is none */
};

static bool has(const struct iset *set, uint64_t value)
{
	return iset_overlaps(set, value, value + 1);
}

#define LLU(value) ((unsigned long long)(value))

/* --- names --------------------------------------------------------------------------------------------------------------------- */

static bool name_may_go(const struct judgement *j, const struct oracle_name *name)
{
	if (has(&j->loss->inodes, name->ino) || has(&j->loss->targets, name->ino))
		return true;
	for (size_t i = 0; i < j->loss->count_names; i++)
		if (j->loss->names[i].dir == name->dir && j->loss->names[i].cookie == name->cookie)
			return true;
	return false;
}

static bool has_lost_name(const struct judgement *j, inum_t ino)
{
	for (size_t i = 0; i < j->loss->count_names; i++)
		if (j->loss->names[i].ino == ino)
			return true;
	return false;
}

/* Deleted before, and back by a stale leaf; or under an older name, where what would deny it (the present one, the count of links) is lost. */
static bool is_revived(const struct judgement *j, inum_t ino)
{
	return has(&j->loss->revived, ino) && (!oracle_inode(j->before, ino) || has(&j->loss->inodes, ino) || has_lost_name(j, ino) ||
					       j->loss->names_are_doubtful);
}

/* May the inode have a name in lost+found? */
static bool may_be_found(const struct judgement *j, inum_t ino)
{
	return has(&j->loss->inodes, ino) || is_revived(j, ino) || has_lost_name(j, ino);
}

static int judge_old_name(const struct judgement *j, const struct oracle_name *name)
{
	const struct oracle_name *now = oracle_name(j->after, name->dir, name->cookie);

	if (name_may_go(j, name))
		return 0;
	if (!now)
		return why_set(j->why, -EUCLEAN, "directory %llu lost \"%.40s\" (inode %llu)", LLU(name->dir), name->name, LLU(name->ino));
	if (now->ino != name->ino || now->type != name->type || strcmp(now->name, name->name))
		return why_set(j->why, -EUCLEAN, "directory %llu: \"%.40s\" -> %llu became \"%.40s\" -> %llu", LLU(name->dir), name->name,
			       LLU(name->ino), now->name, LLU(now->ino));
	return 0;
}

static int judge_new_name(const struct judgement *j, const struct oracle_name *name)
{
	const struct oracle_name *old = oracle_name(j->before, name->dir, name->cookie);
	char number[32];

	if ((old && old->ino == name->ino && !strcmp(old->name, name->name)) || is_revived(j, name->ino))
		return 0;
	if (name->dir == FS_ROOT_INO && !strcmp(name->name, "lost+found"))
		return 0;
	snprintf(number, sizeof(number), "%llu", LLU(name->ino));
	if (j->lost_found && name->dir == j->lost_found && !strcmp(name->name, number) && may_be_found(j, name->ino))
		return 0;
	return why_set(j->why, -EUCLEAN, "directory %llu has a new \"%.40s\" (inode %llu)", LLU(name->dir), name->name, LLU(name->ino));
}

static int judge_names(const struct judgement *j)
{
	int error = 0;

	for (size_t i = 0; i < j->before->count_names && !error; i++)
		error = judge_old_name(j, &j->before->names[i]);
	for (size_t i = 0; i < j->after->count_names && !error; i++)
		error = judge_new_name(j, &j->after->names[i]);
	return error;
}

/* --- maps ---------------------------------------------------------------------------------------------------------------------- */

static const struct oracle_map *map_at(const struct oracle_inode *inode, uint64_t pos)
{
	for (size_t i = 0; i < inode->count_maps; i++)
		if (pos >= inode->maps[i].pos && pos < inode->maps[i].pos + inode->maps[i].length_bytes)
			return &inode->maps[i];
	return NULL;
}

static bool map_may_go(const struct judgement *j, inum_t ino, uint64_t pos)
{
	uint64_t block = pos / BLOCK_BYTES;

	for (size_t i = 0; i < j->loss->count_maps; i++)
		if (j->loss->maps[i].ino == ino && block >= j->loss->maps[i].from && block < j->loss->maps[i].to)
			return true;
	return false;
}

/* Every block of `of` is mapped alike in `in`. */
static int judge_maps(const struct judgement *j, const struct oracle_inode *of, const struct oracle_inode *in, const char *what)
{
	for (size_t i = 0; i < of->count_maps; i++)
		for (uint64_t at = 0; at < of->maps[i].length_bytes; at += BLOCK_BYTES) {
			const struct oracle_map *map = &of->maps[i], *other = map_at(in, map->pos + at);

			if (other && other->device_offset - other->pos == map->device_offset - map->pos && other->written == map->written)
				continue;
			if (!map_may_go(j, of->ino, map->pos + at))
				return why_set(j->why, -EUCLEAN, "inode %llu: %s its mapping of %llu", LLU(of->ino), what, LLU(map->pos + at));
		}
	return 0;
}

/* --- attributes ---------------------------------------------------------------------------------------------------------------- */

static bool attribute_may_go(const struct judgement *j, inum_t ino, uint64_t slot)
{
	for (size_t i = 0; i < j->loss->count_attributes; i++)
		if (j->loss->attributes[i].ino == ino && j->loss->attributes[i].slot == slot)
			return true;
	return false;
}

static bool has_attribute(const struct oracle_inode *inode, const struct oracle_attribute *attribute)
{
	for (size_t i = 0; i < inode->count_attributes; i++) {
		const struct oracle_attribute *other = &inode->attributes[i];

		if (!strcmp(other->name, attribute->name) && other->length == attribute->length && other->crc == attribute->crc)
			return true;
	}
	return false;
}

/* Each of `of` is in `in` with the same value. ACLs follow a mode that is made up. */
static int judge_attributes(const struct judgement *j, const struct oracle_inode *of, const struct oracle_inode *in, bool with_acls, const char *what)
{
	for (size_t i = 0; i < of->count_attributes; i++) {
		const struct oracle_attribute *attribute = &of->attributes[i];

		if (has_attribute(in, attribute) || attribute_may_go(j, of->ino, attribute->slot) ||
		    (!with_acls && !strncmp(attribute->name, "system.", 7)))
			continue;
		return why_set(j->why, -EUCLEAN, "inode %llu: %s attribute %s", LLU(of->ino), what, attribute->name);
	}
	return 0;
}

/* --- inodes -------------------------------------------------------------------------------------------------------------------- */

static bool has_lost_map(const struct judgement *j, inum_t ino)
{
	for (size_t i = 0; i < j->loss->count_maps; i++)
		if (j->loss->maps[i].ino == ino)
			return true;
	return false;
}

static bool has_other_child(const struct judgement *j, inum_t dir)
{
	for (size_t i = 0; i < j->before->count_names; i++)
		if (j->before->names[i].dir == dir && name_may_go(j, &j->before->names[i]))
			return true;
	for (size_t i = 0; i < j->after->count_names && j->loss->revived.count; i++)
		if (j->after->names[i].dir == dir && is_revived(j, j->after->names[i].ino))
			return true;
	return false;
}

/* What a lost name or child or mapping changes by itself is made equal before the comparison. */
static void forgive(const struct judgement *j, const struct oracle_inode *inode, const struct inode_record *old, struct inode_record *now)
{
	bool names = (inode->ino == FS_ROOT_INO && j->lost_found) || (S_ISDIR(old->mode) && has_other_child(j, inode->ino));

	if (names || may_be_found(j, inode->ino)) {
		now->nlink = old->nlink;
		now->entries = old->entries;
		now->parent = old->parent;
		now->ctime = old->ctime;
		now->mtime = old->mtime;
		now->change = old->change;
	}
	if (has_lost_map(j, inode->ino)) {
		now->count_blocks = old->count_blocks;
		now->flags = old->flags;
	}
}

#define SAME(field) (old->field == now->field)

static const char *first_difference(const struct inode_record *old, const struct inode_record *now)
{
	if (!SAME(mode) || !SAME(uid) || !SAME(gid) || !SAME(rdev))
		return "mode, owner or device";
	if (!SAME(nlink) || !SAME(entries) || !SAME(parent))
		return "links, entries or parent";
	if (!SAME(size_bytes) || !SAME(count_blocks))
		return "size or blocks";
	if (!SAME(atime.sec) || !SAME(atime.nsec) || !SAME(mtime.sec) || !SAME(mtime.nsec) || !SAME(ctime.sec) || !SAME(ctime.nsec) ||
	    !SAME(btime.sec) || !SAME(btime.nsec))
		return "times";
	if (!SAME(generation) || !SAME(project) || !SAME(change) || !SAME(cause_id) || !SAME(extent_hint) || !SAME(copies))
		return "generation, change or cause";
	return SAME(flags) ? NULL : "flags";
}

static int judge_kept(const struct judgement *j, const struct oracle_inode *old, const struct oracle_inode *now)
{
	struct inode_record record = now->record;
	const char *differs;
	int error;

	forgive(j, old, &old->record, &record);
	differs = first_difference(&old->record, &record);
	if (differs)
		return why_set(j->why, -EUCLEAN, "inode %llu: other %s", LLU(old->ino), differs);
	if (old->target && (!now->target || strcmp(old->target, now->target)))
		return why_set(j->why, -EUCLEAN, "symlink %llu: another target", LLU(old->ino));
	error = judge_attributes(j, old, now, true, "lost");
	if (!error)
		error = judge_attributes(j, now, old, true, "gained");
	if (!error)
		error = judge_maps(j, old, now, "lost");
	if (!error)
		error = judge_maps(j, now, old, "gained");
	/* What is not known to be lost any more is read as it lies there. */
	if (!error && !has_lost_map(j, old->ino) && !j->loss->ledger && old->crc != now->crc)
		error = why_set(j->why, -EUCLEAN, "inode %llu: other content", LLU(old->ino));
	return error;
}

/* An older version of its record keeps the file where it was. */
static bool is_in_place(const struct judgement *j, inum_t ino)
{
	for (size_t i = 0; i < j->after->count_names && has(&j->loss->stale, ino); i++)
		if (j->after->names[i].ino == ino && oracle_name(j->before, j->after->names[i].dir, j->after->names[i].cookie))
			return true;
	return false;
}

/* Its record is gone, its data must be at lost+found/<number>. */
static int judge_lost(const struct judgement *j, const struct oracle_inode *old, const struct oracle_inode *now)
{
	uint64_t end = 0;
	char number[32];

	if (!old->count_maps || has_lost_map(j, old->ino))
		return 0;
	for (size_t i = 0; i < old->count_maps; i++)
		end = max_u64(end, old->maps[i].pos + old->maps[i].length_bytes);
	snprintf(number, sizeof(number), "%llu", LLU(old->ino));
	if (!now || (!is_in_place(j, old->ino) && (!j->lost_found || !oracle_lookup(j->after, j->lost_found, number))))
		return why_set(j->why, -EUCLEAN, "inode %llu: its record was lost and its data are not at lost+found/%s", LLU(old->ino), number);
	/* An older size within the last block is as good as any: nothing else knows it. */
	if (!S_ISREG(now->record.mode) || round_up_u64(now->record.size_bytes, BLOCK_BYTES) < min_u64(old->record.size_bytes, end))
		return why_set(j->why, -EUCLEAN, "lost+found/%s is shorter than the file was", number);
	if (judge_attributes(j, old, now, false, "lost"))
		return -EUCLEAN;
	return judge_maps(j, old, now, "lost+found has not");
}

static int judge_inode(const struct judgement *j, const struct oracle_inode *old)
{
	const struct oracle_inode *now = oracle_inode(j->after, old->ino);

	if (has(&j->loss->inodes, old->ino))
		return judge_lost(j, old, now);
	if (has(&j->loss->targets, old->ino))
		return 0;
	if (!now)
		return why_set(j->why, -EUCLEAN, "inode %llu is gone", LLU(old->ino));
	return judge_kept(j, old, now);
}

static int judge_inodes(const struct judgement *j)
{
	int error = 0;

	for (size_t i = 0; i < j->before->count_inodes && !error; i++)
		error = judge_inode(j, &j->before->inodes[i]);
	for (size_t i = 0; i < j->after->count_inodes && !error; i++) {
		inum_t ino = j->after->inodes[i].ino;

		if (ino != j->lost_found && !oracle_inode(j->before, ino) && !may_be_found(j, ino))
			error = why_set(j->why, -EUCLEAN, "inode %llu is new", LLU(ino));
	}
	return error;
}

/* --- ledger -------------------------------------------------------------------------------------------------------------------- */

/* Bad blocks whose owner is in neither tree any more are free, and free space that is bad goes into quarantine. */
static bool same_bad(const struct judgement *j, const struct badblock_record *a, const struct badblock_record *b)
{
	return a->offset == b->offset && a->length_bytes == b->length_bytes && a->since_ns == b->since_ns && a->cause_id == b->cause_id &&
	       a->count == b->count && (a->state == b->state || j->loss->count_maps) && a->source == b->source;
}

/* Every record of `of` is in `in`, but for what was poisoned by us. */
static int judge_bad(const struct judgement *j, const struct oracle *of, const struct oracle *in, const char *what)
{
	for (size_t i = 0; i < of->count_bad; i++) {
		const struct badblock_record *bad = &of->bad[i];
		bool found = iset_overlaps(&j->loss->bad, bad->offset, bad->offset + bad->length_bytes);

		for (size_t k = 0; k < in->count_bad && !found; k++)
			found = same_bad(j, bad, &in->bad[k]);
		if (!found)
			return why_set(j->why, -EUCLEAN, "badblocks: %s %llu+%llu", what, LLU(bad->offset), LLU(bad->length_bytes));
	}
	return 0;
}

static int judge_damage(const struct judgement *j, const struct oracle *of, const struct oracle *in, const char *what)
{
	for (size_t i = 0; i < of->count_damage; i++) {
		const struct oracle_damage *damage = &of->damage[i];
		bool found = has(&j->loss->inodes, damage->ino) || has_lost_map(j, damage->ino);

		for (size_t k = 0; k < in->count_damage && !found; k++)
			found = !memcmp(damage, &in->damage[k], sizeof(*damage));
		if (!found)
			return why_set(j->why, -EUCLEAN, "damaged: %s inode %llu at %llu+%llu", what, LLU(damage->ino), LLU(damage->pos),
				       LLU(damage->length_bytes));
	}
	return 0;
}

static int judge_ledger(const struct judgement *j)
{
	int error;

	if (j->loss->ledger)
		return 0;
	error = judge_bad(j, j->before, j->after, "lost");
	if (!error)
		error = judge_bad(j, j->after, j->before, "gained");
	if (!error)
		error = judge_damage(j, j->before, j->after, "lost");
	if (!error)
		error = judge_damage(j, j->after, j->before, "gained");
	if (!error && !j->loss->bad.count && !j->loss->count_maps && j->before->quarantined_bytes != j->after->quarantined_bytes)
		error = why_set(j->why, -EUCLEAN, "quarantine: %llu bytes became %llu", LLU(j->before->quarantined_bytes),
				LLU(j->after->quarantined_bytes));
	return error;
}

/* --- all ----------------------------------------------------------------------------------------------------------------------- */

int judge(const struct oracle *before, const struct oracle *after, const struct loss *loss, struct why *why)
{
	struct judgement j = {.before = before, .after = after, .loss = loss, .why = why};
	const struct oracle_name *lost_found = oracle_lookup(after, FS_ROOT_INO, "lost+found");
	int error;

	j.lost_found = lost_found ? lost_found->ino : 0;
	if (j.lost_found && !loss->inodes.count && !loss->count_names && !loss->revived.count && !oracle_inode(before, j.lost_found))
		return why_set(why, -EUCLEAN, "there is a lost+found, and nothing may be lost");
	error = judge_inodes(&j);
	if (!error)
		error = judge_names(&j);
	return error ? error : judge_ledger(&j);
}

int judge_data(const struct image *image, const struct oracle *before, const struct loss *loss, struct why *why)
{
	const struct judgement j = {.before = before, .loss = loss, .why = why};

	for (size_t i = 0; i < before->count_inodes; i++)
		for (size_t k = 0; k < before->inodes[i].count_maps; k++) {
			const struct oracle_map *map = &before->inodes[i].maps[k];

			for (uint64_t at = 0; map->written && at < map->length_bytes; at += BLOCK_BYTES) {
				devoff_t place = map->device_offset + at;
				const uint8_t *saved = image->saved[place / BLOCK_BYTES];

				/* A block whose only mapping may be lost is free, and the repair itself may take it for metadata. */
				if (map_may_go(&j, before->inodes[i].ino, map->pos + at))
					continue;
				if (saved && memcmp(saved, lab_bytes(image->lab) + place, BLOCK_BYTES))
					return why_set(why, -EUCLEAN, "data of inode %llu at device byte %llu were overwritten",
						       LLU(before->inodes[i].ino), LLU(place));
			}
		}
	return 0;
}
