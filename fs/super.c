/* Which superblock is ours: several copies, some bad, some left by an earlier mkfs. */
#include "fs/fs.h"

#include <errno.h>
#include <string.h>

#include "format/journal_format.h"

struct super_candidates {
	struct super found[SUPER_SLOTS];
	unsigned count;
	unsigned unreadable; /* slots that are poisoned */
	bool is_device;
	bool has_magic;	     /* some slot was meant to be a superblock */
	int error;	     /* why the first such slot was not one */
	struct why why;
};

static void candidates_add(struct super_candidates *all, const struct format_super *raw,
			   unsigned slot)
{
	struct super super;
	struct why why;
	int error;

	if (le64_get(raw->magic) != FORMAT_SUPER_MAGIC)
		return;
	all->has_magic = true;
	error = format_super_unpack(&super, raw, &why);
	if (!error && !(super.slots >> slot & 1))
		return; /* of an earlier mkfs: this slot was not to be used any more */
	if (!error) {
		all->found[all->count++] = super;
	} else if (!all->error) {
		all->error = error;
		all->why = why;
	}
}

static int candidates_read(struct media *media, struct super_candidates *all)
{
	memset(all, 0, sizeof(*all));
	all->is_device = media_is_device(media);
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		devoff_t offset = super_slot_offset(slot);
		struct format_super raw;
		int error;

		if (offset + BLOCK_BYTES > media_size(media))
			break;
		error = media_read(media, offset, &raw, sizeof(raw), NULL);
		if (error == -EIO)
			all->unreadable++;
		else if (error)
			return error;
		else
			candidates_add(all, &raw, slot);
	}
	return 0;
}

static bool super_is_same_mkfs(const struct super *a, const struct super *b)
{
	return memcmp(a->meta_uuid, b->meta_uuid, FORMAT_UUID_BYTES) == 0;
}

static unsigned candidates_votes(const struct super_candidates *all, const struct super *of)
{
	unsigned votes = 0;

	for (unsigned i = 0; i < all->count; i++)
		votes += super_is_same_mkfs(&all->found[i], of);
	return votes;
}

static bool super_is_better(const struct super_candidates *all, const struct super *a,
			    const struct super *b)
{
	unsigned votes_a = candidates_votes(all, a);
	unsigned votes_b = candidates_votes(all, b);

	if (super_is_same_mkfs(a, b))
		return a->update > b->update;
	if (votes_a != votes_b)
		return votes_a > votes_b;
	return a->mkfs_time_ns > b->mkfs_time_ns;
}

static const struct super *candidates_best(const struct super_candidates *all)
{
	const struct super *best = &all->found[0];

	for (unsigned i = 1; i < all->count; i++)
		if (super_is_better(all, &all->found[i], best))
			best = &all->found[i];
	return best;
}

static int candidates_explain(const struct super_candidates *all, const char *path, struct why *why)
{
	if (all->error)
		return why_set(why, all->error, "%s: %.900s", path, all->why.text);
	if (all->unreadable)
		return why_set(why, -EIO,
			       "%s: no superblock can be read: %u of its %u places are poisoned", path,
			       all->unreadable, SUPER_SLOTS);
	return why_set(why, -EUCLEAN, "%s: not a mendfs filesystem; make one with mkfs.mendfs%s", path,
		       all->is_device ? " (if it held one: was its namespace made anew with another size or alignment? Make it as it was)"
				      : "");
}

int fs_read_super(struct media *media, struct super *super, struct why *why)
{
	const char *path = media_path(media);
	struct super_candidates all;
	const struct super *best;
	struct why features;
	int error = candidates_read(media, &all);

	if (error)
		return why_set(why, error, "%s: cannot read the superblock: %s", path, strerror(-error));
	if (all.count == 0)
		return candidates_explain(&all, path, why);
	best = candidates_best(&all);
	if (media_size(media) < best->size_bytes)
		return why_set(why, -EUCLEAN,
			       "%s: truncated: the filesystem has %llu bytes, the %s only %llu; %s", path,
			       (unsigned long long)best->size_bytes,
			       media_is_device(media) || media_is_block(media) ? "device" : "file",
			       (unsigned long long)media_size(media),
			       media_is_device(media) ? "make its namespace as large as it was" : "restore the whole of it");
	error = format_super_check_features(best, &features);
	if (error < 0)
		return why_set(why, error, "%s: %.900s", path, features.text);
	*super = *best;
	return 0;
}

/* One of ours, whole or not; what cannot be read may be. Journal head and metadata blocks begin alike: magic, checksum, meta_uuid. */
static bool place_may_hold(struct media *media, devoff_t offset, uint32_t magic, const uint8_t *meta_uuid)
{
	struct format_block_header header;

	if (media_read(media, offset, &header, sizeof(header), NULL))
		return true;
	return le32_get(header.magic) == magic && memcmp(header.meta_uuid, meta_uuid, FORMAT_UUID_BYTES) == 0;
}

int fs_check_place(struct media *media, const struct super *super, struct why *why)
{
	const uint64_t size = media_size(media);

	if (size <= super->size_bytes)
		return 0;
	for (unsigned copy = 0; copy < 2; copy++)
		if (place_may_hold(media, super->areas[AREA_JOURNAL].copy[copy], FORMAT_JOURNAL_HEAD_MAGIC, super->meta_uuid))
			return 0;
	for (unsigned copy = 0; copy < super->copies; copy++)
		if (place_may_hold(media, super->areas[AREA_FIXED].copy[copy], FORMAT_BLOCK_MAGIC, super->meta_uuid))
			return 0;
	return why_set(why, -EUCLEAN,
		       "%s: has %llu bytes, its filesystem was made on %llu and no longer begins where it began: the %s, then try again; "
		       "nothing was changed",
		       media_path(media), (unsigned long long)size, (unsigned long long)super->size_bytes,
		       media_is_device(media) ? "namespace was made anew with another size; make it as it was (ndctl create-namespace --size=)"
					      : "bytes before it must go, or what was cut off must come back");
}
