/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What the programs and the loader exchange. `src/records.rs` has the same; a test compares the sizes. */
#ifndef GOPS_PROBE_RECORDS_H
#define GOPS_PROBE_RECORDS_H

/* Most return addresses of a walk. */
#define MAX_FRAMES 512
/* Most frames of the kernel. */
#define MAX_KERNEL_FRAMES 127
/* Most bytes of a stack that are copied. */
#define MAX_STACK 16384

enum record_kind {
	RECORD_SAMPLE = 1,
	RECORD_KERNEL = 2,
	RECORD_STACK = 3,
	RECORD_FORK = 4,
	RECORD_EXEC = 5,
};

enum sample_flags {
	/* The thread was in the kernel. */
	SAMPLE_IN_KERNEL = 1,
	/* `ip`, `sp` and `bp` are known. */
	SAMPLE_USER = 2,
	/* `frames` are those of the goroutine, from where it called C; those of C are in the copied stack only. */
	SAMPLE_HOPPED = 4,
	/* The walk ended at the limit. */
	SAMPLE_CUT = 8,
	/* Among `frames` is a function that left the goroutine's stack, and behind it those of the goroutine. */
	SAMPLE_CROSSED = 16,
	/* From this bit on: which of the runtimes of its target the goroutine is of. */
	SAMPLE_RUNTIME_SHIFT = 8,
};

enum target_flags {
	/* Processes that it begins are targets too. */
	TARGET_FOLLOW = 2,
};

/* Most Go runtimes of a process whose goroutines are found. */
#define MAX_RUNTIMES 4

/* A Go runtime. Offsets in bytes. */
struct runtime {
	/* Its code, runtime addresses. */
	__u64 text_start, text_end;
	/* runtime.morestack and runtime.systemstack, which call others on the stack of the thread: the same. */
	__u64 morestack_start, morestack_end, systemstack_start, systemstack_end;
	/* Where a thread keeps g, from the base of its thread-local storage. */
	__s64 tls_g;
	__u32 g_m, g_goid, g_labels, g_sched_pc, g_sched_sp, g_sched_bp;
	__u32 m_curg;
	__u32 unused;
};

/* A process to sample. */
struct target {
	struct runtime runtimes[MAX_RUNTIMES];
	/* How many of them there are: those whose layout is known. */
	__u32 count;
	__u32 flags;
};

/* Begins every record. */
struct header {
	__u32 kind;
	__u32 cpu;
	/* Parts of one sample have one number; they come before it. */
	__u64 number;
};

struct sample {
	struct header header;
	/* CLOCK_MONOTONIC, in nanoseconds. */
	__u64 time;
	/* In the namespace of the loader. */
	__u32 pid, tid;
	__u32 flags;
	/* Length of `frames`. */
	__u32 length;
	__u64 ip, sp, bp;
	/* What the thread was doing in Go; 0 where that is unknown. */
	__u64 g, curg, goid, labels;
	/* Return addresses by frame pointers, the innermost first. */
	__u64 frames[MAX_FRAMES];
};

struct kernel_part {
	struct header header;
	__u64 frames[MAX_KERNEL_FRAMES];
};

struct stack_part {
	struct header header;
	__u8 bytes[MAX_STACK];
};

/* A process that a target began, or a target that executes another program. */
struct life {
	struct header header;
	__u32 pid, parent;
};

/* What is counted, for each CPU. */
enum counter {
	/* Interrupts by the event. */
	COUNT_FIRED,
	/* Samples of targets. */
	COUNT_TAKEN,
	/* Samples that found no room in the ring buffer. */
	COUNT_LOST,
	/* Parts of samples that found none. */
	COUNT_LOST_PARTS,
	COUNTERS,
};

#endif
