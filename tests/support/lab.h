/*
 * A medium in memory that a test has in its hands: a real struct media over a file of /dev/shm that has no name any more, whose bytes can be read and
 * written behind the filesystem's back between mounts, whose poison costs no signal, and whose stores, drains and syncs can be listened to. Many mounts of
 * one lab follow each other: fs_mount_media(), then fs_abandon() or fs_unmount(), then lab_reset(). One thread.
 */
#ifndef TESTS_SUPPORT_LAB_H
#define TESTS_SUPPORT_LAB_H

#include "media/media_types.h"

struct lab;

/*
 * What happens to the medium, told before it happens: stores with the bytes that are about to be replaced still in lab_bytes(). Any may be NULL. They run
 * within media_write() and so on, under whatever locks the caller holds.
 */
struct lab_listener {
	void (*load)(void *arg, devoff_t offset, size_t length);
	void (*store)(void *arg, devoff_t offset, const void *from, size_t length); /* from NULL: zeros */
	void (*drain)(void *arg);
	void (*sync)(void *arg, devoff_t start, devoff_t end); /* the bytes that it reaches; none: start == end */
	/* Answers with what the store or load must fail with: 0 to go on, or BUS_MCEERR_AR with *at, the first bad byte. */
	int (*fault)(void *arg, bool is_store, devoff_t offset, size_t length, devoff_t *at);
	void *arg;
};

/* granularity: MEDIA_CACHELINE for a device (drain is durability), MEDIA_PAGE for a plain file (sync is). 0 or negative errno. */
int lab_create(uint64_t size_bytes, enum media_granularity granularity, struct lab **out);
void lab_destroy(struct lab *lab);
struct media *lab_media(struct lab *lab);
uint8_t *lab_bytes(struct lab *lab);
uint64_t lab_size(const struct lab *lab);
/*
 * The caller's word that lab_bytes() is changed only where something was stored through the medium since lab_create(): what never was is zeros and need
 * not be looked at. Recovery reads all of the journal's ring; this is most of a mount's time.
 */
int lab_track_stores(struct lab *lab);
/* Where the caller does change lab_bytes() itself: the block may hold anything now, or is zeros again. */
void lab_note_block(struct lab *lab, uint64_t block, bool is_zero);
void lab_listen(struct lab *lab, const struct lab_listener *listener); /* NULL: nobody listens */
/* What a process knows of the medium is forgotten, as by its death: known bad ranges, marks, counts. Poison stays. */
void lab_reset(struct lab *lab);

/* Loads of these bytes fault from now on; a store of a whole line heals nothing, media_clear() does, as the medium can. Rounded outward to 64 bytes. */
int lab_poison(struct lab *lab, devoff_t offset, uint64_t length);
void lab_heal(struct lab *lab, devoff_t offset, uint64_t length);
void lab_heal_all(struct lab *lab);

#endif
