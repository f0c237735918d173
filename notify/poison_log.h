/*
 * The poison log: the durable record in front of the trees of what is bad. Read before anything else but the superblock;
 * appended with one line store per copy and a drain (PAGE: msync follows by the timer), under any lock, outside transactions.
 */
#ifndef NOTIFY_POISON_LOG_H
#define NOTIFY_POISON_LOG_H

#include "format/poison_format.h"
#include "format/super_format.h"
#include "media/media.h"

struct poison_log;

/* Read both copies (a poisoned part of one is answered from the other; neither is fatal) and enter what is found into media's known set, in
 * order of sequence, CLEARED entries taking ranges out. Readonly media are only read. */
int poison_log_open(struct media *media, const struct super *super, struct poison_log **out);
void poison_log_close(struct poison_log *log);
int poison_log_format(struct media *media, const struct super *super); /* mkfs: make stale entries of both copies unreadable: zero them */
/* Durable (BYTE, CACHELINE) on return. -ENOSPC: full, the caller moves entries to the trees first; the known set has the range anyway. */
int poison_log_append(struct poison_log *log, struct poison_entry *entry /* sequence is filled in */);
/* Entries not yet moved to the trees, oldest first: visit returns 0 to go on. */
int poison_log_walk(struct poison_log *log, int (*visit)(void *arg, const struct poison_entry *entry), void *arg);
/* Everything below sequence is in the trees durably: slots may be reused. */
void poison_log_trim(struct poison_log *log, uint64_t sequence);
uint64_t poison_log_next_sequence(const struct poison_log *log);

#endif
