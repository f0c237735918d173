/*
 * Device range -> owners, as a gap-free cover. The reverse map is streamed in key order in batches,
 * each under the shared metadata lock; between batches visitors run without it. Free space is the
 * exact complement of the reverse map, so it is what lies between.
 */
#include "fs/data.h"

#include <errno.h>
#include <stdlib.h>

#include "btree/walk.h"
#include "journal/chunk.h"

#define OWNERS_BATCH 512 /* records of one hold of the metadata lock */
#define OWNERS_PASSES 2

/* The owners of the first block are collected, put in order, told; then come those that begin behind it, which lie in order. */
enum owners_phase { OWNERS_COLLECT, OWNERS_ORDER, OWNERS_TELL, OWNERS_STREAM, OWNERS_END };

struct owners_query {
	struct fs *fs;
	devoff_t start, end;   /* bytes asked for */
	blkno_t covered;       /* blocks before it have been told */
	enum owners_phase phase;
	struct btree_key next; /* where the next batch begins */
	struct fs_owner *batch;
	size_t count, capacity;
	inum_t known_ino; /* generation of the last inode met */
	uint32_t known_generation;
	struct rmap_record *heads; /* records that cover the first block */
	size_t count_heads, capacity_heads, told_heads;
	size_t slice; /* records of this hold */
	blkno_t heads_end;
	unsigned passes;  /* over them, that are finished */
	uint64_t changes; /* of the filesystem, when the pass began */
};

const char *fs_owner_kind_name(enum fs_owner_kind kind)
{
	static const char *const names[] = {
	    [FS_OWNER_DATA] = "data",       [FS_OWNER_METADATA] = "metadata",
	    [FS_OWNER_JOURNAL] = "journal", [FS_OWNER_SUPERBLOCK] = "superblock",
	    [FS_OWNER_FREE] = "free",       [FS_OWNER_QUARANTINE] = "quarantine",
	};

	return (size_t)kind < ARRAY_SIZE(names) ? names[kind] : "unknown";
}

/* --- emitting ------------------------------------------------------------------------------- */

/* Clipped to what was asked for, in bytes. */
static int owners_emit(struct owners_query *q, struct fs_owner owner)
{
	devoff_t from = max_u64(owner.device_offset, q->start);
	devoff_t to = min_u64(owner.device_offset + owner.length_bytes, q->end);
	size_t capacity = q->capacity ? q->capacity * 2 : 2 * OWNERS_BATCH;
	struct fs_owner *batch;

	if (from >= to)
		return 0;
	if (q->count == q->capacity) {
		batch = realloc(q->batch, capacity * sizeof(*batch));
		if (!batch)
			return -ENOMEM;
		q->batch = batch;
		q->capacity = capacity;
	}
	owner.pos += owner.kind == FS_OWNER_DATA ? from - owner.device_offset : 0;
	owner.peer_offset += owner.has_peer ? from - owner.device_offset : 0;
	owner.device_offset = from;
	owner.length_bytes = to - from;
	q->batch[q->count++] = owner;
	return 0;
}

static struct fs_owner owner_of_record(const struct rmap_record *record, enum fs_owner_kind kind)
{
	return (struct fs_owner){
	    .kind = kind,
	    .device_offset = record->start << BLOCK_SHIFT,
	    .length_bytes = record->count << BLOCK_SHIFT,
	    .copy = -1,
	};
}

static int emit_data(struct owners_query *q, const struct rmap_record *record)
{
	struct fs_owner owner = owner_of_record(record, FS_OWNER_DATA);
	struct btree_key key = {{record->owner}};
	struct inode_record inode;
	struct btree_record found;

	if (q->known_ino != record->owner) {
		q->known_ino = record->owner;
		q->known_generation = 0;
		if (!btree_lookup(&q->fs->inodes, &key, &found) &&
		    !format_inode_unpack(&inode, found.value, found.length))
			q->known_generation = inode.generation;
	}
	owner.ino = record->owner;
	owner.generation = q->known_generation;
	owner.pos = record->offset << BLOCK_SHIFT;
	return owners_emit(q, owner);
}

/* One of the fixed areas as a whole, its other copy beside it. */
static int emit_area(struct owners_query *q, const struct rmap_record *record, enum super_area area,
		     struct fs_owner owner)
{
	const struct area *a = &q->fs->super.areas[area];
	unsigned copy = (unsigned)(record->offset >> 32) & 1;
	uint64_t within = (record->offset & UINT32_MAX) << BLOCK_SHIFT;

	owner.live = true;
	owner.copy = (int)copy;
	owner.has_peer = a->copy[!copy] != 0;
	owner.peer_offset = a->copy[!copy] + within;
	return owners_emit(q, owner);
}

static int emit_superblock(struct owners_query *q, const struct rmap_record *record)
{
	struct fs_owner owner = owner_of_record(record, FS_OWNER_SUPERBLOCK);
	uint32_t others = q->fs->super.slots & ~(1u << (record->offset % 32));
	unsigned first = q->fs->super.slots ? (unsigned)__builtin_ctz(q->fs->super.slots) : 0;

	owner.live = q->fs->super.slots >> (record->offset % 32) & 1;
	owner.copy = record->offset != first;
	owner.has_peer = others != 0;
	if (others)
		owner.peer_offset = super_slot_offset((unsigned)__builtin_ctz(others));
	return owners_emit(q, owner);
}

/* --- metadata, block by block --------------------------------------------------------------- */

static const char *tree_of_block(struct owners_query *q, maddr_t address)
{
	const struct format_block_header *header;
	const char *name = "unknown";
	struct buf *buf;

	if (address == MADDR_ROOT)
		return "root";
	if (maddr_is_fixed(address) || maddr_index(address) == 0)
		return "chunks";
	if (buf_get_any(q->fs->journal, address, &buf))
		return loss_tree(q->fs, address);
	header = (const struct format_block_header *)buf->data;
	if (header->role == FORMAT_ROLE_NODE)
		name = format_tree_name(header->tree);
	buf_put(buf);
	return name;
}

struct meta_range {
	maddr_t address; /* of the record's first block */
	unsigned copy;
	devoff_t peer; /* of the first block; 0: none */
};

/* How many blocks from index on are alike: one live block, or all the unused ones. */
static uint64_t meta_run(struct owners_query *q, const struct meta_range *m, uint64_t index,
			 uint64_t count, bool *live)
{
	uint64_t run = 1;

	*live = chunk_block_is_live(q->fs->journal, m->address + index);
	while (!*live && index + run < count &&
	       !chunk_block_is_live(q->fs->journal, m->address + index + run))
		run++;
	return run;
}

static int emit_metadata(struct owners_query *q, const struct rmap_record *record,
			 const struct meta_range *m)
{
	uint64_t index = 0, run;
	bool live;
	int error = 0;

	while (index < record->count && !error) {
		struct fs_owner owner = owner_of_record(record, FS_OWNER_METADATA);

		run = meta_run(q, m, index, record->count, &live);
		owner.device_offset += index << BLOCK_SHIFT;
		owner.length_bytes = run << BLOCK_SHIFT;
		owner.copy = (int)m->copy;
		owner.has_peer = m->peer != 0;
		owner.peer_offset = m->peer ? m->peer + (index << BLOCK_SHIFT) : 0;
		owner.live = live;
		if (live && owner.device_offset < q->end &&
		    owner.device_offset + owner.length_bytes > q->start)
			owner.tree = tree_of_block(q, m->address + index);
		error = owners_emit(q, owner);
		index += run;
	}
	return error;
}

static int emit_fixed(struct owners_query *q, const struct rmap_record *record)
{
	const struct area *a = &q->fs->super.areas[AREA_FIXED];
	struct meta_range m = {
	    .address = record->offset & UINT32_MAX,
	    .copy = (unsigned)(record->offset >> 32) & 1,
	};

	if (a->copy[!m.copy])
		m.peer = a->copy[!m.copy] + (m.address << BLOCK_SHIFT);
	return emit_metadata(q, record, &m);
}

static int emit_chunk_copy(struct owners_query *q, const struct rmap_record *record)
{
	uint64_t which = record->offset / CHUNK_SLOTS;
	unsigned index = (unsigned)(record->offset % CHUNK_SLOTS);
	struct meta_range m = {.address = maddr_of_chunk(which / 2, index),
			       .copy = (unsigned)(which % 2)};
	struct chunk_entry entry;

	if (!chunk_entry(q->fs->journal, which / 2, &entry) && entry.copy[!m.copy])
		m.peer = entry.copy[!m.copy] + ((devoff_t)index << BLOCK_SHIFT);
	return emit_metadata(q, record, &m);
}

/*
 * Copies of the largest size that lie next to each other are one record, as their offsets continue
 * too.
 */
static int emit_chunk(struct owners_query *q, const struct rmap_record *record)
{
	struct rmap_record piece = *record;
	uint64_t left = record->count;
	int error = 0;

	for (; left && !error; left -= piece.count) {
		piece.count = min_u64(left, CHUNK_SLOTS - piece.offset % CHUNK_SLOTS);
		error = emit_chunk_copy(q, &piece);
		piece.start += piece.count;
		piece.offset += piece.count;
	}
	return error;
}

static int emit_record(struct owners_query *q, const struct rmap_record *record)
{
	struct fs_owner owner;

	if (owner_is_inode(record->owner))
		return emit_data(q, record);
	switch (record->owner & ~OWNER_SPECIAL) {
	case OWNER_SUPERBLOCK:
		return emit_superblock(q, record);
	case OWNER_JOURNAL:
		return emit_area(q, record, AREA_JOURNAL,
				 owner_of_record(record, FS_OWNER_JOURNAL));
	case OWNER_POISON_LOG:
		owner = owner_of_record(record, FS_OWNER_METADATA);
		owner.tree = "poison_log";
		return emit_area(q, record, AREA_POISON_LOG, owner);
	case OWNER_FIXED:
		return emit_fixed(q, record);
	case OWNER_CHUNK:
		return emit_chunk(q, record);
	default:
		return owners_emit(q, owner_of_record(record, FS_OWNER_QUARANTINE));
	}
}

/* Blocks up to `to` that no record has covered yet are free. */
static int emit_free_until(struct owners_query *q, blkno_t to)
{
	struct rmap_record gap = {.start = q->covered, .count = to - q->covered};

	if (to <= q->covered)
		return 0;
	q->covered = to;
	return owners_emit(q, owner_of_record(&gap, FS_OWNER_FREE));
}

/* A length that lies must not be walked. */
static void record_clip(const struct owners_query *q, struct rmap_record *record)
{
	blkno_t end = fs_size_blocks(q->fs);

	record->start = min_u64(record->start, end);
	record->count = min_u64(record->count, end - record->start);
}

static int emit_next(struct owners_query *q, const struct rmap_record *next)
{
	struct rmap_record record = *next;
	int error;

	record_clip(q, &record);
	error = emit_free_until(q, record.start);
	if (!error && record.count)
		error = emit_record(q, &record);
	q->covered = max_u64(q->covered, record.start + record.count);
	return error;
}

/* --- streaming the reverse map -------------------------------------------------------------- */

static int record_unpack(const struct btree_key *key, const void *value, size_t length,
			 struct rmap_record *out)
{
	struct rmap_record record = {
	    .start = key->word[0], .owner = key->word[1], .offset = key->word[2]};
	int error = format_rmap_unpack(&record.count, &record.flags, value, length);

	if (!error)
		*out = record;
	return error;
}

static int owners_keep_head(struct owners_query *q, const struct rmap_record *record)
{
	size_t capacity = q->capacity_heads ? q->capacity_heads * 2 : 16;
	struct rmap_record *heads;

	if (q->count_heads == q->capacity_heads) {
		heads = realloc(q->heads, capacity * sizeof(*heads));
		if (!heads)
			return -ENOMEM;
		q->heads = heads;
		q->capacity_heads = capacity;
	}
	q->heads[q->count_heads++] = *record;
	return 0;
}

static int owners_collect_head(void *arg, const struct btree_key *key, const void *value,
			       size_t length)
{
	struct owners_query *q = arg;
	blkno_t first = q->start >> BLOCK_SHIFT;
	struct rmap_record record;
	int error;

	if (q->slice == OWNERS_BATCH) {
		q->next = *key;
		return 1;
	}
	q->slice++;
	error = record_unpack(key, value, length, &record);
	if (error || record.start + record.count <= first)
		return error;
	if (owner_is_inode(record.owner)) {
		record.offset += first - record.start;
		record.count -= first - record.start;
		record.start = first;
	}
	return owners_keep_head(q, &record);
}

/*
 * A slice of those whose records reach the first block, which may begin before it. A record that is cut or joined between two slices may pass from the part that is still to be
 * looked at to the one that was: so if anything was changed during a pass, there is one more, and what both have is told once. Under the metadata lock.
 */
static int owners_collect(struct owners_query *q)
{
	blkno_t first = q->start >> BLOCK_SHIFT;
	struct walk_filter filter = {
	    .from = q->next, .to = {{first, UINT64_MAX, UINT64_MAX}}, .least = first + 1};
	uint64_t changes = journal_changes(q->fs->journal);
	int found;

	if (!q->next.word[0] && !q->next.word[1])
		q->changes = changes;
	q->slice = 0;
	found = btree_walk_filtered(&q->fs->rmap.tree, &filter, owners_collect_head, q);
	if (found)
		return found < 0 ? found : 0;
	q->next = (struct btree_key){{0}};
	if (++q->passes == OWNERS_PASSES || q->changes == changes)
		q->phase = OWNERS_ORDER;
	return 0;
}

static int head_compare(const void *a, const void *b)
{
	const struct rmap_record *x = a, *y = b;

	if (x->owner != y->owner)
		return x->owner < y->owner ? -1 : 1;
	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return (x->start > y->start) - (x->start < y->start);
}

/* In order of inode and position; of what both passes have met the longer one. */
static void owners_order(struct owners_query *q)
{
	size_t kept = 0;

	if (q->count_heads)
		qsort(q->heads, q->count_heads, sizeof(*q->heads), head_compare);
	for (size_t i = 0; i < q->count_heads; i++) {
		struct rmap_record *last = kept ? &q->heads[kept - 1] : NULL;

		if (last && !head_compare(last, &q->heads[i]))
			last->count = max_u64(last->count, q->heads[i].count);
		else
			q->heads[kept++] = q->heads[i];
	}
	q->count_heads = kept;
	q->phase = OWNERS_TELL;
}

/* Under the metadata lock. */
static int owners_tell_heads(struct owners_query *q)
{
	blkno_t first = q->start >> BLOCK_SHIFT;
	int error = 0;

	for (; !error && q->told_heads < q->count_heads && q->count < OWNERS_BATCH; q->told_heads++) {
		const struct rmap_record *head = &q->heads[q->told_heads];

		q->covered = first; /* they all cover the first block: none leaves a gap before itself */
		q->heads_end = max_u64(q->heads_end, head->start + head->count);
		error = emit_record(q, head);
	}
	if (error || q->told_heads < q->count_heads)
		return error;
	q->covered = max_u64(first, q->heads_end);
	q->next = (struct btree_key){{first + 1, 0, 0}};
	q->phase = OWNERS_STREAM;
	return 0;
}

static int owners_visit(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct owners_query *q = arg;
	struct rmap_record record;
	int error = record_unpack(key, value, length, &record);

	if (error)
		return error;
	if (q->count >= OWNERS_BATCH) {
		q->next = *key;
		return 1;
	}
	return emit_next(q, &record);
}

/* Under the metadata lock. */
static int owners_stream(struct owners_query *q)
{
	blkno_t end = file_block_up(q->end);
	struct btree_key to = {{end - 1, UINT64_MAX, UINT64_MAX}};
	int error = 0;

	if (btree_key_compare(&q->next, &to) <= 0)
		error = btree_walk(&q->fs->rmap.tree, &q->next, &to, owners_visit, q);
	if (error)
		return error < 0 ? error : 0;
	q->phase = OWNERS_END;
	return emit_free_until(q, end);
}

static int owners_step(struct owners_query *q)
{
	int error;

	if (q->phase == OWNERS_ORDER) { /* which takes time, and needs no lock */
		owners_order(q);
		return 0;
	}
	journal_read_begin(q->fs->journal);
	if (q->phase == OWNERS_COLLECT)
		error = owners_collect(q);
	else if (q->phase == OWNERS_TELL)
		error = owners_tell_heads(q);
	else
		error = owners_stream(q);
	journal_read_end(q->fs->journal);
	return error;
}

static int owners_tell(struct owners_query *q, fs_owner_fn *visit, void *arg)
{
	size_t i;
	int error = 0;

	for (i = 0; i < q->count && !error; i++)
		error = visit(arg, &q->batch[i]);
	q->count = 0;
	return error;
}

int fs_owners(struct fs *fs, devoff_t offset, uint64_t length, fs_owner_fn *visit, void *arg)
{
	struct owners_query q = {.fs = fs, .start = offset, .end = offset + length};
	uint64_t size = media_size(fs->media);
	int error = 0;

	if (!length || offset >= size || length > size - offset)
		return -ERANGE;
	while (!error && q.phase != OWNERS_END) {
		error = owners_step(&q);
		if (!error)
			error = owners_tell(&q, visit, arg);
	}
	free(q.batch);
	free(q.heads);
	return error;
}
