/*
 * A lab whose content can be put back to what it was when it was kept: pages that are stored to are noted and undone one by one, so that thousands of
 * mounts a second may spoil it.
 */
#ifndef TESTS_FUZZ_MEDIUM_H
#define TESTS_FUZZ_MEDIUM_H

#include "tests/support/lab.h"

struct medium;

int medium_create(uint64_t size_bytes, enum media_granularity granularity, struct medium **out);
struct lab *medium_lab(struct medium *medium);
struct media *medium_media(struct medium *medium);
uint64_t medium_size(const struct medium *medium);
/* From now on this content is what medium_restore() brings back. */
int medium_keep(struct medium *medium);
/* The bytes as kept; only what is not zero takes memory. */
const uint8_t *medium_kept(const struct medium *medium);
/* For changes behind the filesystem's back: the range, noted as changed. It lies inside the medium. */
uint8_t *medium_change(struct medium *medium, devoff_t offset, size_t length);
/* Was anything stored since medium_forget_changes()? */
bool medium_is_changed(const struct medium *medium);
void medium_forget_changes(struct medium *medium);
/* Content as kept, poison healed, and nobody knows anything of it. */
void medium_restore(struct medium *medium);

#endif
