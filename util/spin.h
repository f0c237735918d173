/*
 * Looking for a moment before sleeping: what locks of this program guard takes a few microseconds at most, and a sleep with its wake-up, between two
 * CPUs of a virtual machine above all, takes ten times as long.
 */
#ifndef UTIL_SPIN_H
#define UTIL_SPIN_H

#define SPIN_TRIES 1000u /* of a pause each, which are 10 to 70 nanoseconds */
#define SPIN_PAUSES_MAX 8u /* between two looks that disturb the other */

static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

#endif
