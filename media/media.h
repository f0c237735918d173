/*
 * The mapped region. Everything that touches the medium is here; nobody outside ever holds a pointer into it.
 * The only user of libpmem2. Offsets are device bytes (devoff_t, device number 0). Errors are negative errno.
 *
 * Threads: every function may be called from any thread, with any lock held, unless said otherwise; none calls back into
 * the caller except the fault handler, which is called in ordinary context (after the jump out of the copy, never in the
 * signal handler) by the thread that met the fault. No thread that calls media_read() or a write may have SIGBUS blocked: the
 * kernel kills a process whose fault it cannot deliver.
 */
#ifndef MEDIA_MEDIA_H
#define MEDIA_MEDIA_H

#include "util/iset.h"
#include "util/types.h"
#include "util/why.h"

struct media;

enum media_granularity {
	MEDIA_BYTE,	 /* stores are durable when fenced (eADR) */
	MEDIA_CACHELINE, /* stores are durable when flushed and fenced */
	MEDIA_PAGE,	 /* plain file, block device: stores are durable after msync; see media_sync() */
};

struct media_options {
	bool readonly; /* map without PROT_WRITE; every write answers -EROFS */
	bool claim;    /* take the exclusive claim (media/claim.h) first; implies waiting for a finishing holder */
	/* A regular file is created with this size when it does not exist, or grown/shrunk to it with `resize`; 0: as it is. */
	uint64_t create_bytes;
	bool resize;
};

/*
 * Open a regular file, a device-dax character device or a block device. 0; -ENOENT, -EACCES, -EBUSY (claimed: the line names pid
 * and mount point), -ENOTSUP (directory, system-ram mode ...), -EINVAL (smaller than a block), -ENOMEM; `why` says what to do. Never blocks longer than 30 s (a finishing holder), says so on the log after 1 s.
 */
int media_open(const char *path, const struct media_options *options, struct why *why, struct media **out);
/*
 * A block device that was claimed is claimed from the kernel as well (O_EXCL). A mount of type fuseblk makes that claim itself, and would find it taken:
 * give it up just before. The flock and the socket stay, so no other mendfs program gets in between.
 */
void media_hand_over(struct media *media);
/* Claim it again, where no mount came of it. 0, -EBUSY. */
int media_take_back(struct media *media, struct why *why);
/* Sync what is dirty, drop the claim, unmap. Returns the sync's error; the object is gone either way. */
int media_close(struct media *media);

uint64_t media_size(const struct media *media);	     /* bytes; a multiple of 4096; grows only, by media_grow() */
/*
 * Make the rest of a file that was made longer usable, or make it longer: size_bytes, a multiple of 4096; 0: all that is there.
 * Any number of threads may be using the medium. 0 (also when nothing is to be done); -EINVAL: it would shrink, or grow beyond 64 TiB;
 * -ENOTSUP: longer than the device is, or more than there is address space kept for (unmount, mount again); -EROFS; the error of ftruncate or mmap. `why` says it.
 * One caller at a time.
 */
int media_grow(struct media *media, uint64_t size_bytes, struct why *why);
uint64_t media_alignment(const struct media *media); /* of the mapping: 4096, 2 MiB, ... */
enum media_granularity media_granularity(const struct media *media);
const char *media_granularity_name(enum media_granularity granularity);
bool media_is_device(const struct media *media); /* device-dax */
bool media_is_block(const struct media *media);
bool media_is_readonly(const struct media *media);
/*
 * Tells this attachment of a block device from every other: of one that was pulled out and put back the page cache is gone, and with it what
 * was never synced, although the host has not booted. 0 for what is no block device.
 */
uint64_t media_attachment(const struct media *media);
/*
 * How often the device lost power before what was in its buffers had reached the medium: a number that only ever rises. 0; -ENOTSUP: a file, or
 * DIMMs that do not count.
 */
int media_unsafe_shutdowns(struct media *media, uint64_t *count);
const char *media_path(const struct media *media);     /* as given */
const char *media_real_path(const struct media *media); /* absolute; still right after chdir() */
int media_fd(const struct media *media); /* for ioctl and fallocate by this layer's tools only: never for data */

/*
 * Copy out. 0; -EIO: a byte of the range is poisoned (known, or found now by SIGBUS): *bad is the first such device byte and
 * buffer[0 .. *bad - offset) is filled where the bytes before it could be had; -ERANGE. Ranges in the known set are
 * never touched. bad may be NULL.
 */
int media_read(struct media *media, devoff_t offset, void *buffer, size_t length, devoff_t *bad);
/*
 * Copy in, with non-temporal stores where that wins. Not durable before media_drain() or media_sync(). 0; -EIO as above (a known bad
 * range is not touched; bytes before *bad may have been stored); -ENOSPC: the host's filesystem is full under a sparse image (nothing
 * enters the known set); -EROFS; -ERANGE.
 */
int media_write(struct media *media, devoff_t offset, const void *buffer, size_t length, devoff_t *bad);
/* As media_write(), of zeros. */
int media_zero(struct media *media, devoff_t offset, uint64_t length, devoff_t *bad);
/* One aligned 64-byte line, stored so that it is never torn where the CPU allows; flushed by the next drain. */
int media_write_line(struct media *media, devoff_t offset, const void *line, devoff_t *bad);

/*
 * Order and durability point of an operation. BYTE, CACHELINE: everything this thread stored before is durable on return. PAGE: cheap,
 * orders nothing on the host's disk; the ranges stay dirty until media_sync().
 */
void media_drain(struct media *media);
/*
 * Everything that any thread stored before the call is durable on return, on every medium (PAGE: msync of the dirty ranges; the first one reaches all
 * of the file, with what a process left that died before it could sync). 0, or
 * the error of msync, which is sticky: the kernel has marked the pages clean, nothing may be acknowledged as durable any more.
 */
int media_sync(struct media *media);
/*
 * No other thread stores, clears or discards anything from now on (-EIO, *bad untouched), and none is in the middle of it on return: what was stored before
 * is there for this thread to sync. Not from within a store (the fault handler).
 */
void media_hold(struct media *media);
/* The same for every thread, for good. media_sync() answers -EIO then, media_close() syncs nothing. Reading goes on. */
void media_stop(struct media *media);
bool media_is_stopped(const struct media *media);
/* Counts that do not drift. sigbus: units of poison consumed; a full host or a shrunk file is none, nor is a good byte beside an armed one. */
struct media_counts {
	uint64_t reads, read_bytes, writes, write_bytes, drains, syncs, sigbus;
};
void media_counts(const struct media *media, struct media_counts *out);

/* --- what is known to be bad -------------------------------------------------------------------------------------- */

/* The known set: asked before every access, O(1) while it is empty, O(log n) else. Ranges are rounded outward to 512 bytes by add. */
int media_bad_add(struct media *media, devoff_t offset, uint64_t length);
int media_bad_remove(struct media *media, devoff_t offset, uint64_t length);
/* The first known bad range that overlaps, clipped to the query; false: none. */
bool media_bad_find(struct media *media, devoff_t offset, uint64_t length, devoff_t *bad, uint64_t *bad_length);
/* Lock-free: false means that nothing at all is known to be bad. */
bool media_bad_any(const struct media *media);

enum media_fault_kind {
	MEDIA_FAULT_POISON,	/* [offset, offset + length) cannot be read: clear unit or sector, exact */
	MEDIA_FAULT_SUSPECT,	/* a coarse report: somewhere in there */
	MEDIA_FAULT_MISSING,	/* the file was shrunk under us */
	MEDIA_FAULT_GONE,	/* the device was removed */
	MEDIA_FAULT_HOST_FULL,	/* store refused: the caller got -ENOSPC; nothing is bad */
};
struct media_fault {
	enum media_fault_kind kind;
	devoff_t offset;
	uint64_t length;
	bool is_known; /* POISON that the kernel listed while we ran into it: to be counted, everything else is done */
};
/*
 * Called once per new fault (a range already known is not reported again, but see is_known), by the thread that met it, holding whatever locks that
 * thread holds: the handler may queue, append to the poison log and return; it must not read the trees. The range (but for
 * HOST_FULL) is in the known set already.
 */
typedef void media_fault_fn(void *arg, const struct media_fault *fault);
void media_set_fault_handler(struct media *media, media_fault_fn *handler, void *arg);
/* The device range that a SIGBUS with this si_addr and si_addr_lsb is about; false: the address is not in the mapping. Touches nothing. */
bool media_locate(const struct media *media, uint64_t address, unsigned lsb, devoff_t *offset, uint64_t *length);

/*
 * Make a poisoned range usable again before it is overwritten (content is undefined after it, until written). Device: libpmem2's clear;
 * emulation: disarms. 0; -ENOTSUP: this medium cannot clear (use another block); -EIO: tried and failed. Sector multiples. On success the
 * range has left the known set.
 */
int media_clear(struct media *media, devoff_t offset, uint64_t length);

/*
 * Plain files: give the host's space of the range back; it reads as zeros then. For free space only. 0, -ENOTSUP (device, or a host filesystem
 * without holes), -ERANGE, -EROFS, or fallocate's error.
 */
int media_discard(struct media *media, devoff_t offset, uint64_t length);
/* Only whole aligned units of this many bytes, a power of two, give anything back; 0: media_discard() answers -ENOTSUP. */
uint64_t media_discard_unit(const struct media *media);
/* For a tool that reads all of a large medium once: what was read of it no longer counts as memory of this process. Changes nothing. */
void media_let_go(struct media *media);
/* A store was refused because the host's filesystem is full, and none has found room since. */
bool media_host_is_full(const struct media *media);

/* --- emulated poison (plain files); devices: madvise(MADV_HWPOISON), lasting until unmount ------------------------------ */

/*
 * Arm [offset, offset + length): any later touch of it raises a real SIGBUS in this process, remembered in IMAGE.poison.
 * Byte exact. Does not enter the known set by itself. 0, -ERANGE, -EINVAL (length 0), or the error of writing IMAGE.poison.
 */
int media_poison_arm(struct media *media, devoff_t offset, uint64_t length, bool latent);
/* Lift what is armed within the range; content is what it was. *removed_bytes may be 0. */
int media_poison_disarm(struct media *media, devoff_t offset, uint64_t length, uint64_t *removed_bytes);
/* A notified range that was latent, or the reverse. */
struct media_poison {
	devoff_t offset;
	uint64_t length;
	bool latent;
};
/*
 * Load IMAGE.poison and arm all of it. `uuid` is the filesystem's visible uuid, or NULL where there is none yet (mkfs, inject into a
 * bare image: takes whatever is there). A file tied to another uuid is ignored with a warning, and what an earlier call with NULL took from
 * it is lifted again (mount must know what is bad before it reads the superblock that has the uuid); a damaged line is -EUCLEAN with
 * its number. No file: 0.
 */
int media_poison_load(struct media *media, const uint8_t *uuid, struct why *why);
/* Tie IMAGE.poison to this uuid from now on (mkfs, mendctl uuid). */
int media_poison_tie(struct media *media, const uint8_t *uuid, struct why *why);
/* All that is armed, in ascending order, merged; free() the array. */
int media_poison_list(struct media *media, struct media_poison **out, size_t *count);

#endif
