#include "notify/owners.h"

#include <errno.h>
#include <stdlib.h>

#include "journal/chunk.h"
#include "journal/root.h"

/* Blocks per hold of the metadata lock: writers get their turn. */
#define WINDOW_BLOCKS 8192u
#define WINDOW_CHUNKS 256u

void owners_fini(struct owners *owners)
{
	free(owners->files);
	free(owners->metas);
	*owners = (struct owners){0};
}

/* Room for one more of `size` bytes in *array. */
static int array_grow(void **array, size_t count, size_t *capacity, size_t size)
{
	const size_t wanted = *capacity ? *capacity * 2 : 16;
	void *grown;

	if (count < *capacity)
		return 0;
	grown = reallocarray(*array, wanted, size);
	if (!grown)
		return -ENOMEM;
	*array = grown;
	*capacity = wanted;
	return 0;
}

static int owners_add_file(struct owners *owners, const struct rmap_record *record)
{
	const devoff_t start = record->start << BLOCK_SHIFT, end = (record->start + record->count)
								   << BLOCK_SHIFT;
	int rc = array_grow((void **)&owners->files, owners->count_files, &owners->capacity_files,
			    sizeof(*owners->files));

	if (rc)
		return rc;
	owners->files[owners->count_files++] = (struct owner_file){
	    .ino = record->owner,
	    .pos = record->offset << BLOCK_SHIFT,
	    .length_bytes = record->count << BLOCK_SHIFT,
	    .device_offset = start,
	    .lost_bytes = min_u64(end, owners->end) - max_u64(start, owners->start),
	};
	return 0;
}

static int owners_add_meta(struct owners *owners, const struct rmap_record *record)
{
	int rc = array_grow((void **)&owners->metas, owners->count_metas, &owners->capacity_metas,
			    sizeof(*owners->metas));

	if (rc)
		return rc;
	owners->metas[owners->count_metas++] = (struct owner_meta){
	    .owner = record->owner,
	    .offset = record->offset,
	    .block = record->start,
	    .count = record->count,
	};
	return 0;
}

static int owners_visit(void *arg, const struct rmap_record *record)
{
	struct owners *owners = arg;

	if (!owner_is_inode(record->owner))
		return record->owner == OWNER(OWNER_QUARANTINE) ? 0
								: owners_add_meta(owners, record);
	return record->flags & EXTENT_UNWRITTEN ? 0 : owners_add_file(owners, record);
}

static int compare_files(const void *a, const void *b)
{
	const struct owner_file *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->pos < y->pos ? -1 : x->pos > y->pos;
}

static void owners_merge(struct owners *owners)
{
	size_t kept = 0;

	if (owners->count_files)
		qsort(owners->files, owners->count_files, sizeof(*owners->files), compare_files);
	for (size_t i = 0; i < owners->count_files; i++) {
		const struct owner_file *file = &owners->files[i];
		struct owner_file *last = kept ? &owners->files[kept - 1] : NULL;

		if (!last || last->ino != file->ino)
			owners->sharers++;
		if (last && last->ino == file->ino && last->pos + last->length_bytes == file->pos) {
			last->length_bytes += file->length_bytes;
			last->lost_bytes += file->lost_bytes;
		} else {
			owners->files[kept++] = *file;
		}
	}
	owners->count_files = kept;
}

/* --- metadata without the reverse map ------------------------------------------------------------------------------------- */

static int table_add_copy(struct owners *owners, uint64_t chunk, const struct chunk_entry *entry, unsigned copy)
{
	const devoff_t at = entry->copy[copy], end = at + (1ull << entry->shift);
	const blkno_t first = max_u64(at, owners->start) >> BLOCK_SHIFT;
	const blkno_t last = (min_u64(end, owners->end) + BLOCK_BYTES - 1) >> BLOCK_SHIFT;
	const struct rmap_record record = {
	    .start = first,
	    .count = last - first,
	    .owner = OWNER(OWNER_CHUNK),
	    .offset = (chunk * 2 + copy) * CHUNK_SLOTS + (first - (at >> BLOCK_SHIFT)),
	};

	if (!at || at >= owners->end || end <= owners->start)
		return 0;
	return owners_add_meta(owners, &record);
}

static int table_add_chunks(struct journal *journal, struct owners *owners, uint64_t from, uint64_t to)
{
	struct chunk_entry entry;
	int rc = 0;

	for (uint64_t chunk = from; chunk < to && rc == 0; chunk++)
		for (unsigned copy = 0; copy < 2 && rc == 0; copy++)
			if (chunk_entry(journal, chunk, &entry) == 0)
				rc = table_add_copy(owners, chunk, &entry, copy);
	return rc;
}

/* The chunk table knows where metadata lie, too: what is lost of the reverse map itself must be told as well. Instead of what was found of them so far. */
static void owners_ask_table(struct journal *journal, struct owners *owners)
{
	uint64_t count, kept = 0;
	int rc = 0;

	for (size_t i = 0; i < owners->count_metas; i++)
		if (owners->metas[i].owner != OWNER(OWNER_CHUNK))
			owners->metas[kept++] = owners->metas[i];
	owners->count_metas = kept;
	journal_read_begin(journal);
	count = root_get(journal, ROOT_CHUNKS);
	journal_read_end(journal);
	for (uint64_t at = 0; at < count && rc == 0; at += WINDOW_CHUNKS) {
		journal_read_begin(journal);
		rc = table_add_chunks(journal, owners, at, min_u64(count, at + WINDOW_CHUNKS));
		journal_read_end(journal);
	}
}

int owners_collect(struct journal *journal, const struct rmap *rmap, devoff_t start, devoff_t end,
		   struct owners *out)
{
	const blkno_t last = (end + BLOCK_BYTES - 1) >> BLOCK_SHIFT;
	int result = 0;

	*out = (struct owners){.start = start, .end = end};
	for (blkno_t at = start >> BLOCK_SHIFT; at < last; at += WINDOW_BLOCKS) {
		int rc;

		journal_read_begin(journal);
		rc = rmap_query(rmap, at, min_u64(WINDOW_BLOCKS, last - at), owners_visit, out);
		journal_read_end(journal);
		if (rc)
			result = rc;
	}
	if (result == -EIO || result == -EUCLEAN)
		owners_ask_table(journal, out);
	owners_merge(out);
	return result;
}
