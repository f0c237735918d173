/* The superblock from its copies: the one that counts (SPEC.md 2.2) goes to every slot that should have it. */
#include <errno.h>
#include <string.h>

#include "fsck/internal.h"

int repair_barrier(struct repair *repair)
{
	if (media_granularity(repair->media) == MEDIA_PAGE)
		return media_sync(repair->media);
	media_drain(repair->media);
	return 0;
}

int repair_write(struct repair *repair, devoff_t offset, const void *bytes, size_t length)
{
	devoff_t start = round_down_u64(offset, SECTOR_BYTES), end = round_up_u64(offset + length, SECTOR_BYTES);
	int error = media_write(repair->media, offset, bytes, length, NULL);

	if (error != -EIO)
		return error;
	error = media_clear(repair->media, start, end - start);
	if (!error)
		error = media_write(repair->media, offset, bytes, length, NULL);
	return error ? error : iset_add(&repair->cleared, start, end, 0);
}

/* What is wrong with the copy, or NULL. */
static const char *slot_fault(struct repair *repair, unsigned slot, const struct format_super *wanted)
{
	struct format_super raw;
	struct super super;
	struct why why;

	if (media_read(repair->media, super_slot_offset(slot), &raw, sizeof(raw), NULL))
		return "cannot be read";
	if (!memcmp(&raw, wanted, sizeof(raw)))
		return NULL;
	if (format_super_unpack(&super, &raw, &why))
		return "is damaged";
	return memcmp(super.meta_uuid, repair->super.meta_uuid, FORMAT_UUID_BYTES) ? "is another filesystem's" : "is older";
}

/* One at a time, each durable before the next: at no moment is there no whole copy. */
static int slot_write(struct repair *repair, unsigned slot, const struct format_super *wanted)
{
	int error = repair_write(repair, super_slot_offset(slot), wanted, sizeof(*wanted));

	if (!error)
		error = repair_barrier(repair);
	if (error)
		repair_tell(repair, FSCK_NOTE, "superblock %u of %u: cannot be written: %s: the other copies serve", slot, SUPER_SLOTS,
			    strerror(-error));
	else
		repair_tell(repair, FSCK_FIXED, "superblock %u of %u: written anew", slot, SUPER_SLOTS);
	return error == -EIO || error == -ENOTSUP ? 0 : error;
}

/* Bit k: slot k should have the superblock and has not. */
static unsigned slots_tell(struct repair *repair, const struct format_super *wanted)
{
	unsigned bad = 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		const bool is_recorded = repair_is_recorded(repair, super_slot_offset(slot), BLOCK_BYTES);
		const char *fault = NULL;

		if (repair->super.slots >> slot & 1 && super_slot_offset(slot) + BLOCK_BYTES <= media_size(repair->media))
			fault = slot_fault(repair, slot, wanted);
		if (!fault)
			continue;
		repair_tell(repair, is_recorded ? FSCK_NOTE : FSCK_ERROR, "superblock %u of %u: %s%s", slot, SUPER_SLOTS, fault,
			    is_recorded ? ": memory that is known to be bad, the other copies serve" : "");
		bad |= is_recorded ? 0 : 1u << slot;
	}
	return bad;
}

static bool super_is_anywhere(struct repair *repair)
{
	struct format_super raw;
	struct super super;
	struct why ignored;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if (super_slot_offset(slot) + BLOCK_BYTES <= media_size(repair->media) &&
		    !media_read(repair->media, super_slot_offset(slot), &raw, sizeof(raw), NULL) &&
		    format_super_unpack(&super, &raw, &ignored) != -EUCLEAN)
			return true;
	return false;
}

static int super_is_gone(struct repair *repair, int error, struct why *why)
{
	struct why first = *why;

	if ((error != -EUCLEAN && error != -EIO) || super_is_anywhere(repair))
		return error;
	return why_set(why, -EUCLEAN,
		       "%.600s. Without a superblock nothing says where the rest lies, and fsck.mendfs can do nothing. Do not run "
		       "mkfs.mendfs on it: everything would be lost",
		       first.text);
}

int repair_find(struct repair *repair, struct why *why)
{
	int error = fs_read_super(repair->media, &repair->super, why);

	if (error)
		return super_is_gone(repair, error, why);
	return fs_check_place(repair->media, &repair->super, why);
}

int repair_super(struct repair *repair, struct why *why)
{
	struct format_super wanted;
	unsigned bad;
	int error = 0;

	format_super_pack(&wanted, &repair->super);
	bad = slots_tell(repair, &wanted);
	if (!bad || !repair_ask_safe(repair, "Write the bad copies of the superblock anew"))
		return 0;
	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		if (bad >> slot & 1)
			error = slot_write(repair, slot, &wanted);
	return error ? why_set(why, error, "%s: the superblock cannot be written: %s", media_path(repair->media), strerror(-error))
		     : 0;
}
